"""The `ostore` command: which verbs there are, and how a failure ends.

A verb's module is imported when the verb is used, so that the command starts quickly.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import click

from ostore import __version__
from ostore.cli.console import shown
from ostore.cli.failures import Failure
from ostore.cli.options import COMMON_KEYS, common, examples
from ostore.cli.session import World
from ostore.cli.settings import TRACEBACK

VERBS = (
    "put",
    "get",
    "cat",
    "ls",
    "stat",
    "versions",
    "rm",
    "restore",
    "cp",
    "sync",
    "pack",
    "find",
    "du",
    "admin",
    "completion",
    "manual",
)


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

    Exit status: 0 done; 1 failed; 2 the command line or the settings cannot be used; 3
    there is no such object, version or job; 4 bytes are not what their SHA-256 says.
    """
    given = {key: values[word] for word, key in COMMON_KEYS.items()}
    outer = {
        key: value
        for key, value in given.items()
        if value is not None and value is not False
    }
    ctx.obj = (ctx.obj, outer)


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
        return _unread()
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        click.echo(f"ostore: {shown(f'{what}{error.strerror or error}')}", err=True)
        return 1
    except Exception as error:  # told in a line, a defect is no traceback
        if around.environ.get(TRACEBACK):
            raise
        text = f"{type(error).__name__}: {error}"
        click.echo(f"ostore: a defect of this command: {shown(text)}", err=True)
        click.echo(f"ostore: {TRACEBACK}=1 shows where it is", err=True)
        return 1
    return result if isinstance(result, int) else 0


def main() -> None:
    """The console script.

    SIGINT and SIGTERM cut the connections, so that all threads end soon and leave no
    half of a file; a second one ends the process at once.
    """
    stopping = threading.Event()
    world = World(dict(os.environ), time.time, stopping.wait, random.random)

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()
        for each in world.stops:
            each()
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        status = run(None, world)
        sys.stdout.flush()
    except Stopped as stopped:
        click.echo("\nostore: stopped; the same command goes on with it", err=True)
        status = 128 + stopped.number
    except BrokenPipeError:
        status = _unread()
    sys.exit(status)


class Stopped(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _unread() -> int:
    """Whoever read our output has had enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    main()
