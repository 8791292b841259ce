"""The servers that are measured: real child processes on a free port."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

_READY = re.compile(r"\S+ ready on http://(?P<host>127\.0\.0\.1):(?P<port>[0-9]+)")
_TICKS = os.sysconf("SC_CLK_TCK")


class Processes:
    """What serves at a port, and what it takes: the sum over its processes."""

    def __init__(self, port: int, pids: tuple[int, ...]) -> None:
        self.port = port
        self.pids = pids

    @property
    def pid(self) -> int:
        """The one that clients talk to."""
        return self.pids[0]

    def cpu(self) -> float:
        """CPU seconds of all their threads so far."""
        ticks = 0
        for pid in self.pids:
            fields = self._proc(pid, "stat").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def memory(self) -> int:
        """Resident bytes now."""
        return sum(self._status(pid, "VmRSS") for pid in self.pids)

    def peak(self) -> int:
        """The most resident bytes since `forget_peak`, or since the start."""
        return sum(self._status(pid, "VmHWM") for pid in self.pids)

    def forget_peak(self) -> None:
        """Count the peak from now on, where the system allows it."""
        for pid in self.pids:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _status(self, pid: int, key: str) -> int:
        text = self._proc(pid, "status")
        match = re.search(rf"^{key}:\s+([0-9]+) kB", text, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def _proc(self, pid: int, name: str) -> str:
        return Path(f"/proc/{pid}/{name}").read_text()


class Server(Processes):
    """A child that prints `... ready on http://127.0.0.1:PORT`; ends with the block."""

    def __init__(
        self, command: list[str], folder: Path, checkout: Path | None = None
    ) -> None:
        super().__init__(0, ())
        self._command = command
        self._folder = folder
        self._checkout = checkout

    @classmethod
    def standalone(
        cls, folder: Path, options: list[str], checkout: Path | None = None
    ) -> Server:
        """ostore-standalone with its root in that folder; that of another checkout."""
        twistd = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile="]
        command += [f"--logfile={folder / 'twistd.log'}", "ostore-standalone"]
        command += ["--listen=127.0.0.1:0", f"--storage-root={folder / 'root'}"]
        return cls(command + options, folder, checkout)

    def __enter__(self) -> Server:
        self._child = child = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, cwd=self._checkout
        )
        self.pids = (child.pid,)
        assert child.stdout is not None
        for line in child.stdout:
            if match := _READY.match(line):
                self.port = int(match["port"])
                return self
        raise SystemExit(f"the server ended with status {child.wait()}; see above")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(40)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def kill(self) -> None:
        """End it at once; it may have ended before."""
        self._child.kill()
        self._child.wait()
