"""`ostore manual`: the manual pages."""

from __future__ import annotations

from pathlib import Path

import click

from ostore.cli.failures import Missing
from ostore.cli.manual import SECTION, pages
from ostore.cli.options import examples


@click.command(
    short_help="The manual pages.",
    epilog=examples(
        "ostore manual sync | man -l -",
        "ostore manual --to ~/.local/share/man/man1",
    ),
)
@click.argument("words", metavar="[VERB]...", nargs=-1)
@click.option(
    "--to",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write all pages there.",
)
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...], to: Path | None) -> None:
    """Print the manual page of the command or of VERB, or write all of them."""
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    found = pages(root)
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        for name, text in found.items():
            (to / name).write_text(text, "utf-8")
        return
    name = "-".join(("ostore", *words))
    if f"{name}.{SECTION}" not in found:
        raise Missing(f"there is no page of {' '.join(words)!a}", 404)
    click.echo(found[f"{name}.{SECTION}"], nl=False)
