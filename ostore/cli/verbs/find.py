"""`ostore find`: names by pattern, size and age."""

from __future__ import annotations

from datetime import datetime

import click

from ostore.cli.console import shown
from ostore.cli.globs import Globs
from ostore.cli.options import DURATION, NAME, SIZE, examples, verb
from ostore.cli.remote import Version
from ostore.cli.session import Session


@click.command(
    short_help="Names by pattern, size and age.",
    epilog=examples(
        "ostore find trip/ --name '*.raw' --larger 10MiB",
        "ostore find --older 30d -0 logs/ | xargs -0 ostore rm --",
    ),
)
@click.argument("prefix", type=NAME, default="")
@click.option(
    "--name", "patterns", multiple=True, metavar="GLOB", help="Names like it."
)
@click.option("--larger", type=SIZE, help="Above that size.")
@click.option("--smaller", type=SIZE, help="Below that size.")
@click.option("--older", type=DURATION, help="Written longer ago, as 7d.")
@click.option("--newer", type=DURATION, help="Written since then, as 24h.")
@click.option("-0", "--null", is_flag=True, help="End names with NUL, unescaped.")
@verb
def command(
    session: Session,
    prefix: str,
    patterns: tuple[str, ...],
    larger: int | None,
    smaller: int | None,
    older: int | None,
    newer: int | None,
    *,
    null: bool,
) -> None:
    """Find the names that begin with PREFIX and fit all that is asked.

    In a GLOB, * stands for anything but slashes, ** for anything, ? for a character,
    [a-z] for one of these; one without a slash is about the last part of the name.
    """
    globs, now = Globs(patterns), session.world.wall()

    def fits(version: Version) -> bool:
        size = version["size"]
        age = now - datetime.fromisoformat(version["created"]).timestamp()
        return (
            (not patterns or globs.match(version["name"]))
            and (larger is None or size > larger)
            and (smaller is None or size < smaller)
            and (older is None or age > older)
            and (newer is None or age < newer)
        )

    for entry in session.remote.names(prefix):
        if not isinstance(entry, str) and fits(entry):
            if null:
                session.console.raw(entry["name"], "\0")
            else:
                session.console.item(entry, shown(entry["name"]))
