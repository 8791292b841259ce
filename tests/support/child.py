"""A service of ostore as a real process, which can be killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).parents[2]
READY = re.compile(
    r"^ostore-(?:standalone|api|data) ready on https?://(?:127\.0\.0\.1|localhost):(\d+)"
    r"(?: node ([0-9a-f]{32}))?$",
    re.MULTILINE,
)
TWISTD = "from twisted.scripts.twistd import run; run()"
PATIENCE = 60.0
"""Seconds after which a child that does not do what is expected has failed."""
PAUSE = 0.01
"""Seconds between two looks at a child."""


class Unexpected(AssertionError):
    """The child did something else; the text has all that it said."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of ostore, and with `extra`."""
    ours = {"LISTEN_ADDRESS", "STORAGE_ROOT", "RABBITMQ_SERVER", "ES_SERVER"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("OSTORE_")
    }
    return {**kept, "PYTHONPATH": str(CHECKOUT), **extra}


class Child:
    """One process in a group of its own; its output goes to files in `folder`.

    Whoever makes it adds `close` to the test's cleanups: it kills what still runs.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        environ: Mapping[str, str] | None = None,
        name: str = "child",
        role: str = "ostore-standalone",
    ) -> None:
        self._role = role
        folder.mkdir(parents=True, exist_ok=True)
        self._out = folder / f"{name}.out"
        self._err = folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = self._begin(folder, words, environ or {}, out, err)

    def _begin(
        self,
        folder: Path,
        words: tuple[str, ...],
        environ: Mapping[str, str],
        out: IO[bytes],
        err: IO[bytes],
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                TWISTD,
                "-n",
                "--pidfile=",
                self._role,
                *words,
            ],
            cwd=folder,
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it said so far, the log included."""
        return self._out.read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What it complained of so far."""
        return self._err.read_text("utf-8", "replace")

    @property
    def status(self) -> int | None:
        """The exit status, minus the signal's number for a killed one; None: it runs."""
        return self._process.poll()

    def ready(self) -> int:
        """Wait for the ready line; gives the port."""

        def said() -> bool:
            return READY.search(self.stdout) is not None or self.status is not None

        self._until(said, "the ready line")
        found = READY.search(self.stdout)
        if found is None:
            raise self._unexpected("it ended before it was ready")
        return int(found[1])

    def nodes(self, count: int = 1) -> list[tuple[int, str]]:
        """Wait for the ready lines of so many nodes; gives ports and node ids."""

        def said() -> bool:
            return len(READY.findall(self.stdout)) >= count or self.status is not None

        self._until(said, f"{count} ready lines")
        found = READY.findall(self.stdout)
        if len(found) < count:
            raise self._unexpected("it ended before it was ready")
        return [(int(port), node) for port, node in found]

    def signal(self, number: signal.Signals) -> None:
        """Send any signal to the process alone."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; gives the exit status."""
        self._until(lambda: self.status is not None, "its end")
        assert self.status is not None
        return self.status

    def terminate(self) -> None:
        """SIGTERM, and no wait."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, and wait until it is gone."""
        if self.status is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)

    close = kill

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise self._unexpected(f"waited in vain for {what}")
            time.sleep(PAUSE)

    def _unexpected(self, what: str) -> Unexpected:
        return Unexpected(f"{what}\n{self.stdout}\n{self.stderr}")


def serve(root: Path, *words: str, name: str = "child") -> Child:
    """A standalone over that root on a free port; its output lies beside the root."""
    where = ("--storage-root", str(root), "--listen", "127.0.0.1:0")
    return Child(root.parent, *where, *words, name=name)
