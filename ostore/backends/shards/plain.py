"""Temporaries of plain bytes, and how they become shards at the commit."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from twisted.internet.defer import Deferred

from ostore.backends.shards.shardfiles import read
from ostore.backends.shards.shelf import Shelf
from ostore.erasure.framing import RAW, UNKNOWN, Frame, crc32c
from ostore.erasure.geometry import STRIPE, Buffer, Geometry
from ostore.interfaces import IShardSink
from ostore.model.errors import NodeUnreachable, ShardError, ShardRefused
from ostore.model.layouts import Layout
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import shielded, start

HEAD = b"\x89ostore plain  \n"
"""What the file of a plain temporary begins with; the rest is what was sent."""


class PlainFile:
    """The open file of a plain temporary while one request appends to it.

    Made by Temporaries, ends with release(). The descriptor is closed only when no
    worker thread uses it.
    """

    def __init__(self, fd: int, shelf: Shelf, workers: Workers, length: int) -> None:
        self.length = length
        """Bytes of the sender that are written."""
        self._fd = fd
        self._shelf = shelf
        self._workers = workers
        self._busy: Deferred[None] | None = None

    async def write(self, data: Buffer) -> None:
        """Append; returns when it is written. Raises NodeFull, NodeUnreachable."""
        parts: list[Buffer] = [data]
        offset = len(HEAD) + self.length
        if not self.length:
            parts.insert(0, HEAD)
            offset = 0
        self._busy = start(
            self._workers.run(self._shelf.write, self._fd, parts, offset, 0)
        )
        await shielded(self._busy)
        self.length += len(data)

    async def release(self) -> None:
        """Close the file and keep it, once nothing is under way in it."""
        await shielded(self._release())

    async def _release(self) -> None:
        if self._busy is not None:
            with suppress(ShardError):
                await shielded(self._busy)
        await self._workers.run(self._shelf.close, self._fd)


def check_length(layout: Layout, length: int) -> Geometry:
    """The geometry, when each shard of such a content has `length` plain bytes.

    Raises ShardRefused.
    """
    cut = Geometry(layout.data, layout.parity)
    stripes, rest = divmod(layout.size, STRIPE)
    expected = stripes * cut.block(STRIPE) + cut.block(rest)
    if length != expected:
        raise ShardRefused(
            f"a shard of {layout.size} bytes, k={cut.data}, has {expected} bytes, "
            f"not {length}"
        )
    return cut


class PlainCut:
    """Cuts the bytes of a plain temporary into the frames of a shard.

    Made for one commit. Holds one block; worker threads read, hash and check it.
    """

    def __init__(self, fd: int, shelf: Shelf, workers: Workers, cut: Geometry) -> None:
        self._fd = fd
        self._shelf = shelf
        self._workers = workers
        self._cut = cut
        self._hasher = hashlib.sha256()

    async def run(self, size: int, sink: IShardSink) -> bytes:
        """Write the frames of a content of `size` raw bytes; SHA-256 of the bytes."""
        offset = len(HEAD)
        for number in range(self._cut.stripes(size)):
            raw = min(STRIPE, size - number * STRIPE)
            frame = await self._workers.run(self._frame, number, raw, offset)
            offset += len(frame.block)
            await sink.write(frame)
        return self._hasher.digest()

    def _frame(self, number: int, raw: int, offset: int) -> Frame:
        try:
            block = read(self._shelf.disk.files, self._fd, self._cut.block(raw), offset)
        except OSError as error:
            raise NodeUnreachable("the node's disk failed") from error
        self._hasher.update(block)
        return Frame(number, raw, raw, RAW, UNKNOWN, crc32c(block), block)
