"""What the verbs' command lines have in common."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ostore.cli.failures import Failure
from ostore.cli.session import Session, World

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"([0-9]{1,15})\s*(B|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_FACTORS = {"b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_DURATION = re.compile(r"([0-9]{1,9})(s|min|h|d|w)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}


class SizeType(click.ParamType[int, str]):
    """A number of bytes: `4096`, `64KiB`, `2GiB`."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no size such as 4096, 64KiB or 2GiB", param, ctx)
        return int(match[1]) * _FACTORS[(match[2] or "B").lower()]


class DurationType(click.ParamType[int, str]):
    """A number of seconds: `90s`, `10min`, `24h`, `7d`."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The seconds."""
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no time such as 90s, 10min, 24h or 7d", param, ctx)
        return int(match[1]) * _SECONDS[match[2]]


SIZE, DURATION = SizeType(), DurationType()
PATH = click.Path()

COMMON = (
    click.option("--endpoint", metavar="URL", help="Where the service is."),
    click.option("--profile", metavar="PROFILE", help="Which profile of the file."),
    click.option("--ca-file", metavar="FILE", type=PATH, help="Who vouches for https."),
    click.option(
        "--token-file",
        metavar="FILE",
        type=PATH,
        help="Sent as a bearer token, for a proxy.",
    ),
    click.option(
        "--cluster-secret-file", metavar="FILE", type=PATH, help="For `admin` alone."
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 100),
        default=None,
        metavar="N",
        help="Attempts after the first, with growing waits.  [default: 5]",
    ),
    click.option("--json", "as_json", is_flag=True, help="One line of JSON an item."),
    click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong."),
)
COMMON_KEYS = {
    "endpoint": "endpoint",
    "profile": "profile",
    "ca_file": "ca-file",
    "token_file": "token-file",
    "cluster_secret_file": "cluster-secret-file",
    "retries": "retries",
    "as_json": "as_json",
    "quiet": "quiet",
}


def common(function: F) -> F:
    """The options that every command has."""
    for option in reversed(COMMON):
        function = option(function)
    return function


def begin(values: dict[str, Any]) -> Session:
    """A session from the common options, taken out of `values`; outer ones count too."""
    ctx = click.get_current_context()
    world, outer = ctx.find_root().obj
    assert isinstance(world, World)
    own = {key: values.pop(word, None) for word, key in COMMON_KEYS.items()}
    merged = {**outer, **{key: value for key, value in own.items() if value}}
    if own["retries"] is not None:
        merged["retries"] = own["retries"]
    merged["patient"] = "retries" in merged
    merged.setdefault("retries", 5)
    return Session(world, merged)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A command's function gets a Session, which ends when it does."""

    @common
    @functools.wraps(function)
    def run(**values: Any) -> None:
        session = begin(values)
        try:
            function(session, **values)
        finally:
            session.close()

    return run


def examples(*lines: str) -> str:
    """An epilog that keeps its lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class Name(click.ParamType[str, str]):
    """An object's name, completed from the service."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names and prefixes that begin so; none when the service cannot say."""
        world = ctx.find_root().obj
        given: dict[str, Any] = {"retries": 0, "quiet": True}
        at: click.Context | None = ctx
        while at is not None:
            for word, key in COMMON_KEYS.items():
                given.setdefault(key, at.params.get(word))
            at = at.parent
        try:
            with contextlib.closing(Session(world, given)) as session:
                found = list(session.remote.names(incomplete, "/", most=100))
        except Failure:
            return []
        return [
            CompletionItem(entry if isinstance(entry, str) else entry["name"])
            for entry in found
        ]


NAME = Name()


def joined(kind: str, values: Sequence[str]) -> str:
    """`2 files`, `1 file`."""
    return f"{len(values)} {kind}{'' if len(values) == 1 else 's'}"


transfer_options = (
    click.option(
        "--threshold",
        type=SIZE,
        default="16MiB",
        show_default=True,
        help="Files above this size are sent resumably.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1, 64),
        metavar="N",
        default=16,
        show_default=True,
        help="Files at once; of large ones four.",
    ),
    click.option(
        "--ranges",
        type=click.IntRange(1, 64),
        metavar="N",
        default=4,
        show_default=True,
        help="Pieces of one file at once.",
    ),
)
THRESHOLD, JOBS, RANGES = transfer_options


def piece_option(default: int, text: str) -> Callable[[F], F]:
    """`--piece`, whose default differs between sending and receiving."""
    return click.option(
        "--piece",
        type=SIZE,
        default=f"{default >> 20}MiB",
        show_default=True,
        help=text,
    )


PIECE_SENT, PIECE_GOT = 256 << 20, 16 << 20
PIECE = piece_option(PIECE_SENT, "Send a large file in pieces of this size.")
PIECE_TO_GET = piece_option(PIECE_GOT, "Get a large object in pieces of this size.")
