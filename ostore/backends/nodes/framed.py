"""Data services as nodes, asked in conversations where they know that, else over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.backends.nodes import operations
from ostore.backends.nodes.asking import ANSWER, COMMIT, Peer
from ostore.backends.nodes.client import (
    SMALL_BYTES,
    SMALL_FRAMES,
    HttpNodes,
    RemoteStore,
)
from ostore.backends.nodes.conversation import Cut, Elsewhere
from ostore.backends.nodes.download import RemoteReader, target_of
from ostore.backends.nodes.naming import checked, checked_hash, checked_id, shard_name
from ostore.backends.nodes.operations import Operation
from ostore.backends.nodes.records import ANSWER_ROOM
from ostore.backends.nodes.talking import Talk
from ostore.erasure.framing import Frame, Table
from ostore.erasure.geometry import Buffer
from ostore.interfaces import IFrameStream, IShardReader, IShardsAtHand
from ostore.model.errors import (
    NodeUnreachable,
    OstoreError,
    ShardMissing,
    ShardRefused,
)
from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import Tasks, start

ROOM = 64 << 10
"""Bytes that come with an opened shard, if they are all of it."""


class FramedNodes(HttpNodes):
    """HttpNodes whose stores prefer conversations."""

    def keep(self, nodes: Collection[str]) -> None:
        """Forget all others; conversations with them end."""
        for node, store in self._stores.items():
            if node not in nodes:
                _talk(store).stop()
        super().keep(nodes)

    async def stop(self, seconds: float = 5.0) -> None:
        """Close all connections; removals of temporaries may end before that."""
        for store in self._stores.values():
            _talk(store).stop()
        await super().stop(seconds)

    def near(self, node: str) -> bool:
        """Whether a question to that node is one record now."""
        store = self._stores.get(node)
        try:
            return _talk(store or self.store(node)).ready
        except NodeUnreachable:
            return False

    def at_hand(self, node: str) -> FramedStore | None:
        """Its store, which has one question in its conversation."""
        store = self._stores.get(node)
        return store if isinstance(store, FramedStore) else None

    def figures(self) -> Mapping[str, float]:
        """Gauges and counters for /metrics."""
        talks = [_talk(store) for store in self._stores.values()]
        return {
            "ostore_node_conversations": sum(talk.stands for talk in talks),
            "ostore_node_operations_total": sum(talk.operations for talk in talks),
        }

    def _made(self, peer: Peer) -> FramedStore:
        return FramedStore(peer, self._clock, self._tasks, self._entropy)


def _talk(store: RemoteStore) -> Talk:
    assert isinstance(store, FramedStore)
    return store.talk


@implementer(IShardsAtHand)
class FramedStore(RemoteStore):
    """The shards of one data service; made by FramedNodes.

    Small operations go into the conversation with the node. Whatever does not fit
    there, and whatever may be repeated when the conversation is cut, goes over HTTP.
    """

    def __init__(
        self,
        peer: Peer,
        clock: Clock,
        tasks: Tasks,
        entropy: Callable[[int], bytes],
    ) -> None:
        super().__init__(peer, clock, tasks, entropy)
        self.talk = Talk(peer, clock, tasks, entropy)

    def put_small(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> Awaitable[None]:
        """Write and name a shard in one operation, if it is small enough for that."""
        try:
            checked(key, layout)
            conversation = self.talk.now()
        except OstoreError:
            return fail()
        blocks = sum(len(frame.block) for frame in frames)
        until = deadline
        if deadline is not None:
            until = self.peer.by_its_known_clock(deadline)
        request = partial(self._put_small, key, layout, frames, deadline, age)
        if (
            conversation is None
            or (until is None and deadline is not None)
            or blocks > SMALL_BYTES
            or len(frames) > SMALL_FRAMES
        ):
            return request()
        parts: list[Buffer] = [operations.pack_put(key, layout, until, age)]
        for frame in frames:
            parts += (frame.header(), frame.block)
        size = sum(map(len, parts))
        if not conversation.fits(size + ANSWER_ROOM):
            return request()

        def failed(failure: Failure) -> Deferred[None] | Failure:
            elsewhere = isinstance(failure.value, Elsewhere | Cut)
            return start(request()) if elsewhere else failure

        told = conversation.ask(
            Operation.PUT, parts, size=size, room=ANSWER_ROOM, patience=COMMIT
        )
        return told.addCallbacks(lambda _: None, failed)

    async def find(self, hash: str) -> Holding:
        """All shards of a content held there."""
        checked_hash(hash)
        told = await self._asked(Operation.FIND, operations.pack_hash(hash))
        return await super().find(hash) if told is None else _of(hash, told)

    async def open(  # type: ignore[override]  # all that the seam asks for
        self, key: ShardKey, *, bad: bool = False
    ) -> IShardReader:
        """One shard for reading, with all its frames if they are few."""
        shard_name(key)
        asked = operations.pack_open(key, bad=bad, room=ROOM)
        told = await self._asked(Operation.OPEN, asked, room=ROOM)
        if told is None:
            return await super().open(key, bad=bad)
        found = operations.read_opened(told)
        facts, table = found.facts, found.table
        if facts.key != key or facts.layout != table.layout():
            raise NodeUnreachable("the node's answer is of another shard")
        if found.frames is not None:
            return HeldReader(facts, table, found.frames)
        target = target_of(key, bad=bad)
        return RemoteReader(self.peer, target, facts, table, self._clock)

    def lacks(self, hash: str) -> bool:
        """Nothing is known here."""
        return False

    def glance(self, key: ShardKey) -> Deferred[Frame | None] | None:
        """The block of a shard of one stripe, if the node has it in memory."""
        try:
            shard_name(key)
            conversation = self.talk.now()
        except OstoreError:
            return None
        asked = operations.pack_open(key, bad=False, room=ROOM)
        if conversation is None or not conversation.fits(len(asked) + ROOM):
            return None
        told = conversation.ask(
            Operation.GLANCE,
            (asked,),
            size=len(asked),
            room=ROOM,
            patience=ANSWER,
        )
        return told.addCallbacks(operations.read_glanced, lambda _: None)

    async def renew(self, hash: str, layout: str) -> Holding:
        """A new age for all shards of a layout."""
        asked = operations.pack_renew(checked_hash(hash), checked_id(layout))
        told = await self._asked(Operation.RENEW, asked)
        return await super().renew(hash, layout) if told is None else _of(hash, told)

    async def restore(self, hash: str) -> Holding:
        """Bring back what garbage has of a content."""
        asked = operations.pack_hash(checked_hash(hash))
        told = await self._asked(Operation.RESTORE, asked)
        return await super().restore(hash) if told is None else _of(hash, told)

    async def condemn(
        self, key: ShardKey, age: float = 0.0, epoch: int | None = None
    ) -> str:
        """Mark a shard that may have to go; gives a token."""
        shard_name(key)
        asked = operations.pack_order(key, age, epoch)
        told = await self._asked(Operation.CONDEMN, asked)
        if told is None:
            return await super().condemn(key, age, epoch)
        return operations.read_token(told)

    async def discard(
        self, key: ShardKey, token: str, epoch: int | None = None
    ) -> bool:
        """Move a condemned shard to garbage, unless it was renewed meanwhile."""
        shard_name(key)
        asked = operations.pack_discard(key, checked_id(token), epoch)
        try:
            told = await self._asked(Operation.DISCARD, asked, repeatable=False)
        except (ShardMissing, ShardRefused):
            return False
        if told is None:
            return await super().discard(key, token, epoch)
        return bytes(told) == b"\1"

    async def erase(self, key: ShardKey, age: float, epoch: int | None = None) -> int:
        """Remove for good what garbage has of a shard and is so old: bytes freed."""
        shard_name(key)
        asked = operations.pack_order(key, age, epoch)
        told = await self._asked(Operation.ERASE, asked)
        if told is None:
            return await super().erase(key, age, epoch)
        return operations.read_erased(told)

    async def mark_bad(self, key: ShardKey) -> None:
        """It counts as absent from now on."""
        shard_name(key)
        told = await self._asked(Operation.BAD, operations.pack_key(key))
        if told is None:
            await super().mark_bad(key)

    async def _asked(
        self,
        operation: Operation,
        *parts: Buffer,
        room: int = ANSWER_ROOM,
        patience: float = ANSWER,
        repeatable: bool = True,
    ) -> memoryview | None:
        """The result, or None when it is to be asked over HTTP."""
        conversation = self.talk.now()
        size = sum(map(len, parts))
        if conversation is None or not conversation.fits(size + room):
            return None
        try:
            return await conversation.ask(
                operation, parts, size=size, room=room, patience=patience
            )
        except Elsewhere:
            return None
        except Cut:
            if repeatable:
                return None
            raise


@implementer(IFrameStream)
class HeldFrames:
    """Frames that came with the shard."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = iter(frames)

    async def read(self) -> Frame | None:
        """The next frame; None behind the last."""
        return next(self._frames, None)

    async def close(self) -> None:
        """Read no further."""
        self._frames = iter(())


@implementer(IShardReader)
class HeldReader:
    """A shard whose frames all came when it was opened, checked; holds them."""

    def __init__(
        self, facts: ShardFacts, table: Table, frames: Sequence[Frame]
    ) -> None:
        self.facts = facts
        self.table = table
        self._frames = frames

    def frames(self, first: int, stop: int) -> HeldFrames:
        """Frames of the stripes first <= i < stop."""
        return HeldFrames(self._frames[first:stop])

    async def close(self) -> None:
        """Give up the frames."""
        self._frames = ()


def _of(hash: str, told: memoryview) -> Holding:
    holding = operations.read_holding(told)
    if any(facts.hash != hash for facts in holding.shards):
        raise NodeUnreachable("the node's answer is of another content")
    return holding
