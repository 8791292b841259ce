"""Standard output as a log that never holds the service up."""

from __future__ import annotations

import io
import os
import select
import sys
import threading

ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes at once when it takes any (POSIX, write)."""


class Console(io.TextIOBase):
    """Writes whole lines to a descriptor, and drops them while nobody reads it.

    A service started with its output on a pipe lives on when the other end stops
    reading; `lost` counts what it did not take, and the next line that gets through
    says so. The log's observer writes to it, from any thread.
    """

    encoding = "utf-8"

    def __init__(self, fd: int) -> None:
        self.lost = 0
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._turn = threading.Lock()

    def writable(self) -> bool:
        """It is there to be written."""
        return True

    def write(self, text: str) -> int:
        """Take `text`, or drop it."""
        data = text.encode("utf-8", "backslashreplace")
        with self._turn:
            if self.lost:
                data = b"%d log entries were lost\n" % self.lost + data
            for start in range(0, len(data), ATOMIC):
                if not self._fits(data[start : start + ATOMIC]):
                    self.lost += 1
                    return len(text)
            self.lost = 0
        return len(text)

    def _fits(self, piece: bytes) -> bool:
        # A full pipe has no POLLOUT; one with it takes ATOMIC bytes without waiting.
        try:
            ready = self._poll.poll(0)
            while ready and ready[0][1] & select.POLLOUT and piece:
                piece = piece[os.write(self._fd, piece) :]
        except OSError:
            return False  # the other end is gone
        return not piece


def never_wait_for_readers() -> None:
    """Put a Console in the place of standard output, before the log takes it."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        sys.stdout.flush()
        sys.stdout = Console(sys.stdout.fileno())
