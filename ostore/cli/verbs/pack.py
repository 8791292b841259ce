"""`ostore pack`: many small files in one object."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from ostore.cli.console import Bar, shown, size_text
from ostore.cli.failures import Failure, Missing, Misused, Several
from ostore.cli.globs import Globs
from ostore.cli.options import NAME, PIECE, THRESHOLD, examples, verb
from ostore.cli.packing.reading import Content, Pack, opened
from ostore.cli.packing.records import METHODS, Member
from ostore.cli.packing.writing import Packer
from ostore.cli.sent import Limits
from ostore.cli.session import Session
from ostore.cli.source import Source
from ostore.cli.syncing import Filter
from ostore.cli.target import Landing, below
from ostore.cli.tree import files

INCLUDE = click.option(
    "--include", multiple=True, metavar="GLOB", help="Only what is like it."
)
EXCLUDE = click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Nothing that is."
)
VERSION = click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="That version, not the newest.",
)


@click.group(
    short_help="Many small files in one object.",
    epilog=examples(
        "ostore pack put letters archive/letters.zip",
        "ostore pack ls archive/letters.zip",
        "ostore pack get archive/letters.zip 2024/may.txt",
    ),
)
def command() -> None:
    """Keep many small files as one object, and read single ones out of it.

    A pack is a zip with a SHA-256 for every file; any zip program reads it. `ls` and
    `get` read only the parts that they need.
    """


@command.command(
    "put",
    short_help="A folder into one object.",
    epilog=examples(
        "ostore pack put letters archive/letters.zip",
        "ostore pack put --compress zstd --exclude '*.tmp' logs logs/may.zip",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("name", type=NAME)
@INCLUDE
@EXCLUDE
@click.option(
    "--compress",
    type=click.Choice(["zstd", "none"]),
    default="none",
    help="Compress each file; fewer zip programs read that.",
)
@THRESHOLD
@PIECE
@verb
def put(
    session: Session,
    folder: Path,
    name: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    compress: str,
    *,
    threshold: int,
    piece: int,
) -> None:
    """Put all files of DIR into one object NAME.

    The pack is built in the folder of transfers first. Symbolic links are passed over.
    """
    if not folder.is_dir():
        raise Misused(f"{str(folder)!a} is no folder")
    chosen = _filter(include, exclude)
    path, count = _built(session, folder, name, chosen, zstd=compress == "zstd")
    headers = {"Content-Type": "application/zip"}
    uploads = session.uploads(Limits(threshold, piece))
    with session.console.bars() as bars, Source(path) as source:
        bar = bars.bar(name, source.size)
        try:
            sent = uploads.file(source, name, headers, bar)
        finally:
            bar.end()
    path.unlink(missing_ok=True)
    version = sent.version
    text = f"packed {count} files -> {shown(name)}@{version['version']}"
    facts = {"folder": str(folder), "files": count, "way": sent.way, **version}
    session.console.done(facts, f"{text} ({size_text(version['size'])})")


def _built(
    session: Session, folder: Path, name: str, chosen: Filter, *, zstd: bool
) -> tuple[Path, int]:
    """The pack as a local file, and how many files are in it.

    Its name comes from its bytes: one that a killed command left is gone on with.
    """

    def skipped(what: str, why: str) -> None:
        session.console.say(f"{what}: passed over: {why}")

    about = (str(session.client.endpoint), name)
    with Landing(session.journal.place("pack", *about)) as landing:
        packer = Packer(landing, zstd=zstd)
        for member, _ in files(folder, skipped):
            if chosen.takes(member):
                packer.add(folder / member, member)
        hasher = hashlib.sha256()
        landing.read(0, packer.finish(), hasher.update)
        path = session.journal.place("pack", *about, hasher.hexdigest())
        if not path.exists():
            landing.path = path
            landing.settle(durable=True)
    return path, packer.count


@command.command(
    "ls",
    short_help="What is in a pack.",
    epilog=examples("ostore pack ls -l archive/letters.zip"),
)
@click.argument("name", type=NAME)
@click.option("-l", "--long", "detailed", is_flag=True, help="Size, time, how kept.")
@VERSION
@verb
def ls(session: Session, name: str, version: int | None, *, detailed: bool) -> None:
    """List the files in the pack NAME; only its index is read."""
    pack = _opened(session, name, version)
    for member in pack.members.values():
        facts = {
            "member": member.name,
            "size": member.size,
            "stored": member.stored,
            "how": METHODS.get(member.method, "unknown"),
            "modified": _time(member),
            "sha256": None if member.hash is None else member.hash.hex(),
        }
        text = shown(member.name)
        if detailed:
            size, how = size_text(member.size), facts["how"]
            text = f"{size:>10}  {_time(member)}  {how:<8} {text}"
        session.console.item(facts, text)


@command.command(
    "get",
    short_help="Files out of a pack.",
    epilog=examples(
        "ostore pack get archive/letters.zip 2024/may.txt",
        "ostore pack get archive/letters.zip 2024/may.txt --to - | less",
        "ostore pack get archive/letters.zip --include '2024/**' --to letters/",
    ),
)
@click.argument("name", type=NAME)
@click.argument("members", metavar="[MEMBER]...", nargs=-1)
@click.option("--to", metavar="DIR", default=".", help="Where; - is standard output.")
@INCLUDE
@EXCLUDE
@VERSION
@verb
def get(
    session: Session,
    name: str,
    members: tuple[str, ...],
    to: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    version: int | None,
) -> None:
    """Get MEMBER out of the pack NAME, or all files, into DIR.

    Each is checked by its SHA-256. One that is damaged does not keep the others back.
    """
    pack = _opened(session, name, version)
    wanted = _wanted(pack, members, _filter(include, exclude))
    if to == "-":
        if len(wanted) != 1:
            raise Misused("one member goes to standard output")
        for content in pack.contents(wanted):
            for chunk in content.chunks():
                sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    failures: list[Failure] = []
    with session.console.bars() as bars:
        bar = bars.bar(name, sum(pack.members[each].size for each in wanted))
        for content in pack.contents(wanted):
            try:
                path = _received(content, Path(to), bar)
            except Failure as failure:
                failures.append(failure)
                session.console.complain(str(failure))
            else:
                facts = {"member": content.member.name, "file": str(path)}
                text = f"got {shown(content.member.name)} -> {shown(str(path))}"
                session.console.done({**facts, "size": content.member.size}, text)
        bar.end()
    if failures:
        raise Several(f"{len(failures)} of {len(wanted)} failed", failures)


def _opened(session: Session, name: str, version: int | None) -> Pack:
    pack = opened(session.remote, name, version)
    if not pack.whole:
        session.console.say(
            f"{name}: its index is damaged; the members were found by reading it all"
        )
    return pack


def _wanted(pack: Pack, members: Sequence[str], chosen: Filter) -> list[str]:
    for member in members:
        if member not in pack.members:
            raise Missing(f"{member}: there is no such file in the pack", 404)
    return [
        name for name in dict.fromkeys(members or pack.members) if chosen.takes(name)
    ]


def _received(content: Content, folder: Path, bar: Bar) -> Path:
    member = content.member
    path = below(folder, member.name)
    at = 0
    with Landing(path) as landing:
        for chunk in content.chunks():
            landing.write(memoryview(chunk), at)
            at += len(chunk)
            bar.advance(len(chunk))
        # Who may read it may run it, if it was to be run.
        own = os.fstat(landing.handle).st_mode & 0o777
        os.fchmod(landing.handle, own | (own & 0o444) >> 2 & member.mode)
        os.utime(landing.handle, (member.modified, member.modified))
        landing.settle()
    return path


def _filter(include: Sequence[str], exclude: Sequence[str]) -> Filter:
    return Filter(
        Globs(include) if include else None, Globs(exclude) if exclude else None
    )


def _time(member: Member) -> str:
    when = datetime.fromtimestamp(member.modified, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
