"""`ostore get`: objects to files."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ostore.cli.console import Bars, shown, size_text
from ostore.cli.failures import Misused
from ostore.cli.options import JOBS, NAME, PATH, PIECE_TO_GET, RANGES, examples, verb
from ostore.cli.parallel import each
from ostore.cli.session import Session
from ostore.cli.target import below, last_part


@click.command(
    short_help="Objects to files.",
    epilog=examples(
        "ostore get trip/photo.raw",
        "ostore get --version 1 trip/photo.raw old.raw",
        "ostore get trip/a.raw trip/b.raw folder/",
        "ostore get notes/a.txt - | wc",
    ),
)
@click.argument("words", metavar="NAME... [FILE]", type=NAME, nargs=-1, required=True)
@click.option(
    "--to", metavar="FILE", type=PATH, help="The file or folder; all others are names."
)
@click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="That version, not the newest.",
)
@click.option("--raw", is_flag=True, help="Leave a Content-Encoding as it is kept.")
@PIECE_TO_GET
@JOBS
@RANGES
@verb
def command(
    session: Session,
    words: tuple[str, ...],
    to: str | None,
    version: int | None,
    *,
    raw: bool,
    piece: int,
    jobs: int,
    ranges: int,
) -> None:
    """Get NAME into a file of its last part, or into FILE; - is standard output.

    Several names go into a folder. A file appears, or is replaced, only when all of
    it is there and its SHA-256 is right. What was interrupted goes on when the same
    command is given again.
    """
    names = words
    if to is None and len(words) > 1:
        *rest, to = words
        names = tuple(rest)
    downloads = session.downloads(piece, ranges)
    if to == "-":
        if len(names) > 1:
            raise Misused(
                "one name goes to standard output; `ostore cat` takes several"
            )
        downloads.stream(names[0], version, sys.stdout.buffer, raw=raw)
        return
    folder = to is None or to.endswith("/") or Path(to).is_dir()
    if len(names) > 1 and not folder:
        raise Misused(f"several names go into a folder: write {to}/ if you mean it")

    def receive(name: str) -> None:
        where = Path(to or ".")
        path = below(where, last_part(name)) if folder else where
        found = downloads.file(
            name, version, path, lambda size: bars.bar(name, size), raw=raw
        )
        facts = {
            "name": name,
            "version": found.version,
            "file": str(path),
            "size": found.size,
            "sha256": found.hash,
        }
        text = f"got {shown(name)}@{found.version} -> {shown(str(path))}"
        session.console.done(facts, f"{text} ({size_text(found.size)})")

    bars: Bars
    with session.console.bars() as bars:
        if len(names) == 1:
            receive(names[0])
        else:
            each(names, receive, workers=jobs, complain=session.console.complain)
