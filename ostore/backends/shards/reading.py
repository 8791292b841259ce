"""One shard that is being read."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ostore.backends.shards.files import Files, on_disk
from ostore.backends.shards.shardfiles import (
    SMALL,
    open_shard,
    read,
    read_index,
)
from ostore.erasure.framing import Frame, Table
from ostore.erasure.geometry import Buffer
from ostore.erasure.shardfile import ShardIndex
from ostore.interfaces import IFrameStream, IShardReader
from ostore.model.errors import NodeUnreachable, ShardRotten
from ostore.model.layouts import ShardFacts, ShardKey
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import shielded, start


class Source:
    """The bytes of one open shard file: in memory, or behind a descriptor.

    The descriptor is closed when the reader is, but not under a worker thread that
    still reads from it: its number could belong to another file by then.
    """

    def __init__(self, files: Files, fd: int, whole: Buffer | None) -> None:
        self._files = files
        self._fd = fd
        self._whole = whole
        self._readers = 0
        self._closed = False

    def at_hand(self, length: int, offset: int) -> Buffer | None:
        """The bytes if they lie in memory. Raises NodeUnreachable once closed."""
        if self._closed:
            raise NodeUnreachable("the shard was closed")
        if self._whole is not None:
            return memoryview(self._whole)[offset : offset + length]
        return self._files.pread_cached(self._fd, length, offset)

    async def fetch(self, workers: Workers, length: int, offset: int) -> Buffer:
        """The bytes from the disk. Raises ShardRotten, NodeUnreachable."""
        if self._closed:
            raise NodeUnreachable("the shard was closed")
        self._readers += 1
        try:
            return await workers.run(self._read, length, offset)
        finally:
            self._readers -= 1
            self._release()

    def close(self) -> None:
        """Give up the file as soon as nobody reads from it."""
        if not self._closed:
            self._closed = True
            self._release()

    def _read(self, length: int, offset: int) -> bytes:
        with on_disk():
            return read(self._files, self._fd, length, offset)

    def _release(self) -> None:
        if self._closed and not self._readers and self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._whole = None
            self._files.close(fd)


class Opened:
    """What open_source() found: facts, index and the bytes."""

    def __init__(self, facts: ShardFacts, index: ShardIndex, source: Source) -> None:
        self.facts = facts
        self.index = index
        self.source = source


def open_source(files: Files, path: str, key: ShardKey, now: float) -> Opened:
    """Open a shard for reading; blocks. A small one is read at once.

    Raises ShardMissing, ShardRotten, NodeUnreachable.
    """
    with on_disk():
        found = open_shard(files, path, key)
        try:
            index = read_index(files, found)
            size = found.file.size
            whole = read(files, found.fd, size, 0) if size <= SMALL else None
        except BaseException:
            files.close(found.fd)
            raise
        fd = found.fd
        if whole is not None:
            files.close(fd)
            fd = -1
        return Opened(found.facts(now), index, Source(files, fd, whole))


@implementer(IShardReader)
class Reader:
    """One open shard; made by the store, closed by whoever asked for it."""

    def __init__(
        self, opened: Opened, workers: Workers, on_rotten: Callable[[], None]
    ) -> None:
        self.facts = opened.facts
        self._index = opened.index
        self._source = opened.source
        self._workers = workers
        self._on_rotten = on_rotten

    @property
    def table(self) -> Table:
        """The stripe table."""
        return self._index.table

    def block_offset(self, number: int) -> int:
        """Bytes of the blocks before that one; of all for number = len(table)."""
        return self._index.block_offset(number)

    def frames(self, first: int, stop: int) -> FrameStream:
        """Frames of the stripes first <= i < stop."""
        stop = min(stop, len(self._index))
        return FrameStream(
            self._index, self._source, self._workers, self._on_rotten, first, stop
        )

    async def close(self) -> None:
        """Give up the file."""
        self._source.close()


@implementer(IFrameStream)
class FrameStream:
    """Frames of a reader, in order, each checked against the index and its crc.

    What lies in the page cache is read in the caller; otherwise a worker thread
    reads, and while it has to, one frame ahead.
    """

    def __init__(
        self,
        index: ShardIndex,
        source: Source,
        workers: Workers,
        on_rotten: Callable[[], None],
        first: int,
        stop: int,
    ) -> None:
        self._index = index
        self._source = source
        self._workers = workers
        self._on_rotten = on_rotten
        self._next = first
        self._stop = stop
        self._ahead: Deferred[Buffer] | None = None

    async def read(self) -> Frame | None:
        """The next frame; None behind the last."""
        if self._next >= self._stop:
            return None
        number = self._next
        try:
            data = await self._bytes(number)
            frame = self._index.frame(number, data)
        except ShardRotten:
            self._on_rotten()
            raise
        self._next = number + 1
        return frame

    async def close(self) -> None:
        """Read no further; what a worker reads ahead is dropped."""
        self._stop = self._next
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            _ = ahead.addErrback(lambda _: None)

    async def _bytes(self, number: int) -> Buffer:
        offset, length = self._index.frame_span(number)
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            at_hand = self._source.at_hand(length, offset)
            if at_hand is not None:
                return at_hand
            ahead = self._fetch(number)
        data = await shielded(ahead)
        if number + 1 < self._stop:
            self._ahead = self._fetch(number + 1)
        return data

    def _fetch(self, number: int) -> Deferred[Buffer]:
        offset, length = self._index.frame_span(number)
        return start(self._source.fetch(self._workers, length, offset))
