"""A local file that is sent: what it was when it was opened, and whether it still is."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ostore.cli.answer import CHUNK
from ostore.cli.failures import Failure


class Changed(Failure):
    """The file was written to while it was read."""


class Source:
    """An open file; threads may share it. Whoever opened it closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Failure(f"{str(path)!a} cannot be read: {error.strerror}") from error
        found = os.fstat(self._handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._handle)
            raise Failure(f"{str(path)!a} is not a file")
        self.size = found.st_size
        self.modified = int(found.st_mtime)
        self.mode = stat.S_IMODE(found.st_mode) & 0o777
        self.stamp = _stamp(found)

    def __enter__(self) -> Source:
        """The file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self._handle)

    def check(self) -> None:
        """Raise Changed when it is no longer the file that was opened."""
        if _stamp(os.fstat(self._handle)) != self.stamp:
            raise Changed(
                f"{str(self.path)!a} changed while it was read: nothing was stored; "
                "try again when nobody writes to it"
            )

    def chunks(self, first: int, end: int, buffer: bytearray) -> Iterator[memoryview]:
        """Its bytes from `first` up to `end`, each valid until the next is asked for."""
        view = memoryview(buffer)
        while first < end:
            want = min(len(buffer), end - first)
            try:
                count = os.preadv(self._handle, [view[:want]], first)
            except OSError as error:
                raise Failure(
                    f"{str(self.path)!a} cannot be read: {error.strerror}"
                ) from error
            if count == 0:
                self.check()
                raise Changed(f"{str(self.path)!a} became shorter while it was read")
            yield view[:count]
            first += count

    def hash(self, stop: Callable[[], bool] = lambda: False) -> str | None:
        """Its SHA-256 in hex; None when told to stop."""
        hasher = hashlib.sha256()
        for chunk in self.chunks(0, self.size, bytearray(min(CHUNK, self.size) or 1)):
            hasher.update(chunk)
            if stop():
                return None
        return hasher.hexdigest()


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]
