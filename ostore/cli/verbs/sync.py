"""`ostore sync`: a folder and a prefix hold the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import click

from ostore.cli.coding import PLAIN_HASH, PLAIN_SIZE
from ostore.cli.console import shown
from ostore.cli.failures import Failure, Misused, Several
from ostore.cli.globs import Globs
from ostore.cli.options import (
    JOBS,
    NAME,
    PIECE,
    PIECE_GOT,
    RANGES,
    THRESHOLD,
    examples,
    verb,
)
from ostore.cli.parallel import each
from ostore.cli.remote import Version, hash_of
from ostore.cli.sending import Sender
from ostore.cli.sent import Limits
from ostore.cli.session import Session
from ostore.cli.source import Source
from ostore.cli.syncing import Filter, Plan, There, doubtful, plan, shadowed
from ostore.cli.target import Unsafe, below
from ostore.cli.tree import emptied, files

_META = "X-Ostore-Meta-"
_HASH_KEY = PLAIN_HASH.removeprefix(_META).lower()
_SIZE_KEY = PLAIN_SIZE.removeprefix(_META).lower()


@click.command(
    short_help="Make a prefix and a folder the same.",
    epilog=examples(
        "ostore sync photos photos/",
        "ostore sync --delete --dry-run photos photos/",
        "ostore sync --download --exclude '*.tmp' photos photos/",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("prefix", type=NAME)
@click.option("--download", is_flag=True, help="From PREFIX into DIR.")
@click.option("--delete", is_flag=True, help="Delete what the source does not have.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only what is like it.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Nothing that is.")
@click.option(
    "--compress",
    type=click.Choice(["zstd", "none"]),
    default="none",
    help="Compress before sending.",
)
@THRESHOLD
@PIECE
@JOBS
@RANGES
@verb
def command(
    session: Session,
    folder: Path,
    prefix: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    compress: str,
    *,
    download: bool,
    delete: bool,
    dry_run: bool,
    threshold: int,
    piece: int,
    jobs: int,
    ranges: int,
) -> None:
    """Make PREFIX hold what DIR holds; with --download the other way round.

    Size and SHA-256 decide what is copied, never times. --delete adds delete markers
    (older versions stay), or removes files of DIR. What the globs leave out is not
    touched on either side. Symbolic links are passed over.
    """
    chosen = Filter(
        Globs(include) if include else None, Globs(exclude) if exclude else None
    )
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    if delete and not prefix and not download:
        raise Misused("--delete with the empty prefix would delete all other names")
    if not download and not folder.is_dir():
        raise Misused(f"{str(folder)!a} is no folder")
    sides = _Sides(session, folder, prefix, chosen)
    todo = sides.download(delete=delete) if download else sides.upload(delete=delete)
    work = _Work(session, sides, jobs=jobs, dry_run=dry_run)
    if download:
        work.download(todo, piece, ranges)
    else:
        work.upload(todo, Sender(session, Limits(threshold, piece), compress))
    work.end(todo)


class _Sides:
    """Both sides, looked at once."""

    def __init__(
        self, session: Session, folder: Path, prefix: str, chosen: Filter
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self._session = session
        self._chosen = chosen
        self.local = self._local()
        self.remote = self._remote()

    def _local(self) -> dict[str, There]:
        if not self.folder.exists():
            return {}

        def skipped(name: str, why: str) -> None:
            self._session.console.say(f"{name}: passed over: {why}")

        return {
            name: There(found.st_size)
            for name, found in files(self.folder, skipped)
            if self._chosen.takes(name)
        }

    def _remote(self) -> dict[str, There]:
        found: dict[str, There] = {}
        for entry in self._session.remote.names(self.prefix):
            assert not isinstance(entry, str)
            name = entry["name"].removeprefix(self.prefix)
            if name and self._chosen.takes(name):
                found[name] = _there(entry)
        return found

    def _hashed(self, local: Mapping[str, There], names: list[str]) -> dict[str, There]:
        found = dict(local)
        for name in names:
            try:
                with Source(self.folder / name) as source:
                    found[name] = There(source.size, source.hash())
            except Failure as failure:
                self._session.console.say(str(failure))
        return found

    def upload(self, *, delete: bool) -> Plan:
        """What makes the service like the folder."""
        names = list(doubtful(self.local, self.remote))
        self.local = self._hashed(self.local, names)
        return plan(self.local, self.remote, delete=delete)

    def download(self, *, delete: bool) -> Plan:
        """What makes the folder like the service."""
        names = list(doubtful(self.remote, self.local))
        local = self._hashed(self.local, names)
        folders = shadowed(self.remote)

        def refuse(name: str) -> str | None:
            if name in folders:
                return f"a file cannot also be the folder of {shown(folders[name])}"
            try:
                below(self.folder, name)
            except Unsafe as unsafe:
                return str(unsafe)
            return None

        return plan(self.remote, local, delete=delete, refuse=refuse)


def _there(version: Version) -> There:
    """What a version is when a coding of ours is undone."""
    kept = {key.lower(): value for key, value in version.get("metadata", {}).items()}
    size, hash = kept.get(_SIZE_KEY, ""), kept.get(_HASH_KEY)
    if hash and size.isascii() and size.isdigit():
        return There(int(size), hash)
    return There(version["size"], hash_of(version))


@attrs.define
class _Work:
    """Does what the plan says, and tells it."""

    session: Session
    sides: _Sides
    jobs: int = attrs.field(kw_only=True)
    dry_run: bool = attrs.field(kw_only=True)
    failures: list[Failure] = attrs.field(factory=list)

    def upload(self, todo: Plan, sender: Sender) -> None:
        """Folder to service."""
        remote = self.session.remote
        headers: dict[str, str] = {}

        def send(name: str) -> None:
            there = self.sides.local[name]
            path, full = self.sides.folder / name, self.sides.prefix + name
            if not self.dry_run:
                sender.file(path, full, headers, bars, there.hash)
            self._tell("put", name, there.size)

        def delete(name: str) -> None:
            if not self.dry_run:
                remote.delete(self.sides.prefix + name)
            self._tell("rm", name, None)

        with self.session.console.bars() as bars:
            self._each(todo.copy, send)
            self._each(todo.delete, delete)

    def download(self, todo: Plan, piece: int, ranges: int) -> None:
        """Service to folder."""
        downloads = self.session.downloads(min(piece, PIECE_GOT), ranges)
        folder = self.sides.folder

        def receive(name: str) -> None:
            path, full = below(folder, name), self.sides.prefix + name
            if not self.dry_run:
                downloads.file(full, None, path, lambda size: bars.bar(name, size))
            self._tell("get", name, self.sides.remote[name].size)

        def delete(name: str) -> None:
            path = below(folder, name)
            if not self.dry_run:
                path.unlink(missing_ok=True)
                emptied(path.parent, folder)
            self._tell("rm", name, None)

        for name, why in todo.refused:
            failure = Unsafe(f"{name}: left out: {why}")
            self.session.console.complain(str(failure))
            self.failures.append(failure)
        with self.session.console.bars() as bars:
            # First, so that a folder can come where a file was.
            self._each(todo.delete, delete)
            self._each(todo.copy, receive)

    def end(self, todo: Plan) -> None:
        """The last line. Raises Several when something failed."""
        facts = {
            "copied": len(todo.copy),
            "deleted": len(todo.delete),
            "same": len(todo.same),
            "dry_run": self.dry_run,
        }
        if not self.session.console.as_json:
            would = "would be " if self.dry_run else ""
            self.session.console.say(
                f"{facts['copied']} {would}copied, {facts['deleted']} {would}deleted, "
                f"{facts['same']} the same"
            )
        if self.failures:
            raise Several(f"{len(self.failures)} failed", self.failures)

    def _each(self, names: tuple[str, ...], work: Callable[[str], None]) -> None:
        try:
            each(
                names,
                work,
                workers=1 if self.dry_run else self.jobs,
                complain=self.session.console.complain,
            )
        except Several as several:
            self.failures.append(several)

    def _tell(self, action: str, name: str, size: int | None) -> None:
        facts = {"action": action, "name": self.sides.prefix + name, "size": size}
        would = "would " if self.dry_run else ""
        self.session.console.done(
            {**facts, "file": str(self.sides.folder / name), "dry_run": self.dry_run},
            f"{would}{action} {shown(name)}",
        )
