"""`ostore cp`: copy within the service."""

from __future__ import annotations

import click

from ostore.cli.console import shown
from ostore.cli.options import NAME, examples, verb
from ostore.cli.session import Session
from ostore.cli.target import last_part


@click.command(
    short_help="Copy within the service.",
    epilog=examples("ostore cp trip/a.raw best/", "ostore cp a b"),
)
@click.argument("source", metavar="NAME", type=NAME)
@click.argument("to", metavar="NEW", type=NAME)
@click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="That version, not the newest.",
)
@click.option(
    "--if-absent", is_flag=True, help="Fail when there is an object of that name."
)
@verb
def command(
    session: Session, source: str, to: str, version: int | None, *, if_absent: bool
) -> None:
    """Copy NAME to NEW, headers included; no content is sent or stored again.

    A NEW that ends in a slash is a prefix for the last part of NAME.
    """
    name = to + last_part(source) if to.endswith("/") else to
    headers = {"If-None-Match": "*"} if if_absent else {}
    made = session.remote.copy(source, version, name, headers)
    text = f"copied {shown(source)} -> {shown(name)}@{made['version']}"
    session.console.done(made, text)
