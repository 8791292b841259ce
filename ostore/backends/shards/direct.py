"""A growing file whose bytes go past the page cache."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from ostore.backends.shards.files import PAGE, Files
from ostore.erasure.geometry import Buffer


class DirectWriter:
    """Appends to an open file; whole pages go to the disk at once, without a copy there.

    Made by Disk for a file that has become large. Less than a page is held back until
    flush(), which comes before anything else that is done with the file. Where the
    file system knows no such writes they are ordinary ones. Blocks, for one worker
    thread at a time. Raises OSError.
    """

    def __init__(self, files: Files, fd: int, offset: int) -> None:
        """`offset`: the end of what was written."""
        self.end = offset
        self._files = files
        self._fd = fd
        self._at = offset - offset % PAGE
        self._rest = files.pread(fd, offset - self._at, self._at)
        self._on = files.direct(fd, on=True)

    def write(self, parts: Sequence[Buffer]) -> None:
        """Append all parts."""
        pages = [self._rest, *parts]
        self._write(parts, lambda: self._files.pwrite_pages(self._fd, pages, self._at))

    def write_room(self, room: memoryview) -> None:
        """Append what stands in page-aligned memory, behind room for what is held back."""
        before = self.end % PAGE
        room[:before] = self._rest if self._on else bytes(before)
        self._write(
            [room[before:]],
            lambda: self._files.pwrite_room(self._fd, room, self._at),
        )

    def _write(self, parts: Sequence[Buffer], direct: Callable[[], bytes]) -> None:
        end = self.end + sum(len(part) for part in parts)
        try:
            if self._on:
                self._rest = direct()
                self._at = end - len(self._rest)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.flush()  # it takes the flag, and not the writes
        if not self._on:
            self._files.pwrite(self._fd, parts, self.end)
        self.end = end

    def flush(self) -> None:
        """Write what is held back; the file is an ordinary one from now on."""
        if self._on:
            self._files.direct(self._fd, on=False)
            self._on = False
            self._files.pwrite(self._fd, [self._rest], self._at)
            self._rest = b""
