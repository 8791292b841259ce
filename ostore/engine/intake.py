"""From a body to durable shards: cut, coded, spread over nodes, named."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import attrs
from twisted.logger import Logger

from ostore.engine.cluster import Cluster
from ostore.erasure.codec import Codecs
from ostore.erasure.compressing import compress, promising
from ostore.erasure.decoder import decode
from ostore.erasure.encoder import Encoder
from ostore.erasure.framing import RAW, Frame, Row
from ostore.erasure.geometry import Buffer, Geometry
from ostore.interfaces import INodes, IShardSink
from ostore.model.errors import (
    NodeFull,
    NodeUnreachable,
    NoSpace,
    OstoreError,
    TooFewNodes,
)
from ostore.model.layouts import Layout, ShardKey
from ostore.model.placement import place, takers
from ostore.streaming.budget import Budget
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.fanout import Fanout, QuorumLost
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import Tasks, gather

S = TypeVar("S")

COMMIT_TIME = 30.0
"""Seconds by the node's clock after which it refuses a commit."""
STALL = 20.0
"""Seconds within which a quorum of nodes has to take a step."""
HELD = 2047
"""Bytes up to which hashlib keeps the interpreter lock: getting it back from threads
that are busy takes longer than hashing a few of these."""
INLINE = 32 * 1024
"""Stripes up to this size are compressed at once; larger ones by a worker thread."""


class Body(Protocol):
    """What is uploaded, as an async stream."""

    async def read(self) -> Buffer:
        """The next bytes; b"" at the end. Raises ClientGone."""
        ...


@attrs.frozen
class Coding:
    """How new contents are cut and how many shards must be durable."""

    geometry: Geometry
    quorum: int
    laggard: float
    grace: float
    compress: bool = True


@attrs.define(eq=False)
class ShardUpload:
    """One shard on its way to one node; moves on to a spare node when that fails."""

    index: int
    node: str
    spares: list[str]
    open_on: Callable[[str], Awaitable[IShardSink]]
    sink: IShardSink | None = None

    async def open(self) -> None:
        """Make the temporary, on a spare node if need be. Raises ShardError."""
        while True:
            try:
                self.sink = await self.open_on(self.node)
            except (NodeUnreachable, NodeFull):
                if not self.spares:
                    raise
                self.node = self.spares.pop(0)
            else:
                return

    async def write(self, frame: Frame) -> None:
        """Append one frame."""
        assert self.sink is not None
        await self.sink.write(frame)

    async def commit(self, hash: str, layout: Layout, deadline: float) -> None:
        """Name it."""
        assert self.sink is not None
        key = ShardKey(hash, self.index, layout.id)
        await self.sink.commit(key, layout, deadline, 0.0)

    async def abort(self) -> None:
        """Remove the temporary, if there is one."""
        if self.sink is not None:
            await self.sink.abort()


class Writing:
    """What all writes share: where shards go and by which rules; one an engine."""

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        codecs: Codecs,
        clock: Clock,
        entropy: Callable[[int], bytes],
        budget: Budget,
        coding: Coding,
        workers: Workers,
    ) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self.codecs = codecs
        self.clock = clock
        self.entropy = entropy
        self.budget = budget
        self.coding = coding
        self.given_up = 0
        self._workers = workers
        self.tasks = Tasks(Logger())

    async def stop(self) -> None:
        """Wait for what is being cleaned up, but not long for a node that hangs."""
        with suppress(TimedOut):
            await self.clock.within(STALL, self.tasks.idle())

    def place(self, key: str) -> dict[int, str]:
        """Index -> node for a new content. Raises TooFewNodes or NoSpace."""
        coding = self.coding
        return place(
            key, coding.geometry.shards, coding.quorum, self.cluster.candidates()
        )

    def admit(self) -> None:
        """Raise TooFewNodes or NoSpace when no content could be placed now."""
        takers(self.coding.quorum, self.cluster.candidates())

    def fan(
        self, sinks: Mapping[int, S], dropped: Callable[[int, S, Exception], None]
    ) -> Fanout[S]:
        """A fanout over those sinks with the rules for writes."""
        return Fanout(
            self.clock, sinks, self.coding.quorum, self.coding.laggard, STALL, dropped
        )

    def quorum(self, layout: Layout) -> int:
        """How many shards of that layout must be there to rely on them."""
        geometry = self.coding.geometry
        if (layout.data, layout.parity) == (geometry.data, geometry.parity):
            return self.coding.quorum
        return min(layout.data + 1, layout.shards)

    def too_few(self, failures: Iterable[Exception]) -> OstoreError:
        """What to tell the client when the quorum was lost."""
        causes = list(failures)
        if causes and all(isinstance(cause, NodeFull) for cause in causes):
            return NoSpace("the nodes have no room for the content")
        return TooFewNodes(
            f"{len(causes)} nodes failed while the content was written; "
            f"{self.coding.quorum} shards must become durable"
        )

    async def expanded(
        self, row: Row, geometry: Geometry, blocks: Mapping[int, Buffer]
    ) -> Sequence[Buffer]:
        """The raw bytes of a stripe from k blocks. Raises ShardRotten."""
        codec = self.codecs.get(geometry)
        if row.coding == RAW or row.raw <= INLINE:
            return decode(row, geometry, codec, blocks)
        return await self._workers.run(decode, row, geometry, codec, dict(blocks))

    async def compressed(self, raw: memoryview) -> bytes | None:
        """A stripe made smaller, where that is asked for and pays."""
        if not self.coding.compress or not promising(raw):
            return None
        if len(raw) <= INLINE:
            return compress(raw)
        return await self._workers.run(compress, raw)

    def left_out(self, node: str, error: Exception) -> None:
        """A node failed or lagged in a write that goes on without it."""
        self.given_up += 1
        if isinstance(error, NodeUnreachable):
            self.cluster.suspect(node)


class Intake:
    """Takes in one body and makes it durable; made for one PUT, ended by clean().

    While the body comes nothing is named. A content of one stripe is held until
    store(); of a larger one every stripe goes to temporaries as it is complete.
    What is not `shrinking` is known not to get smaller by compression.
    """

    def __init__(self, writing: Writing, *, shrinking: bool = True) -> None:
        coding = writing.coding
        self._shrinking = shrinking
        self._house = writing
        self._encoder = Encoder(coding.geometry, writing.codecs.get(coding.geometry))
        self._hasher = hashlib.sha256()
        self._uploads: dict[int, ShardUpload] = {}
        self._fanout: Fanout[ShardUpload] | None = None
        self._small: Sequence[Frame] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of what was received, in hex."""
        return self._hasher.hexdigest()

    @property
    def small(self) -> bool:
        """Whether the content is held here and placed by its hash."""
        return self._fanout is None

    def layout(self) -> Layout:
        """How the content was cut."""
        return self._encoder.layout()

    async def receive(self, body: Body) -> int:
        """Take in the whole body; from its second stripe on it goes to the nodes."""
        size = 0
        held: memoryview | None = None
        while chunk := await body.read():
            size += len(chunk)
            self._hash(chunk)
            for raw in self._encoder.feed(chunk):
                if held is not None:
                    await self._send(held)
                held = raw
            if held is not None and self._encoder.held:
                await self._send(held)  # it is no small one: a slow client holds less
                held = None
        tail = self._encoder.finish()
        if self._fanout is None and (held is None or tail is None):
            only = held if held is not None else tail
            self._small = () if only is None else await self._code(only)
            return size
        for rest in (held, tail):
            if rest is not None:
                await self._send(rest)
        return size

    def _hash(self, chunk: Buffer) -> None:
        if len(chunk) > 8 * HELD:
            self._hasher.update(chunk)
            return
        view = memoryview(chunk)
        for at in range(0, len(view), HELD):
            self._hasher.update(view[at : at + HELD])

    async def _send(self, raw: memoryview) -> None:
        """Code one stripe and hand it to every standing sink: the back-pressure."""
        house = self._house
        if self._fanout is None:
            await self._open()
        cost = len(raw) * house.coding.geometry.shards // house.coding.geometry.data
        await house.budget.take(cost)
        try:
            frames = await self._code(raw)
            await self._each(lambda index, one: one.write(frames[index]))
        finally:
            house.budget.give(cost)

    async def _code(self, raw: memoryview) -> tuple[Frame, ...]:
        compressed = await self._house.compressed(raw) if self._shrinking else None
        return self._encoder.code(raw, compressed)

    async def _open(self) -> None:
        house = self._house
        name = house.entropy(16).hex()
        nodes = house.place(name)
        taken = set(nodes.values())
        spares = [
            each.id
            for each in house.cluster.candidates()
            if each.writable and not each.suspect and each.id not in taken
        ]

        async def create(node: str) -> IShardSink:
            try:
                return await house.nodes.store(node).create(name)
            except NodeUnreachable:
                house.cluster.suspect(node)
                raise

        self._uploads = {
            index: ShardUpload(index, node, spares, create)
            for index, node in nodes.items()
        }
        self._fanout = house.fan(self._uploads, self._left_out)
        await self._each(lambda _, one: one.open())

    def _left_out(self, _: int, one: ShardUpload, error: Exception) -> None:
        self._house.left_out(one.node, error)
        self._house.tasks.spawn("removing a temporary", one.abort)

    async def _each(
        self, step: Callable[[int, ShardUpload], Awaitable[object]]
    ) -> None:
        assert self._fanout is not None
        try:
            await self._fanout.each(step)
        except QuorumLost:
            raise self._house.too_few(self._fanout.failures.values()) from None

    async def store(self, hash: str, layout: Layout) -> Mapping[int, str]:
        """Make the content durable on a write quorum of nodes: index -> node."""
        if self._fanout is None:
            return await self._store_small(hash, layout)
        deadline = self._house.clock.wall() + COMMIT_TIME
        await self._each(lambda _, one: one.commit(hash, layout, deadline))
        return {index: self._uploads[index].node for index in self._fanout.standing}

    async def _store_small(self, hash: str, layout: Layout) -> Mapping[int, str]:
        house = self._house
        deadline = house.clock.wall() + COMMIT_TIME

        def left_out(_: int, node: str, error: Exception) -> None:
            house.left_out(node, error)

        def put(index: int, node: str) -> Awaitable[None]:
            frames = self._small[index : index + 1]
            key = ShardKey(hash, index, layout.id)
            store = house.nodes.store(node)
            return store.put_small(key, layout, frames, deadline, 0.0)

        nodes = house.place(hash)
        fanout = house.fan(nodes, left_out)
        try:
            await fanout.each(put)
        except QuorumLost:
            raise house.too_few(fanout.failures.values()) from None
        return {index: nodes[index] for index in fanout.standing}

    async def clean(self) -> None:
        """Remove the temporaries; a node that hangs does so without being waited for.

        Those that were left out are being removed already.
        """
        if self._fanout is None:
            return
        house, standing = self._house, self._fanout.standing
        with suppress(TimedOut):
            await house.clock.within(
                house.coding.laggard,
                gather(self._uploads[index].abort() for index in standing),
            )
