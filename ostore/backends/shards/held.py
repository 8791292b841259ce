"""The bytes that a temporary holds, for reading."""

from __future__ import annotations

from ostore.backends.shards.plain import HEAD
from ostore.backends.shards.reading import Source
from ostore.erasure.draft import ShardDraft
from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.erasure.geometry import Buffer
from ostore.streaming.pools import Workers

PIECE = 256 * 1024
"""Bytes of a plain temporary read at a time."""


class HeldBytes:
    """What a temporary held when it was opened; its user closes it.

    Of a framed one these are the bytes of the blocks. What is appended meanwhile is
    left out. Made by Temporaries.
    """

    def __init__(
        self, source: Source, workers: Workers, draft: ShardDraft, plain: int
    ) -> None:
        self.length = plain or draft.block_bytes
        """Bytes that read() gives in all."""
        self._source = source
        self._workers = workers
        self._draft = draft
        self._frames = draft.frames
        self._plain = plain
        self._next = 0

    async def read(self) -> Buffer:
        """The next bytes; none at the end. Raises ShardRotten, NodeUnreachable."""
        if self._plain:
            return await self._piece()
        if self._next == self._frames:
            return b""
        offset, length = self._draft.span(self._next)
        data = await self._source.fetch(self._workers, length, offset)
        view = memoryview(data)
        header = Frame.parse_header(view[: FRAME_HEADER.size])
        frame = header.frame(view[FRAME_HEADER.size :])
        frame.check()
        self._next += 1
        return frame.block

    def close(self) -> None:
        """Give up the file. Idempotent."""
        self._source.close()

    async def _piece(self) -> Buffer:
        length = min(PIECE, self._plain - self._next)
        if not length:
            return b""
        offset = len(HEAD) + self._next
        self._next += length
        return await self._source.fetch(self._workers, length, offset)
