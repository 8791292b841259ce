"""Frames into and out of the temporary of a resumable upload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from zope.interface import implementer

from ostore.backends.shards.reading import Source
from ostore.erasure.draft import ShardDraft
from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.interfaces import IFrameStream, IUploadSink
from ostore.model.errors import ShardRotten
from ostore.streaming.pools import Workers


@implementer(IUploadSink)
class UploadSink:
    """Frames of one upload on one node, from open() to close(); used by one part."""

    def __init__(
        self,
        write: Callable[[Frame], Awaitable[None]],
        sync: Callable[[], Awaitable[int]],
    ) -> None:
        self._write = write
        self._sync = sync

    async def write(self, frame: Frame) -> None:
        """Append one frame; one may be under way."""
        await self._write(frame)

    async def sync(self) -> int:
        """Make all durable; the number of frames held."""
        return await self._sync()

    async def close(self) -> None:
        """Nothing to give up: the node closes what is quiet, and at a release."""


@implementer(IFrameStream)
class HeldFrames:
    """Frames of a temporary, checked as they are read; its user closes it."""

    def __init__(
        self,
        source: Source,
        workers: Workers,
        draft: ShardDraft,
        first: int,
        stop: int,
    ) -> None:
        self._source = source
        self._workers = workers
        self._spans: Sequence[tuple[int, int]] = [
            draft.span(number) for number in range(first, stop)
        ]
        self._first = first
        self._next = 0

    async def read(self) -> Frame | None:
        """The next frame, its block checked; None behind the last."""
        if self._next == len(self._spans):
            return None
        offset, length = self._spans[self._next]
        data = await self._source.fetch(self._workers, length, offset)
        view = memoryview(data)
        header = Frame.parse_header(view[: FRAME_HEADER.size])
        frame = header.frame(view[FRAME_HEADER.size :])
        if header.number != self._first + self._next:
            raise ShardRotten("the temporary holds another frame there")
        frame.check()
        self._next += 1
        return frame

    async def close(self) -> None:
        """Give up the file. Idempotent."""
        self._source.close()
