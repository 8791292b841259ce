"""`ostore completion`: what makes a shell complete words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ostore.cli.options import examples

VARIABLE = "_OSTORE_COMPLETE"


@click.command(
    short_help="Make a shell complete words.",
    epilog=examples(
        'eval "$(ostore completion bash)"                  # in ~/.bashrc',
        'eval "$(ostore completion zsh)"                   # in ~/.zshrc',
        "ostore completion fish > ~/.config/fish/completions/ostore.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete verbs, options, files and names.

    Names of objects are asked of the service.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    # Bash's own way to print it runs bash to look at its version.
    words = kind(root, {}, "ostore", VARIABLE)
    click.echo(words.source_template % words.source_vars())
