"""`ostore restore`: an old version becomes the newest again."""

from __future__ import annotations

import re

import click

from ostore.cli.console import shown
from ostore.cli.failures import Misused
from ostore.cli.options import NAME, examples, verb
from ostore.cli.session import Session

_AT = re.compile(r"(.+)@([1-9][0-9]{0,17})", re.DOTALL)


@click.command(
    short_help="Make an old version the newest.",
    epilog=examples("ostore versions trip/a", "ostore restore trip/a@2"),
)
@click.argument("words", metavar="NAME@N...", type=NAME, nargs=-1, required=True)
@verb
def command(session: Session, words: tuple[str, ...]) -> None:
    """Make version N of NAME the newest again.

    It becomes a new version with the content and headers of the old one; nothing is
    sent, and nothing is lost.
    """
    for word in words:
        match = _AT.fullmatch(word)
        if match is None:
            raise Misused(f"{word!a}: write NAME@N; `ostore versions NAME` lists them")
        name, number = match[1], int(match[2])
        version = session.remote.copy(name, number, name, {})
        text = f"restored {shown(name)}@{number} as @{version['version']}"
        session.console.done(version, text)
