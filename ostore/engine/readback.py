"""Reading the temporaries of an upload: to hash them, and to rebuild some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from ostore.engine.intake import STALL, Writing
from ostore.erasure.decoder import rebuild
from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Buffer, Geometry
from ostore.erasure.table import ROW, Row
from ostore.interfaces import IFrameStream
from ostore.model.errors import ShardError, ShardRotten
from ostore.model.resuming import Paused
from ostore.streaming.clock import TimedOut
from ostore.streaming.tasks import gather


@attrs.define(eq=False)
class _Source:
    """One node's frames: the stream, and the frame that it gave last."""

    node: str
    stream: IFrameStream | None = None
    last: Frame | None = None


class ReadBack:
    """Stripes of an upload from any k of its nodes, ascending; its user closes it.

    `places` are nodes, by shard index, that hold all stripes of `rows`. One that fails
    is not asked again.
    """

    def __init__(
        self,
        writing: Writing,
        upload: str,
        geometry: Geometry,
        rows: bytes,
        places: Mapping[int, str],
    ) -> None:
        self._house = writing
        self._upload = upload
        self._geometry = geometry
        self._rows = rows
        self._sources = {index: _Source(node) for index, node in places.items()}

    async def stripe(self, number: int) -> Sequence[Buffer]:
        """The raw bytes of one stripe, in pieces. Raises Paused."""
        blocks = await self._blocks(number)
        try:
            return await self._house.expanded(self._row(number), self._geometry, blocks)
        except ShardRotten:
            raise Paused("the upload's stripes contradict their checksums") from None

    async def rebuilt(self, number: int, index: int) -> Frame:
        """The frame of another shard. Raises Paused."""
        codec = self._house.codecs.get(self._geometry)
        blocks, row = await self._blocks(number), self._row(number)
        try:
            (frame,) = rebuild(number, row, self._geometry, codec, blocks, [index])
        except ShardRotten:
            raise Paused("the upload's stripes contradict their checksums") from None
        return frame

    async def close(self) -> None:
        """Give up what is open. Idempotent."""
        for source in self._sources.values():
            await self._forget(source)

    def _row(self, number: int) -> Row:
        return Row(*ROW.unpack_from(self._rows, number * ROW.size))

    async def _blocks(self, number: int) -> dict[int, Buffer]:
        while True:
            chosen = sorted(self._sources)[: self._geometry.data]
            if len(chosen) < self._geometry.data:
                raise Paused("too few nodes of the upload can be read")
            found: dict[int, Buffer] = {}
            for index, outcome in zip(
                chosen,
                await gather(
                    self._house.clock.within(STALL, self._frame(index, number))
                    for index in chosen
                ),
                strict=True,
            ):
                if isinstance(outcome, Frame):
                    found[index] = outcome.block
                elif isinstance(outcome, ShardError | TimedOut):
                    await self._forget(self._sources.pop(index))
                else:
                    raise outcome
            if len(found) == self._geometry.data:
                return found

    async def _frame(self, index: int, number: int) -> Frame:
        source = self._sources[index]
        if source.last is not None and source.last.number == number:
            return source.last
        if source.last is None or source.last.number != number - 1:
            await self._forget(source)
        if source.stream is None:
            source.stream = await self._house.nodes.uploads(source.node).frames(
                self._upload, number, len(self._rows) // ROW.size
            )
        source.last = await source.stream.read()
        if source.last is None or source.last.row != self._row(number):
            raise ShardRotten("a temporary holds another stripe")
        return source.last

    async def _forget(self, source: _Source) -> None:
        stream, source.stream, source.last = source.stream, None, None
        if stream is not None:
            await stream.close()
