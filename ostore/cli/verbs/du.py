"""`ostore du`: how much there is."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import click

from ostore.cli.console import shown, size_text
from ostore.cli.options import NAME, examples, verb
from ostore.cli.remote import Version
from ostore.cli.session import Session


@attrs.define
class Sum:
    """Of the names below one prefix."""

    names: int = 0
    size: int = 0

    def add(self, version: Version) -> None:
        """One more."""
        self.names += 1
        self.size += version["size"]


@click.command(
    short_help="How much there is.",
    epilog=examples("ostore du", "ostore du --depth 2 trip/", "ostore du -a"),
)
@click.argument("prefix", type=NAME, default="")
@click.option(
    "-d",
    "--depth",
    type=click.IntRange(0, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="So many levels of folders below PREFIX.",
)
@click.option("-a", "--all-versions", is_flag=True, help="Count old versions too.")
@verb
def command(session: Session, prefix: str, depth: int, *, all_versions: bool) -> None:
    """Sum up sizes below PREFIX, a line a folder; the last line is the whole.

    Sizes are those of the objects as they were put. `stored once` counts a content
    with several names or versions once; parity and compression are left out.
    """
    sums: dict[str, Sum] = {}
    whole, contents, stored = Sum(), set[bytes](), 0
    for version in _versions(session, prefix, all_versions=all_versions):
        name, hash = version["name"], version["hash"].encode()
        whole.add(version)
        if hash not in contents:
            contents.add(hash)
            stored += version["size"]
        *folders, _ = name.removeprefix(prefix).split("/")
        for level in range(1, min(depth, len(folders)) + 1):
            folder = prefix + "/".join(folders[:level]) + "/"
            sums.setdefault(folder, Sum()).add(version)
    for folder in sorted(sums):
        _tell(session, folder, sums[folder], None)
    _tell(session, prefix, whole, stored)


def _versions(
    session: Session, prefix: str, *, all_versions: bool
) -> Iterator[Version]:
    if all_versions:
        for version in session.remote.versions():
            if version["name"].startswith(prefix) and not version["deleted"]:
                yield version
    else:
        for entry in session.remote.names(prefix):
            if not isinstance(entry, str):
                yield entry


def _tell(session: Session, prefix: str, sum: Sum, stored: int | None) -> None:
    facts: dict[str, object] = {"prefix": prefix, "names": sum.names, "size": sum.size}
    text = f"{size_text(sum.size):>10}  {sum.names:>8}  {shown(prefix) or '(all)'}"
    if stored is not None:
        facts["stored_once"] = stored
        text += f"  (stored once: {size_text(stored)})"
    session.console.item(facts, text)
