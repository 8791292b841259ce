"""The `ostore` command: which verbs there are, and how a failure ends.

A verb's module is imported when the verb is used, so that the command starts quickly.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from ostore import __version__
from ostore.cli.console import shown
from ostore.cli.failures import Failure
from ostore.cli.options import COMMON_KEYS, common, examples
from ostore.cli.session import World

VERBS = (
    "put",
    "get",
    "cat",
    "ls",
    "stat",
    "versions",
    "rm",
)
INTERRUPTED = 130


class Verbs(click.Group):
    """The verbs, each in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"ostore.cli.verbs.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
    epilog=examples(
        "ostore put photo.raw trip/",
        "ostore ls trip/",
        "ostore get trip/photo.raw",
        "ostore --endpoint http://store.home:8080 admin status",
    ),
)
@click.version_option(__version__, prog_name="ostore")
@common
@click.pass_context
def ostore(ctx: click.Context, /, **values: Any) -> None:
    """Keep files in an ostore, and look after it.

    The service is found through --endpoint, OSTORE_ENDPOINT or a profile of
    ~/.config/ostore/config.toml; otherwise it is http://127.0.0.1:8080.

    Exit status: 0 done, 1 failed, 2 misused, 3 not found, 4 bytes were wrong.
    """
    given = {key: values[word] for word, key in COMMON_KEYS.items()}
    outer = {key: value for key, value in given.items() if value not in (None, False)}
    ctx.obj = (ctx.obj, outer)


def world() -> World:
    """The real one."""
    return World(dict(os.environ), time.time, time.sleep, random.random)


def run(words: Sequence[str] | None, around: World) -> int:
    """Do what the words say; the exit status. No traceback reaches a person."""
    try:
        result = ostore.main(
            args=None if words is None else list(words),
            prog_name="ostore",
            obj=around,
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return 2
    except Failure as failure:
        click.echo(f"ostore: {shown(str(failure))}", err=True)
        return failure.status
    except BrokenPipeError:
        # Whoever read our output has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        click.echo(f"ostore: {shown(f'{what}{error.strerror or error}')}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def main() -> None:
    """The console script."""
    try:
        status = run(None, world())
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nostore: stopped; the same command goes on with it", err=True)
        # Threads that wait for the network are not waited for.
        os._exit(INTERRUPTED)
    sys.exit(status)


if __name__ == "__main__":
    main()
