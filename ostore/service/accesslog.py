"""The access log: one JSON object a line, written in batches, rotated."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import Logger
from twisted.python.logfile import LogFile

WAITING = 256
"""Entries after which all of them become lines at once; each is of a few KiB at most."""
ROTATE, KEEP = 64 << 20, 5
"""Bytes of one file, and how many older ones stay."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))


class AccessLog:
    """Collects entries and writes their lines when told or when there are many.

    Owned by the service, which calls `flush` every second and `close` at the end: no
    request makes its own line. A disk that does not take them costs lines, never
    requests.
    """

    def __init__(self, path: str) -> None:
        self.lost = 0
        self._file = LogFile.fromFullPath(  # type: ignore[no-untyped-call] # Twisted has none
            path, rotateLength=ROTATE, maxRotatedFiles=KEEP, defaultMode=0o600
        )
        self._entries: list[dict[str, Any]] = []
        self._log = Logger()

    def write(self, entry: dict[str, Any]) -> None:
        """Take one request's entry."""
        self._entries.append(entry)
        if len(self._entries) >= WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what was taken."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        try:
            self._file.write("\n".join(map(_ENCODER.encode, entries)) + "\n")
            self._file.flush()
        except OSError as error:
            if not self.lost:
                self._log.warn("the access log cannot be written: {why}", why=error)
            self.lost += len(entries)

    def close(self) -> None:
        """Write the rest and let go of the file."""
        self.flush()
        self._file.close()
