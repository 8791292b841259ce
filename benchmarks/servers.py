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


class Server:
    """A child that prints `... ready on http://127.0.0.1:PORT`; ends with the block."""

    def __init__(
        self, command: list[str], folder: Path, checkout: Path | None = None
    ) -> None:
        self._command = command
        self._folder = folder
        self._checkout = checkout
        self.port = self.pid = 0

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

    @classmethod
    def plain(cls, folder: Path) -> Server:
        """twisted.web's own file server over that folder."""
        return cls([sys.executable, "-m", "benchmarks.plainfiles", str(folder)], folder)

    def __enter__(self) -> Server:
        self._child = child = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, cwd=self._checkout
        )
        self.pid = child.pid
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

    def cpu(self) -> float:
        """CPU seconds of all its threads so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most resident bytes since `forget_peak`, or since the start."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Count the peak from now on, where the system allows it."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._child.pid}/clear_refs").write_text("5")

    def _status(self, key: str) -> int:
        match = re.search(rf"^{key}:\s+([0-9]+) kB", self._proc("status"), re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self._child.pid}/{name}").read_text()
