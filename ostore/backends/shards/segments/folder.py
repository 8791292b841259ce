"""The files of segments by their numbers, and the few that are kept open."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ostore.backends.shards.disk import Disk

_NAME = re.compile(r"([0-9a-f]{8})\.seg(\.new)?")
MOST_OPEN = 64
"""Segments kept open for reading."""


class Folder:
    """Paths and whole-file operations below `segments/`; blocks. Raises OSError."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.path = f"{disk.paths.root}/segments"

    def segment(self, number: int) -> str:
        """The file of a segment."""
        return f"{self.path}/{number:08x}.seg"

    def names(self) -> tuple[list[int], list[str], int]:
        """Segments, leftovers of unfinished ones, and how many strange entries."""
        segments: list[int] = []
        left: list[str] = []
        strange = 0
        try:
            entries = list(self.disk.files.scan(self.path))
        except FileNotFoundError:
            return [], [], 0
        for name, plain in entries:
            match = _NAME.fullmatch(name) if plain else None
            if match is None:
                strange += 1
            elif match[2]:
                left.append(f"{self.path}/{name}")
            else:
                segments.append(int(match[1], 16))
        return sorted(segments), left, strange

    def create(self, number: int) -> int:
        """A new file under a name of its own; keep() gives it the segment's."""
        return self.disk.create(f"{self.segment(number)}.new")

    def keep(self, number: int) -> None:
        """Name a synced new segment, durably."""
        path = self.segment(number)
        self.disk.files.rename(f"{path}.new", path)
        self.disk.sync_folder(self.path)

    def give_up(self, number: int) -> None:
        """Remove a new segment that came to nothing."""
        with suppress(OSError):
            self.disk.drop(f"{self.segment(number)}.new")

    def remove(self, numbers: list[int]) -> None:
        """Remove segments, durably."""
        for number in numbers:
            self.disk.drop(self.segment(number))
        if numbers:
            self.disk.sync_folder(self.path)

    @contextmanager
    def opened(self, number: int, flags: int = os.O_RDONLY) -> Iterator[int]:
        """The file of a segment while the block runs."""
        fd = self.disk.files.open(self.segment(number), flags)
        try:
            yield fd
        finally:
            self.disk.files.close(fd)


class Handles:
    """Descriptors for reading, the least recently used closed first.

    Used in the reactor's thread; `take` and `give` bracket each use. One that was
    dropped or pushed out is closed when its last user gives it back.
    """

    def __init__(self, disk: Disk) -> None:
        self._files = disk.files
        self._open: OrderedDict[int, int] = OrderedDict()
        self._users: dict[int, int] = {}
        self._doomed: set[int] = set()

    def take(self, number: int) -> int | None:
        """The descriptor of a segment; None when it is not open: see add()."""
        fd = self._open.get(number)
        if fd is not None:
            self._open.move_to_end(number)
            self._users[fd] = self._users.get(fd, 0) + 1
        return fd

    def add(self, number: int, fd: int) -> int:
        """Keep a descriptor that was opened; gives the one to use, taken."""
        if number in self._open:
            self._files.close(fd)
        else:
            self._open[number] = fd
            if len(self._open) > MOST_OPEN:
                self.drop(next(iter(self._open)))
        found = self.take(number)
        assert found is not None
        return found

    def give(self, fd: int) -> None:
        """The end of a use."""
        self._users[fd] -= 1
        if not self._users[fd]:
            del self._users[fd]
            if fd in self._doomed:
                self._doomed.discard(fd)
                self._close(fd)

    def drop(self, number: int) -> None:
        """Close a segment."""
        fd = self._open.pop(number, None)
        if fd is None:
            return
        if fd in self._users:
            self._doomed.add(fd)
        else:
            self._close(fd)

    def clear(self) -> None:
        """Close all."""
        for number in list(self._open):
            self.drop(number)

    def _close(self, fd: int) -> None:
        with suppress(OSError):
            self._files.close(fd)
