"""Reading one layout of one content: each stripe from any k good blocks of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations, islice
from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred

from ostore.engine.cluster import Cluster
from ostore.engine.repairs import Repairs
from ostore.erasure.codec import Codecs
from ostore.erasure.decoder import decode, rebuild
from ostore.erasure.framing import RAW, Frame, Row, Table
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
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import start

T = TypeVar("T")

STALL = 10.0
"""Seconds without enough blocks after which a read gives up."""
PATIENCE = 1.0
"""Seconds for each shard that is asked while it is found out which one lies."""
TRIES = 1000
"""Choices of k blocks that are tried for that."""
INLINE = 64 * 1024
"""Compressed stripes of so many raw bytes are expanded at once."""


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
class _Round(Generic[T]):
    """One step of k sources: what came by index, what failed, since when."""

    fetch: Callable[[_Tap], Awaitable[T]]
    begun: float
    came: dict[int, T] = attrs.field(factory=dict)
    failures: list[tuple[Source, ShardError]] = attrs.field(factory=list)
    news: Deferred[None] | None = None
    looked: bool = False

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
        workers: Workers,
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
        self._workers = workers
        self._hash = hash
        self._download = Download(self.layout, standing.places)
        self._taps: dict[Source, _Tap] = {}
        self._table: Table | None = None
        self._stop = 0

    async def table(self) -> Table:
        """The stripe table, once k shards are open. Raises TooFewShards."""
        if self._table is None:
            opened = await self._enough(self._open)
            self._table = next(iter(opened.values())).table
        return self._table

    def until(self, stop: int) -> None:
        """Say that nothing from stripe `stop` on will be wanted."""
        self._stop = stop

    async def blocks(self, stripe: int) -> dict[int, Frame]:
        """At least k frames of that stripe by index. Raises TooFewShards."""
        row = (await self.table()).row(stripe)
        return await self._enough(lambda tap: self._frame(tap, stripe, row))

    async def stripe(self, number: int) -> Sequence[Buffer]:
        """The raw bytes of one stripe, in pieces. Raises TooFewShards."""
        frames = await self.blocks(number)
        row = (await self.table()).row(number)
        blocks = {index: frame.block for index, frame in frames.items()}
        crcs = {index: frame.block_crc for index, frame in frames.items()}
        try:
            return await self._decoded(row, blocks, crcs)
        except ShardRotten:
            good = await self.agreeing(number, blocks)
            return await self._decoded(row, good)

    async def _decoded(
        self,
        row: Row,
        blocks: Mapping[int, Buffer],
        crcs: Mapping[int, int] | None = None,
    ) -> Sequence[Buffer]:
        """Raw bytes from blocks; what was compressed is expanded by a worker thread."""
        if row.coding == RAW or row.raw <= INLINE:
            return decode(row, self.geometry, self.codec, blocks, crcs)
        return await self._workers.run(
            decode, row, self.geometry, self.codec, dict(blocks)
        )

    async def agreeing(
        self, number: int, blocks: Mapping[int, Buffer]
    ) -> Mapping[int, Buffer]:
        """Any k blocks of a stripe whose `blocks` contradict its checksum.

        Every block passes its own, so some shard lies: others are read until k agree
        with the stripe's; then the liars are marked bad and mended. Raises
        TooFewShards.
        """
        row = (await self.table()).row(number)
        everyone = dict(blocks)
        while (good := self._choose(row, everyone)) is None:
            source = self._download.more()
            if source is None:
                raise TooFewShards("no k shards of the content agree with each other")
            try:
                frame = await self._clock.within(
                    PATIENCE, self._frame(self._tap(source), number, row)
                )
            except TimedOut:
                await self._lost(source, NodeUnreachable("no answer"))
            except ShardError as error:
                await self._lost(source, error)
            else:
                everyone[source.index] = frame.block
        await self._expose(number, row, good, everyone)
        return good

    async def close(self) -> None:
        """Let go of every shard. Idempotent."""
        taps, self._taps = list(self._taps.values()), {}
        for tap in taps:
            await tap.close()

    def _tap(self, source: Source) -> _Tap:
        return self._taps.setdefault(source, _Tap(source))

    async def _open(self, tap: _Tap) -> IShardReader:
        if tap.reader is None:
            key = ShardKey(self._hash, tap.source.index, self.layout.id)
            tap.reader = await self._nodes.store(tap.source.node).open(key)
        return tap.reader

    async def _frame(self, tap: _Tap, stripe: int, row: Row) -> Frame:
        if tap.stream is None:
            reader = await self._open(tap)
            tap.stream = reader.frames(stripe, max(self._stop, stripe + 1))
        frame = await tap.stream.read()
        if frame is None or frame.number != stripe or frame.row != row:
            raise ShardRotten("a shard's frame differs from the stripe table")
        return frame

    async def _enough(self, fetch: Callable[[_Tap], Awaitable[T]]) -> dict[int, T]:
        """What k sources or more give. Raises TooFewShards.

        Sources that fail are replaced, those that lag are joined by others; who has
        not answered when k have is dropped.
        """
        turn = _Round(fetch, self._clock.monotonic())
        for source in self._download.start():
            self._ask(turn, source)
        while len(turn.came) < self.layout.data:
            if turn.failures:
                await self._lost(*turn.failures.pop())
                await self._ask_another(turn)
            elif any(tap.running for tap in self._taps.values()):
                await self._wait(turn)
            elif not await self._ask_another(turn):
                raise TooFewShards("too few shards of the content are within reach")
        for source, error in turn.failures:
            await self._lost(source, error)
        for tap in [t for t in self._taps.values() if t.running is not None]:
            self._download.late(tap.source)
            del self._taps[tap.source]
            await tap.close()
        return turn.came

    def _ask(self, turn: _Round[T], source: Source) -> None:
        tap = self._tap(source)

        async def run() -> None:
            try:
                turn.came[source.index] = await turn.fetch(tap)
            except CancelledError:
                return
            except ShardError as error:
                turn.failures.append((source, error))
            else:
                self._download.took(self._clock.monotonic() - turn.begun)
            tap.running = None
            turn.tell()

        running = start(run())
        if not running.called:
            tap.running = running

    async def _ask_another(self, turn: _Round[T]) -> bool:
        """One more source; False when there is none.

        When none is left the nodes are asked once more who has the content: the locate
        before this read ended as soon as k shards were known.
        """
        source = self._download.more()
        if source is None and not turn.looked:
            turn.looked = True
            census = await self._cluster.locate(self._hash, thorough=True)
            standing = census.standing(self.layout.id)
            if standing is not None and self._download.learn(standing.places):
                source = self._download.more()
        if source is None:
            return False
        self._ask(turn, source)
        return True

    async def _wait(self, turn: _Round[T]) -> None:
        """Until something comes or fails; when patience ends, ask one more source."""
        if self._clock.monotonic() - turn.begun > STALL:
            raise TooFewShards("the shards of the content come too slowly")
        turn.news = Deferred()
        try:
            await self._clock.within(self._download.patience, turn.news)
        except TimedOut:
            turn.news = None
            await self._ask_another(turn)

    async def _lost(self, source: Source, error: ShardError) -> None:
        self._download.failed(source)
        self._cluster.places.forget(self._hash)
        tap = self._taps.pop(source, None)
        if tap is not None:
            await tap.close()
        if isinstance(error, ShardMissing | ShardRotten):
            spot = {source.index: source.node}
            self._repairs.found(self._hash, self.layout, spot, rotten=True)
        elif isinstance(error, NodeUnreachable):
            self._cluster.suspect(source.node)

    def _choose(
        self, row: Row, everyone: Mapping[int, Buffer]
    ) -> Mapping[int, Buffer] | None:
        """Any k of the blocks that agree with the stripe's checksum."""
        data, count = self.layout.data, len(everyone)
        liars = chain.from_iterable(
            combinations(sorted(everyone), n) for n in range(1, count - data + 1)
        )
        for left_out in islice(liars, TRIES):
            chosen = [index for index in sorted(everyone) if index not in left_out]
            good = {index: everyone[index] for index in chosen[:data]}
            with suppress(ShardRotten):
                decode(row, self.geometry, self.codec, good)
                return good
        return None

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
            with suppress(ShardError, TimedOut):
                await self._clock.within(
                    PATIENCE, self._nodes.store(source.node).mark_bad(key)
                )
            await self._lost(source, ShardRotten("a shard contradicts the others"))
