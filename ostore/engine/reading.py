"""Reading one layout of one content: each stripe from any k good blocks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ostore.engine.cluster import Cluster
from ostore.engine.repairs import Repairs
from ostore.erasure.codec import Codecs
from ostore.erasure.decoder import decode, rebuild
from ostore.erasure.framing import Frame, Row, Table
from ostore.erasure.geometry import Buffer, Geometry
from ostore.interfaces import IFrameStream, INodes, IShardReader
from ostore.model.census import Standing
from ostore.model.downloading import Download, Source
from ostore.model.errors import (
    NodeUnreachable,
    ShardError,
    ShardMissing,
    ShardRotten,
    TooFewShards,
)
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import start

STALL = 10.0
"""Seconds without enough blocks after which a read gives up."""


@attrs.define(eq=False)
class _Tap:
    """One source of a read: opened when first needed, read in stripe order."""

    source: Source
    reader: IShardReader | None = None
    stream: IFrameStream | None = None
    running: Deferred[None] | None = None

    async def close(self) -> None:
        if self.running is not None:
            self.running.cancel()
        if self.stream is not None:
            await self.stream.close()
        if self.reader is not None:
            await self.reader.close()


@attrs.define(eq=False)
class _Round:
    """One stripe's blocks as they come in."""

    stripe: int
    begun: float
    frames: dict[int, Frame] = attrs.field(factory=dict)
    failures: list[tuple[Source, ShardError]] = attrs.field(factory=list)
    news: Deferred[None] | None = None

    def tell(self) -> None:
        """Something came or failed: wake whoever waits for it."""
        news, self.news = self.news, None
        if news is not None and not news.called:
            news.callback(None)


class StripeReader:
    """Stripes of one content, in ascending order.

    Made by a GET or a repair, which closes it. Sources that fail or lag are replaced
    from the same stripe on. What it meets missing or rotten goes to `repairs` at once,
    whatever becomes of the read.
    """

    def __init__(
        self,
        nodes: INodes,
        clock: Clock,
        codecs: Codecs,
        repairs: Repairs,
        cluster: Cluster,
        hash: str,
        standing: Standing,
    ) -> None:
        self.layout = standing.layout
        self.geometry = Geometry(self.layout.data, self.layout.parity)
        self.codec = codecs.get(self.geometry)
        self._nodes = nodes
        self._clock = clock
        self._repairs = repairs
        self._cluster = cluster
        self._hash = hash
        self._download = Download(self.layout, standing.places)
        self._taps: dict[Source, _Tap] = {}
        self._table: Table | None = None
        self._stop = 0
        self._closed = False

    async def table(self) -> Table:
        """The stripe table, from the first shard that opens. Raises TooFewShards."""
        for source in self._download.start():
            if self._table is None:
                await self._first(source)
        while self._table is None:
            source_or_none = self._download.more()
            if source_or_none is None:
                raise TooFewShards("too few shards of the content are within reach")
            await self._first(source_or_none)
        return self._table

    def until(self, stop: int) -> None:
        """Say that nothing from stripe `stop` on will be wanted."""
        self._stop = stop

    async def blocks(self, stripe: int) -> dict[int, Frame]:
        """At least k frames of that stripe by index. Raises TooFewShards."""
        table = self._table or await self.table()
        turn = _Round(stripe, self._clock.monotonic())
        for source in self._download.start():
            self._ask(turn, source, table)
        while len(turn.frames) < self.layout.data:
            if turn.failures:
                await self._replace(turn, table)
            elif any(tap.running for tap in self._taps.values()):
                await self._wait(turn, table)
            else:
                raise TooFewShards("too few shards of the content are within reach")
        for source, error in turn.failures:
            await self._lost(source, error)
        for tap in [t for t in self._taps.values() if t.running is not None]:
            self._download.late(tap.source)
            del self._taps[tap.source]
            await tap.close()
        return turn.frames

    async def stripe(self, number: int) -> Sequence[Buffer]:
        """The raw bytes of one stripe, in pieces. Raises TooFewShards."""
        frames = await self.blocks(number)
        assert self._table is not None
        row = self._table.row(number)
        blocks = {index: frame.block for index, frame in frames.items()}
        try:
            return decode(row, self.geometry, self.codec, blocks)
        except ShardRotten:
            return await self._settle(number, row, blocks)

    async def close(self) -> None:
        """Let go of every shard. Idempotent."""
        self._closed = True
        taps, self._taps = list(self._taps.values()), {}
        for tap in taps:
            await tap.close()

    def _tap(self, source: Source) -> _Tap:
        return self._taps.setdefault(source, _Tap(source))

    async def _first(self, source: Source) -> None:
        try:
            await self._clock.within(STALL, self._open(self._tap(source)))
        except TimedOut:
            await self._lost(source, NodeUnreachable("no answer"))
        except ShardError as error:
            await self._lost(source, error)

    async def _open(self, tap: _Tap) -> IShardReader:
        if tap.reader is None:
            key = ShardKey(self._hash, tap.source.index, self.layout.id)
            reader = await self._nodes.store(tap.source.node).open(key)
            if self._closed:
                await reader.close()
                raise NodeUnreachable("the read has ended")
            tap.reader = reader
            self._table = self._table or reader.table
        return tap.reader

    async def _frame(self, tap: _Tap, stripe: int, table: Table) -> Frame:
        if tap.stream is None:
            reader = await self._open(tap)
            tap.stream = reader.frames(stripe, max(self._stop, stripe + 1))
        frame = await tap.stream.read()
        if frame is None or frame.number != stripe or frame.row != table.row(stripe):
            raise ShardRotten("a shard's frame differs from the stripe table")
        return frame

    def _ask(self, turn: _Round, source: Source, table: Table) -> None:
        tap = self._tap(source)

        async def run() -> None:
            try:
                frame = await self._frame(tap, turn.stripe, table)
            except CancelledError:
                return
            except ShardError as error:
                turn.failures.append((source, error))
            else:
                turn.frames[source.index] = frame
                self._download.took(self._clock.monotonic() - turn.begun)
            tap.running = None
            turn.tell()

        running = start(run())
        if not running.called:
            tap.running = running

    async def _replace(self, turn: _Round, table: Table) -> None:
        source, error = turn.failures.pop()
        await self._lost(source, error)
        replacement = self._download.more()
        if replacement is not None:
            self._ask(turn, replacement, table)

    async def _wait(self, turn: _Round, table: Table) -> None:
        """Until something comes or fails; when patience ends, ask one more source."""
        if self._clock.monotonic() - turn.begun > STALL:
            raise TooFewShards("the shards of the content come too slowly")
        turn.news = Deferred()
        try:
            await self._clock.within(self._download.patience, turn.news)
        except TimedOut:
            turn.news = None
            more = self._download.more()
            if more is not None:
                self._ask(turn, more, table)

    async def _lost(self, source: Source, error: ShardError) -> None:
        self._download.failed(source)
        tap = self._taps.pop(source, None)
        if tap is not None:
            await tap.close()
        if isinstance(error, ShardMissing | ShardRotten):
            spot = {source.index: source.node}
            self._repairs.found(self._hash, self.layout, spot, rotten=True)
        elif isinstance(error, NodeUnreachable):
            self._cluster.suspect(source.node)

    async def _settle(
        self, number: int, row: Row, blocks: Mapping[int, Buffer]
    ) -> Sequence[Buffer]:
        """Blocks that pass their own checks contradict each other: find who lies."""
        assert self._table is not None
        everyone = dict(blocks)
        while (source := self._download.more()) is not None:
            try:
                frame = await self._clock.within(
                    STALL, self._frame(self._tap(source), number, self._table)
                )
            except TimedOut:
                await self._lost(source, NodeUnreachable("no answer"))
            except ShardError as error:
                await self._lost(source, error)
            else:
                everyone[source.index] = frame.block
        for chosen in combinations(sorted(everyone), self.layout.data):
            good = {index: everyone[index] for index in chosen}
            try:
                pieces = decode(row, self.geometry, self.codec, good)
            except ShardRotten:
                continue
            await self._expose(number, row, good, everyone)
            return pieces
        raise TooFewShards("no k shards of the content agree with each other")

    async def _expose(
        self,
        number: int,
        row: Row,
        good: Mapping[int, Buffer],
        everyone: Mapping[int, Buffer],
    ) -> None:
        """Have the shards that contradict the verified stripe marked and mended."""
        others = [index for index in everyone if index not in good]
        right = rebuild(number, row, self.geometry, self.codec, good, others)
        for index, frame in zip(others, right, strict=True):
            source = self._download.active.get(index)
            if source is None or bytes(frame.block) == bytes(everyone[index]):
                continue
            key = ShardKey(self._hash, index, self.layout.id)
            await self._nodes.store(source.node).mark_bad(key)
            await self._lost(source, ShardRotten("a shard contradicts the others"))
