"""The access log: one JSON object a line, written in batches, rotated."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import Logger
from twisted.python.logfile import LogFile

FLUSH = 65536
"""Bytes after which lines are written at once."""
ROTATE, KEEP = 64 << 20, 5
"""Bytes of one file, and how many older ones stay."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))


class AccessLog:
    """Collects lines and writes them when told or when there are many.

    Owned by the service, which calls `flush` every second and `close` at the end. A
    disk that does not take them costs lines, never requests.
    """

    def __init__(self, path: str) -> None:
        self.lost = 0
        self._file = LogFile.fromFullPath(  # type: ignore[no-untyped-call] # Twisted has none
            path, rotateLength=ROTATE, maxRotatedFiles=KEEP, defaultMode=0o600
        )
        self._lines: list[str] = []
        self._held = 0
        self._log = Logger()

    def write(self, entry: dict[str, Any]) -> None:
        """Take one request's entry."""
        line = _ENCODER.encode(entry)
        self._lines.append(line)
        self._held += len(line) + 1
        if self._held >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        lines, self._lines, self._held = self._lines, [], 0
        if not lines:
            return
        try:
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
        except OSError as error:
            if not self.lost:
                self._log.warn("the access log cannot be written: {why}", why=error)
            self.lost += len(lines)

    def close(self) -> None:
        """Write the rest and let go of the file."""
        self.flush()
        self._file.close()
