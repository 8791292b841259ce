"""`ostore versions`: every version of a name."""

from __future__ import annotations

import click

from ostore.cli.console import shown, size_text
from ostore.cli.failures import Missing
from ostore.cli.options import NAME, examples, verb
from ostore.cli.remote import hash_of
from ostore.cli.session import Session


@click.command(
    short_help="All versions of a name.",
    epilog=examples("ostore versions trip/photo.raw"),
)
@click.argument("name", type=NAME)
@verb
def command(session: Session, name: str) -> None:
    """List all versions of NAME, delete markers included, oldest first."""
    count = 0
    for count, version in enumerate(session.remote.versions(name), 1):  # noqa: B007  # used below
        number, made = version["version"], version["created"][:19]
        if version["deleted"]:
            what = "deleted"
        else:
            what = f"{size_text(version['size']):>10}  {hash_of(version)[:16]}"
        session.console.item(version, f"{shown(name)}@{number}  {made}Z  {what}")
    if not count:
        raise Missing(f"{name}: there is no such object", 404)
