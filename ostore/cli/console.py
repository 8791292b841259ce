"""What a person sees: lines, JSON, sizes, colours; bars only on a terminal."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size: int) -> str:
    """A size as people read it: `999 B`, `4.0 KiB`."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in UNITS:
        value /= 1024
        if value < 1000 or unit == UNITS[-1]:
            return f"{value:.1f} {unit}"
    return f"{size} B"


def shown(text: str) -> str:
    """The text with all that could steer a terminal escaped."""
    return "".join(
        c
        if c.isprintable()
        else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text.encode("utf-8", "backslashreplace").decode()
    )


class Console:
    """The streams of one command; results go to stdout, all talk to stderr.

    Threads may share it.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        quiet: bool,
        environ: Mapping[str, str],
        out: IO[str] | None = None,
        err: IO[str] | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._lock = threading.Lock()
        self._bars: Bars | None = None

    @property
    def terminal(self) -> bool:
        """Whether a person watches, and wants to see more than the results."""
        return self._err.isatty() and not self.quiet and not self.as_json

    def item(self, facts: Mapping[str, Any], text: str) -> None:
        """One result: a line of JSON, or the text."""
        if self.as_json:
            self.raw(json.dumps(facts, ensure_ascii=False, separators=(",", ":")))
        else:
            self.raw(text)

    def raw(self, text: str, end: str = "\n") -> None:
        """One line to stdout as it is."""
        with self._lock:
            if self._bars is not None and self._bars.showing and self._out.isatty():
                self._bars.print(text)
                return
            line = f"{text}{end}".encode("utf-8", "surrogateescape")
            click.echo(line, self._out, nl=False)

    def done(self, facts: Mapping[str, Any], text: str) -> None:
        """A result that only confirms what was asked for: not told when quiet."""
        if self.as_json or not self.quiet:
            self.item(facts, text)

    def say(self, text: str) -> None:
        """A remark, not told when quiet."""
        if not self.quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """What went wrong."""
        with self._lock:
            line = f"ostore: {shown(text)}"
            if self._bars is not None:
                self._bars.print(line)
            else:
                click.echo(line, self._err)

    def table(self, rows: list[tuple[str, ...]]) -> None:
        """Rows in columns, the first of them the heads."""
        if not rows:
            return
        rows = [tuple(shown(cell) for cell in row) for row in rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            line = "  ".join(cells).rstrip()
            self.raw(self.bold(line) if number == 0 else line)

    def bold(self, text: str) -> str:
        """Heads, on a terminal that has colours."""
        return self._style(text, bold=True)

    def red(self, text: str) -> str:
        """What is wrong."""
        return self._style(text, fg="red")

    def green(self, text: str) -> str:
        """What is well."""
        return self._style(text, fg="green")

    def _style(self, text: str, **how: Any) -> str:
        if not self._colour or not self._out.isatty():
            return text
        return click.style(text, **how)

    def bars(self) -> Bars:
        """Progress, shown while it is entered; it shows nothing when none watches."""
        if self.terminal:
            self._bars = Bars(self._err, colour=self._colour)
            return self._bars
        return Bars(None, colour=False)


class Bars:
    """One bar a transfer, with rate and time left; silent without a stream."""

    def __init__(self, stream: IO[str] | None, *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._progress: Progress | None = None

    def __enter__(self) -> Bars:
        """Begin to show."""
        if self._stream is not None:
            # 40 ms that only a terminal pays for.
            from rich.console import Console as Screen  # noqa: PLC0415
            from rich.progress import (  # noqa: PLC0415
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Screen(
                    file=self._stream,
                    no_color=not self._colour,
                    emoji=False,
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                ),
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bars away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @property
    def showing(self) -> bool:
        """Whether bars stand on the terminal, so that lines must go above them."""
        return self._progress is not None

    def bar(self, text: str, total: int | None) -> Bar:
        """A new bar; whoever asked for it ends it."""
        if self._progress is None:
            return Bar(None, None)
        name = shown(text)
        if len(name) > 40:
            name = f"…{name[-39:]}"
        return Bar(self._progress, self._progress.add_task(name, total=total))

    def print(self, line: str) -> None:
        """A line above the bars."""
        if self._progress is not None:
            self._progress.console.print(line)
        else:
            click.echo(line, self._stream)


class Bar:
    """The progress of one transfer; threads may share it."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int) -> None:
        """So many bytes more."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)

    def at(self, position: int) -> None:
        """So many bytes in all."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=position)

    def end(self) -> None:
        """The transfer is over."""
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
            self._progress = None
