"""Contents of one stripe whose shards nodes have in memory: read without opening them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from twisted.internet.defer import Deferred

from ostore.erasure.codec import Codecs
from ostore.erasure.decoder import decode
from ostore.erasure.framing import RAW, Frame
from ostore.erasure.geometry import Buffer, Geometry
from ostore.erasure.single import layout_of
from ostore.interfaces import INodes
from ostore.model.census import Standing
from ostore.model.errors import ShardRotten
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock, TimedOut

INLINE = 64 * 1024
"""Raw bytes up to which a compressed stripe is expanded here."""
PATIENCE = 0.05
"""Seconds after which one more shard is asked for, and longer where nodes are slow."""
LONGEST = 1.0
"""Seconds after which the long way is gone."""
SLOW = 1.0
"""Seconds for which a node that was waited for in vain is asked last."""


class _Round:
    """The blocks of one content as they come in; `news` is told of each that is awaited."""

    def __init__(self, needed: int) -> None:
        self.blocks: dict[int, Frame] = {}
        self.waiting: dict[int, Deferred[Frame | None]] = {}
        self.refused = False
        self.news: Deferred[None] | None = None
        self._needed = needed

    @property
    def complete(self) -> bool:
        """Whether enough blocks are there."""
        return len(self.blocks) >= self._needed

    def take(self, index: int, found: Frame | Deferred[Frame | None] | None) -> None:
        """What a node said, or is about to say."""
        if isinstance(found, Deferred):
            self.waiting[index] = found
            _ = found.addBoth(self._came, index)
        elif found is None:
            self.refused = True
        else:
            self.blocks[index] = found

    def give_up(self) -> None:
        """Wait for none of them any longer."""
        waiting, self.waiting = self.waiting, {}
        for each in waiting.values():
            each.cancel()

    def _came(self, found: object, index: int) -> None:
        if self.waiting.pop(index, None) is None:
            return
        self.take(index, found if isinstance(found, Frame) else None)
        if self.news is not None and (self.refused or self.complete):
            news, self.news = self.news, None
            news.callback(None)


class Glancing:
    """Reads such contents, from their data shards if these come; owned by Getting.

    Whatever is not plain is left to the long way, which tells what is wrong and has
    it mended.
    """

    def __init__(self, nodes: INodes, codecs: Codecs, clock: Clock) -> None:
        self._nodes = nodes
        self._codecs = codecs
        self._clock = clock
        self._usual = 0.0
        self._slow: dict[str, float] = {}

    async def stripe(self, hash: str, standing: Standing) -> Sequence[Buffer] | None:
        """The raw bytes, checked, in pieces; None: not so, or not known."""
        blocks = await self._blocks(hash, standing)
        if blocks is None:
            return None
        layout, frame = standing.layout, next(iter(blocks.values()))
        geometry = Geometry(layout.data, layout.parity)
        if frame.coding != RAW and frame.raw > INLINE:
            return None
        try:
            if any(layout_of(layout, each) != layout for each in blocks.values()):
                return None
            return decode(
                frame.row,
                geometry,
                self._codecs.get(geometry),
                {index: each.block for index, each in blocks.items()},
            )
        except (ShardRotten, ValueError):
            return None

    async def _blocks(self, hash: str, standing: Standing) -> dict[int, Frame] | None:
        layout = standing.layout
        turn = _Round(layout.data)
        order = iter(self._order(standing))
        try:
            for index in islice(order, layout.data):
                turn.take(index, self._ask(hash, standing, index))
                if turn.refused:
                    return None
            if not turn.complete:
                await self._wait(hash, standing, turn, order)
            return turn.blocks if turn.complete else None
        finally:
            turn.give_up()

    def _ask(
        self, hash: str, standing: Standing, index: int
    ) -> Frame | Deferred[Frame | None] | None:
        at_hand = self._nodes.at_hand(standing.places[index][0])
        if at_hand is None:
            return None
        return at_hand.glance(ShardKey(hash, index, standing.layout.id))

    async def _wait(
        self, hash: str, standing: Standing, turn: _Round, order: Iterator[int]
    ) -> None:
        """Until enough came or one will not; now and then one more is asked."""
        begun = self._clock.monotonic()
        patience = max(PATIENCE, 3 * self._usual)
        while not (turn.refused or turn.complete):
            turn.news = Deferred()
            try:
                await self._clock.within(patience, turn.news)
            except TimedOut:
                turn.news = None
                now = self._clock.monotonic()
                late = [standing.places[index][0] for index in turn.waiting]
                self._slow.update(dict.fromkeys(late, now + SLOW))
                if now - begun >= LONGEST:
                    return
                for index in islice(order, 1):
                    turn.take(index, self._ask(hash, standing, index))
        took = min(LONGEST, self._clock.monotonic() - begun)
        self._usual += (took - self._usual) / 16

    def _order(self, standing: Standing) -> Sequence[int]:
        """Data shards first, and those of slow nodes last."""
        indices = sorted(standing.places)
        if not self._slow:
            return indices
        now = self._clock.monotonic()
        self._slow = {n: until for n, until in self._slow.items() if until > now}
        return sorted(indices, key=lambda i: standing.places[i][0] in self._slow)
