"""`ostore put`: files to objects."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from ostore.cli.console import Bars, shown, size_text
from ostore.cli.failures import Failure, Misused
from ostore.cli.options import JOBS, PATH, PIECE, THRESHOLD, examples, verb
from ostore.cli.parallel import each
from ostore.cli.sending import Sender
from ostore.cli.sent import Limits
from ostore.cli.session import Session


@click.command(
    short_help="Files to objects.",
    epilog=examples(
        "ostore put photo.raw",
        "ostore put photo.raw trip/first.raw",
        "ostore put *.raw trip/",
        "tar c folder | ostore put - backup/folder.tar",
        "ostore put --compress zstd --content-type text/plain log.txt logs/",
    ),
)
@click.argument("words", metavar="FILE... [NAME]", type=PATH, nargs=-1, required=True)
@click.option("--to", metavar="NAME", help="The name; all others are files.")
@click.option("--content-type", metavar="TYPE", help="Kept with the version.")
@click.option(
    "--meta",
    multiple=True,
    metavar="KEY=VALUE",
    help="Kept as X-Ostore-Meta-KEY; may be repeated.",
)
@click.option(
    "--compress",
    type=click.Choice(["zstd", "none"]),
    default="none",
    help="Compress before sending; `get` undoes it.",
)
@click.option(
    "--if-absent", is_flag=True, help="Fail when there is an object of that name."
)
@click.option("--instant/--no-instant", default=True, help="Spare what is known there.")
@THRESHOLD
@PIECE
@JOBS
@verb
def command(
    session: Session,
    words: tuple[str, ...],
    to: str | None,
    content_type: str | None,
    meta: tuple[str, ...],
    compress: str,
    *,
    if_absent: bool,
    instant: bool,
    threshold: int,
    piece: int,
    jobs: int,
) -> None:
    """Put FILE under its own name, or under NAME; - is standard input.

    The last word is the NAME when it ends in a slash, or when there is no such file;
    --to leaves no doubt. A NAME that ends in a slash is a prefix for the files' own
    names. What was interrupted goes on when the same command is given again.
    """
    headers = kept_headers(content_type, meta)
    if if_absent:
        headers["If-None-Match"] = "*"
    pairs = places(words, to)
    sender = Sender(session, Limits(threshold, piece, instant), compress)

    def send(pair: Place) -> None:
        if pair.file == "-":
            sent = sender.stream(sys.stdin.buffer, pair.name, headers, bars)
        else:
            sent = sender.file(Path(pair.file), pair.name, headers, bars)
        version = sent.version
        facts = {"file": pair.file, "way": sent.way, **version}
        text = f"put {shown(pair.file)} -> {shown(pair.name)}@{version['version']}"
        known = ", already there" if sent.way == "instant" else ""
        session.console.done(facts, f"{text} ({size_text(version['size'])}{known})")

    bars: Bars
    with session.console.bars() as bars:
        if len(pairs) == 1:
            send(pairs[0])
        else:
            each(pairs, send, workers=jobs, complain=session.console.complain)


@attrs.frozen
class Place:
    """A file and the name that it gets."""

    file: str
    name: str


def places(words: Sequence[str], to: str | None) -> list[Place]:
    """Which file gets which name. Raises Misused."""
    files = list(words)
    if to is None and len(words) > 1:
        last = words[-1]
        if last.endswith("/") or not Path(last).exists():
            *files, to = words
    if to is not None and not to.endswith("/"):
        if len(files) > 1:
            raise Misused(
                f"{to!a} is no file, and several files need a NAME that ends in a slash"
            )
        return [Place(files[0], to)]
    if "-" in files:
        raise Misused("standard input needs a NAME that does not end in a slash")
    # `put a a` means one file, whichever of the two the second `a` is.
    return [Place(file, (to or "") + _own_name(file)) for file in dict.fromkeys(files)]


def _own_name(file: str) -> str:
    path = Path(file)
    if path.is_dir():
        raise Failure(f"{file!a} is a folder: see `ostore sync` and `ostore pack put`")
    return path.name


def kept_headers(content_type: str | None, meta: Sequence[str]) -> dict[str, str]:
    """The headers that a version keeps. Raises Misused."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    for pair in meta:
        key, equals, value = pair.partition("=")
        token = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
        if not equals or not token:
            raise Misused(f"--meta {pair!a}: allowed is KEY=VALUE")
        headers[f"X-Ostore-Meta-{key}"] = value
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise Misused(f"{name} {value!a}: allowed is printable ASCII")
    return headers
