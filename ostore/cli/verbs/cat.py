"""`ostore cat`: contents to standard output."""

from __future__ import annotations

import sys

import click

from ostore.cli.options import NAME, PIECE_TO_GET, examples, verb
from ostore.cli.session import Session


@click.command(
    short_help="Contents to standard output.",
    epilog=examples("ostore cat notes/a.txt | less"),
)
@click.argument("names", metavar="NAME...", type=NAME, nargs=-1, required=True)
@click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="That version, not the newest.",
)
@click.option("--raw", is_flag=True, help="Leave a Content-Encoding as it is kept.")
@PIECE_TO_GET
@verb
def command(
    session: Session,
    names: tuple[str, ...],
    version: int | None,
    *,
    raw: bool,
    piece: int,
) -> None:
    """Write the contents of NAME to standard output, one after the other.

    When the end was wrong, that can only be told by the exit status 4: `get` checks
    before it gives anything away.
    """
    downloads = session.downloads(piece, 1)
    for name in names:
        downloads.stream(name, version, sys.stdout.buffer, raw=raw)
