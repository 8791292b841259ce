"""A growing file whose bytes go past the page cache."""

from __future__ import annotations

import errno
from collections.abc import Sequence

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
        end = self.end + sum(len(part) for part in parts)
        try:
            if self._on:
                pages = [self._rest, *parts]
                self._rest = self._files.pwrite_pages(self._fd, pages, self._at)
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
