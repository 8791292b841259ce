"""Names and syncs under one storage root, at the durability that was asked for."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Sequence
from contextlib import suppress

from ostore.backends.shards.direct import DirectWriter
from ostore.backends.shards.files import Files
from ostore.backends.shards.paths import Paths
from ostore.erasure.geometry import Buffer

DIRECT_FROM = 1 << 20
"""A file of fewer bytes stays in the page cache: it may be read soon."""


class Disk:
    """The file seam, the paths, and which folders are known to be durable.

    Shared by everything that writes below one root; blocks, for worker threads. With
    `durable` off nothing is synced. Raises OSError.
    """

    def __init__(self, files: Files, paths: Paths, *, durable: bool = True) -> None:
        self.files = files
        self.paths = paths
        self._durable = durable
        self._ready: set[str] = set()
        self._direct: dict[int, DirectWriter] = {}

    @staticmethod
    def is_large(length: int) -> bool:
        """Whether a file of so many bytes grows past the page cache."""
        return length >= DIRECT_FROM

    def append(self, fd: int, parts: Sequence[Buffer], offset: int) -> None:
        """Write at the end of a file that grows; from DIRECT_FROM on past the page cache.

        Up to a page is held back until flush(), sync() or close(): nothing else may be
        done with the file before.
        """
        if fd in self._direct or self.is_large(offset):
            self._writer(fd, offset).write(parts)
        else:
            self.files.pwrite(fd, parts, offset)

    def append_room(self, fd: int, room: memoryview, offset: int) -> None:
        """As append(), past the page cache at once; what begins with the page of `offset`."""
        self._writer(fd, offset).write_room(room)

    def _writer(self, fd: int, offset: int) -> DirectWriter:
        writer = self._direct.get(fd)
        if writer is None:
            writer = self._direct[fd] = DirectWriter(self.files, fd, offset)
        if offset != writer.end:
            raise OSError(errno.EINVAL, "this is not the end of the file")
        return writer

    def flush(self, fd: int) -> None:
        """Write what append() holds back."""
        writer = self._direct.pop(fd, None)
        if writer is not None:
            writer.flush()

    def close(self, fd: int) -> None:
        """Give up a descriptor."""
        try:
            self.flush(fd)
        finally:
            self.files.close(fd)

    def sync(self, fd: int) -> None:
        """Make an open file durable."""
        self.flush(fd)
        if self._durable:
            self.files.fsync(fd)

    def sync_data(self, fd: int) -> None:
        """Make an open file's bytes durable, its times perhaps not."""
        if self._durable:
            self.files.fdatasync(fd)

    def sync_folder(self, path: str) -> None:
        """Make a folder's names durable."""
        if self._durable:
            self.files.fsync_folder(path)

    def need(self, folder: str) -> None:
        """See to it that a folder below the root is there, durably.

        The root itself is never made here: a write must not bring it back.
        """
        if folder in self._ready or folder == self.paths.root:
            return
        parent = posixpath.dirname(folder)
        self.need(parent)
        try:
            self._make(folder)
        except FileNotFoundError:
            self.forget(parent)
            self.need(parent)
            self._make(folder)
        self.sync_folder(parent)
        self._ready.add(folder)

    def forget(self, folder: str | None = None) -> None:
        """A folder (and those above it) may be gone; without one: all of them."""
        if folder is None:
            self._ready.clear()
            return
        while folder not in (self.paths.root, posixpath.dirname(folder)):
            self._ready.discard(folder)
            folder = posixpath.dirname(folder)

    def create(self, path: str) -> int:
        """A new file open for reading and writing. Raises FileExistsError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        folder = posixpath.dirname(path)
        self.need(folder)
        try:
            return self.files.open(path, flags)
        except FileNotFoundError:
            self.forget(folder)
            self.need(folder)
            return self.files.open(path, flags)

    def name(self, source: str, target: str) -> None:
        """Give a synced file a second name, create-only and durable.

        Raises FileExistsError. A name that could not be made durable is taken back.
        """
        folder = posixpath.dirname(target)
        self.need(folder)
        try:
            self.files.link(source, target)
        except FileNotFoundError:
            self.forget(folder)
            self.need(folder)
            self.files.link(source, target)
        try:
            self.sync_folder(folder)
        except OSError:
            with suppress(OSError):
                self.files.remove(target)
            raise

    def _make(self, folder: str) -> None:
        with suppress(FileExistsError):
            self.files.mkdir(folder)

    def unname(self, path: str) -> None:
        """Take a name away, durably."""
        self.files.remove(path)
        self.sync_folder(posixpath.dirname(path))

    def drop(self, path: str) -> None:
        """Take a name away if it is there; it may come back after a power cut."""
        with suppress(FileNotFoundError):
            self.files.remove(path)
