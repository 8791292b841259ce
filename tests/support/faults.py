"""Real files that fail or hang when they are told to."""

# ruff: noqa: D102 - the seam itself says what its methods are

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from threading import Event

from ostore.backends.shards.files import FileFacts, Files
from ostore.erasure.geometry import Buffer
from ostore.model.nodes import Space
from ostore.streaming.buffers import Buffers

PATIENCE = 20.0
"""Seconds after which a hanging operation goes on, so that no thread stays for ever."""


class FaultyFiles(Files):
    """The files of one node; the test says what fails and what hangs.

    `errors` maps the name of an operation to an errno; `*` stands for all that have
    none of their own. `failed` counts those, `hanging` tells that one is or was held
    up, and `held` how many are. On a `full` disk no file grows.
    """

    def __init__(self, blocks: Buffers | None = None) -> None:
        super().__init__(blocks)
        self.errors: dict[str, int] = {}
        self.failed = 0
        self.held = 0
        self.full = False
        self.hanging = Event()
        self._held: frozenset[str] = frozenset()
        self._go = Event()

    def hang(self, *operations: str) -> None:
        """From now on these wait for release()."""
        self._held = frozenset(operations)

    def release(self) -> None:
        """Let everything go on."""
        self._held = frozenset()
        self._go.set()

    def _do(self, operation: str) -> None:
        if operation in self._held:
            self.hanging.set()
            self.held += 1
            self._go.wait(PATIENCE)
            self.held -= 1
        number = self.errors.get(operation, self.errors.get("*"))
        if number is not None:
            self.failed += 1
            raise OSError(number, os.strerror(number))

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._do("create" if flags & os.O_CREAT else "open")
        return super().open(path, flags, mode)

    def pwrite(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        self._do("pwrite")
        if self.full and offset + sum(map(len, parts)) > os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, parts, offset)

    def pwrite_pages(self, fd: int, parts: Sequence[Buffer], offset: int) -> bytes:
        self._do("pwrite")
        if self.full and offset + sum(map(len, parts)) > os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite_pages(fd, parts, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._do("pread")
        return super().pread(fd, length, offset)

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        if "pread" in self._held or {"pread", "*"} & self.errors.keys():
            return None
        return super().pread_cached(fd, length, offset)

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        self._do("preallocate")
        super().preallocate(fd, offset, length)

    def fsync(self, fd: int) -> None:
        self._do("fsync")
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self._do("fdatasync")
        super().fdatasync(fd)

    def fsync_folder(self, path: str) -> None:
        self._do("fsync_folder")
        super().fsync_folder(path)

    def link(self, source: str, target: str) -> None:
        self._do("link")
        super().link(source, target)

    def mkdir(self, path: str) -> None:
        self._do("mkdir")
        super().mkdir(path)

    def scan(self, path: str) -> Iterator[tuple[str, bool]]:
        self._do("scan")
        return super().scan(path)

    def space(self, path: str) -> Space:
        found = super().space(path)
        return Space(0, found.total) if self.full else found

    def stat(self, path: str) -> FileFacts:
        self._do("stat")
        return super().stat(path)

    def fstat(self, fd: int) -> FileFacts:
        self._do("fstat")
        return super().fstat(fd)
