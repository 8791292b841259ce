"""`ostore ls`: names, as in a folder."""

from __future__ import annotations

import click

from ostore.cli.console import shown, size_text
from ostore.cli.options import NAME, examples, verb
from ostore.cli.session import Session


@click.command(
    short_help="Names, as in a folder.",
    epilog=examples("ostore ls", "ostore ls -l trip/", "ostore ls -r --json trip/"),
)
@click.argument("prefix", type=NAME, default="")
@click.option("-l", "--long", "detailed", is_flag=True, help="Size, time, version.")
@click.option("-r", "--recursive", is_flag=True, help="All names below, not one level.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="So many lines at most."
)
@verb
def command(
    session: Session, prefix: str, *, detailed: bool, recursive: bool, limit: int | None
) -> None:
    """List the names that begin with PREFIX.

    Names are cut at the next slash, as folders are; -r shows them whole.
    """
    console = session.console
    delimiter = "" if recursive else "/"
    for entry in session.remote.names(prefix, delimiter, most=limit):
        if isinstance(entry, str):
            blank = " " * 43 if detailed else ""
            console.item({"prefix": entry}, f"{blank}{shown(entry)}")
        elif detailed:
            size, made = size_text(entry["size"]), entry["created"][:19]
            facts = f"{size:>10}  {made}Z  v{entry['version']:<8}"
            console.item(entry, f"{facts} {shown(entry['name'])}")
        else:
            console.item(entry, shown(entry["name"]))
