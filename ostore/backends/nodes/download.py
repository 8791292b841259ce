"""Reading one shard from a data service."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from ostore.backends.nodes.asking import Ask, Exchange, Peer
from ostore.backends.nodes.naming import shard_name
from ostore.backends.nodes.protocol import FACTS, FRAMES, MAX_TABLE, facts_from_json
from ostore.erasure.framing import Frame, FrameParser, Table
from ostore.interfaces import IFrameStream, IShardReader
from ostore.model.errors import (
    NodeUnreachable,
    ShardError,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import ShardFacts, ShardKey
from ostore.streaming.clock import Clock, TimedOut

REST = 20.0
"""Seconds without a reader after which the answer is cut; the next read asks anew."""
DOUBT = 2.0
"""Seconds for finding out why an answer was cut."""


def target_of(key: ShardKey, *, bad: bool) -> str:
    """The target under which a shard is read. Raises Malformed."""
    return f"/objects/{shard_name(key)}?layout={key.layout}{'&bad=1' if bad else ''}"


async def open_remote(
    peer: Peer, key: ShardKey, clock: Clock, *, bad: bool = False
) -> RemoteReader:
    """Facts and table of a shard, which the node has opened and checked.

    Raises ShardMissing, ShardRotten, NodeUnreachable.
    """
    target = target_of(key, bad=bad)
    told = await peer.ask(
        Ask("GET", f"{target}&part=index", repeatable=True, limit=MAX_TABLE)
    )
    try:
        shown = json.loads(told.headers[FACTS.lower()])
        table = Table.from_bytes(told.body)
    except (KeyError, ValueError, RecursionError, ShardRotten):
        raise NodeUnreachable("the node's answer is no stripe table") from None
    facts = facts_from_json(shown)
    if facts.key != key or facts.layout != table.layout():
        raise NodeUnreachable("the node's answer is of another shard")
    return RemoteReader(peer, target, facts, table, clock)


@implementer(IShardReader)
class RemoteReader:
    """A shard at a node, found whole when it was opened; holds nothing there."""

    def __init__(
        self, peer: Peer, target: str, facts: ShardFacts, table: Table, clock: Clock
    ) -> None:
        self.facts = facts
        self.table = table
        self._peer = peer
        self._target = target
        self._clock = clock

    def frames(self, first: int, stop: int) -> RemoteStream:
        """Frames of the stripes first <= i < stop, asked for by the first read."""

        async def begin(number: int) -> Exchange:
            target = f"{self._target}&stripes={number}-{stop - 1}"
            ask = Ask("GET", target, {"Accept": FRAMES}, repeatable=True)
            return await self._peer.answered(ask)

        async def doubt() -> None:
            await open_remote(self._peer, self.facts.key, self._clock)

        stop = min(stop, len(self.table))
        return RemoteStream(begin, doubt, self._belongs, self._clock, first, stop)

    async def close(self) -> None:
        """Nothing is held."""

    def _belongs(self, frame: Frame) -> bool:
        row = self.table.row(frame.number)
        block = self.table.geometry.block(row.stored)
        return frame.row == row and len(frame.block) == block


@implementer(IFrameStream)
class RemoteStream:
    """Frames out of one answer, each checked (`belongs`); about 256 KiB come ahead of the reader.

    A reader that rests for long lets go of the answer, and asks for the remaining
    frames when it goes on.
    """

    def __init__(
        self,
        begin: Callable[[int], Awaitable[Exchange]],
        doubt: Callable[[], Awaitable[None]],
        belongs: Callable[[Frame], bool],
        clock: Clock,
        first: int,
        stop: int,
    ) -> None:
        self._begin = begin
        self._doubt = doubt
        self._belongs = belongs
        self._clock = clock
        self._next = first
        self._stop = stop
        self._exchange: Exchange | None = None
        self._parser = FrameParser(first)
        self._ready: deque[Frame] = deque()
        self._resting: IDelayedCall | None = None

    async def read(self) -> Frame | None:
        """The next frame; None behind the last."""
        self._stop_resting()
        if self._next >= self._stop:
            return None
        if not self._ready:
            await self._fill()
        frame = self._ready.popleft()
        self._next += 1
        if self._exchange is not None:
            self._resting = self._clock.call_later(REST, self._drop)
        return frame

    async def close(self) -> None:
        """Read no further; an answer under way is cut."""
        self._stop = self._next
        self._stop_resting()
        self._drop()

    async def _fill(self) -> None:
        """Have a frame ready."""
        if self._exchange is None:
            self._parser = FrameParser(self._next)
            self._exchange = await self._begin(self._next)
        try:
            while not self._ready:
                piece = await self._exchange.read()
                if not piece:
                    raise NodeUnreachable("the node's answer ended early")
                self._ready.extend(map(self._checked, self._parser.feed(piece)))
        except (NodeUnreachable, ShardRefused) as error:
            self._drop()
            raise await self._reason(error) from None
        if self._next + len(self._ready) >= self._stop:
            self._exchange.close()

    def _checked(self, frame: Frame) -> Frame:
        """The frame, if it is one that was asked for. Raises ShardRefused."""
        if frame.number < self._stop and self._belongs(frame):
            return frame
        raise ShardRefused("the node's frame differs from the stripe table")

    async def _reason(self, error: ShardError) -> ShardError:
        """Why an answer was cut: a node cuts it where the shard is rotten."""
        try:
            await self._clock.within(DOUBT, self._doubt())
        except (ShardMissing, ShardRotten) as worse:
            return worse
        except (ShardError, TimedOut):
            pass
        return NodeUnreachable(str(error))

    def _drop(self) -> None:
        """Let go of the answer, and of what came ahead in it."""
        exchange, self._exchange = self._exchange, None
        self._ready.clear()
        if exchange is not None:
            exchange.close()

    def _stop_resting(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and resting.active():
            resting.cancel()
