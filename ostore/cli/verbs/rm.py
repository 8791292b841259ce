"""`ostore rm`: delete names, or versions for good."""

from __future__ import annotations

import click

from ostore.cli.console import shown
from ostore.cli.failures import Misused
from ostore.cli.options import JOBS, NAME, examples, verb
from ostore.cli.parallel import each
from ostore.cli.session import Session


@click.command(
    short_help="Delete, by a marker or for good.",
    epilog=examples(
        "ostore rm trip/photo.raw",
        "ostore rm --version 2 trip/photo.raw",
        "ostore rm -r trip/",
    ),
)
@click.argument("names", metavar="NAME...", type=NAME, nargs=-1, required=True)
@click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="Remove that version for good.",
)
@click.option(
    "-r", "--recursive", is_flag=True, help="Delete every name that begins with NAME."
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be deleted.")
@JOBS
@verb
def command(
    session: Session,
    names: tuple[str, ...],
    version: int | None,
    *,
    recursive: bool,
    dry_run: bool,
    jobs: int,
) -> None:
    """Delete NAME: a marker is added, and older versions stay readable by number.

    `ostore restore NAME@N` brings one of them back. With --version, that version is
    removed for good.
    """
    if recursive and version is not None:
        raise Misused("--recursive and --version do not go together")
    if recursive and any(not name for name in names):
        raise Misused("the empty prefix would delete everything: name what you mean")

    def remove(name: str) -> None:
        text = shown(name) if version is None else f"{shown(name)}@{version}"
        if dry_run:
            session.console.item({"name": name, "version": version}, f"would rm {text}")
        elif version is not None:
            session.remote.erase(name, version)
            facts = {"name": name, "version": version, "deleted": True}
            session.console.done(facts, f"removed {text} for good")
        else:
            session.console.done(session.remote.delete(name), f"deleted {text}")

    found = list(names)
    if recursive:
        found = [
            entry["name"]
            for prefix in names
            for entry in session.remote.names(prefix)
            if not isinstance(entry, str)
        ]
    if len(found) == 1:
        remove(found[0])
    else:
        each(found, remove, workers=jobs, complain=session.console.complain)
