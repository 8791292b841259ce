"""Reading records from segments, through few descriptors."""

from __future__ import annotations

import os
from collections.abc import Callable

from ostore.backends.shards.files import on_disk
from ostore.backends.shards.segments.folder import Folder, Handles
from ostore.backends.shards.segments.form import Row
from ostore.backends.shards.shardfiles import read
from ostore.erasure.geometry import Buffer
from ostore.model.errors import NodeUnreachable, ShardMissing
from ostore.streaming.pools import Workers


class Records:
    """Reads the bytes that rows lead to; owned by a log, used in the reactor's thread.

    What lies in the page cache is read here, the rest by a worker.
    """

    def __init__(
        self, folder: Folder, check: Callable[[], None], workers: Workers
    ) -> None:
        self._folder = folder
        self._files = folder.disk.files
        self._check = check
        self._workers = workers
        self._handles = Handles(folder.disk)

    def clear(self) -> None:
        """Close all segments."""
        self._handles.clear()

    def forget(self) -> None:
        """The folder is another one: what is being opened is of no use either."""
        self._handles.clear()
        self._handles = Handles(self._folder.disk)

    def drop(self, number: int) -> None:
        """Close a segment."""
        self._handles.drop(number)

    async def fetch(self, row: Row, length: int) -> Buffer:
        """The first bytes of a record.

        Raises ShardMissing (and lets go of the segment), ShardRotten, NodeUnreachable.
        """
        handles = self._handles
        fd = handles.take(row.segment)
        try:
            if fd is None:
                fd = await self._open(handles, row.segment)
            try:
                found = self._cached(fd, length, row.offset)
                if found is not None:
                    return found
                return await self._workers.run(self._read, fd, length, row.offset)
            finally:
                handles.give(fd)
        except ShardMissing:
            handles.drop(row.segment)
            raise

    def at_hand(self, row: Row, length: int) -> Buffer | None:
        """The same, if it can be had without waiting. Raises ShardMissing."""
        fd = self._handles.take(row.segment)
        if fd is None:
            return None
        try:
            return self._cached(fd, length, row.offset)
        finally:
            self._handles.give(fd)

    async def _open(self, handles: Handles, number: int) -> int:
        fd = await self._workers.run(self._open_file, number)
        if handles is not self._handles:
            self._files.close(fd)
            raise NodeUnreachable("the storage root was exchanged meanwhile")
        return handles.add(number, fd)

    def _cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        with on_disk():
            if not self._files.fstat(fd).links:
                raise ShardMissing("the shard's segment is gone")
        return self._files.pread_cached(fd, length, offset)

    def _open_file(self, number: int) -> int:
        with on_disk():
            try:
                return self._files.open(self._folder.segment(number), os.O_RDONLY)
            except FileNotFoundError:
                self._check()
                raise ShardMissing("the shard's segment is gone") from None

    def _read(self, fd: int, length: int, offset: int) -> bytes:
        with on_disk():
            return read(self._files, fd, length, offset)
