"""PUT: a body becomes shards, shards become a version, or nothing stays behind."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import attrs
from twisted.logger import Logger

from ostore.engine.cluster import Cluster
from ostore.engine.recording import Recording
from ostore.engine.renewing import Renewing
from ostore.engine.repairs import Repairs
from ostore.engine.turns import Turns
from ostore.erasure.codec import Codecs
from ostore.erasure.encoder import Encoder
from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Geometry
from ostore.interfaces import IMetadataStore, INodes, IShardSink
from ostore.model.conditions import WriteCondition
from ostore.model.errors import (
    DigestMismatch,
    NodeFull,
    NodeUnreachable,
    NoSpace,
    OstoreError,
    OutcomeUnknown,
    TooFewNodes,
    Unavailable,
)
from ostore.model.layouts import Layout, ShardKey
from ostore.model.placement import place
from ostore.model.uploading import Facts, upload
from ostore.model.versions import NO_HEADERS, NewVersion, Version
from ostore.streaming.budget import Budget
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.fanout import Fanout, QuorumLost
from ostore.streaming.tasks import Tasks, gather

S = TypeVar("S")

COMMIT_TIME = 30.0
"""Seconds by the node's clock after which it refuses a commit."""
STALL = 20.0
"""Seconds within which a quorum of nodes has to take a step."""


class Body(Protocol):
    """What is uploaded, as an async stream."""

    async def read(self) -> bytes:
        """The next bytes; b"" at the end. Raises ClientGone."""
        ...


@attrs.frozen
class PutRequest:
    """What the client asked for, beside the body.

    `digest` is the promised SHA-256 in hex; `size` the announced length or None.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    headers: Mapping[str, str] = NO_HEADERS
    condition: WriteCondition = WriteCondition()
    put_id: str | None = None
    bucket: str = ""


@attrs.frozen
class Coding:
    """How new contents are cut and how many shards must be durable."""

    geometry: Geometry
    quorum: int
    laggard: float
    grace: float


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


class Put:
    """One PUT from first byte to version; made by `Putting`, used once."""

    def __init__(self, putting: Putting, request: PutRequest) -> None:
        self._house = putting
        self._request = request
        coding = putting.coding
        self._encoder = Encoder(coding.geometry, putting.codecs.get(coding.geometry))
        self._hasher = hashlib.sha256()
        self._facts = Facts()
        self._machine = upload(self._facts)
        self._uploads: dict[int, ShardUpload] = {}
        self._fanout: Fanout[ShardUpload] | None = None
        self._small: Sequence[Frame] = ()

    async def run(self, body: Body) -> Version:
        """Do it all. Whatever fails, temporaries are removed."""
        try:
            self._machine.begin()
            size = await self._receive(body)
            self._machine.end()
            hash = self._hasher.hexdigest()
            promised = self._request.digest
            if promised is not None and promised != hash:
                raise DigestMismatch(
                    "the body's SHA-256 differs from the Digest that came with it"
                )
            self._machine.commit()
            version = await self._house.made_before(self._request)
            if version is None:
                version = await self._keep_in_turn(hash, size)
            self._machine.keep()
        finally:
            self._machine.drop()
            await self._clean()
        return version

    async def _clean(self) -> None:
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

    async def _keep_in_turn(self, hash: str, size: int) -> Version:
        if self._fanout is None:
            return await self._keep(hash, size)
        return await self._house.turns.run(hash, lambda: self._keep(hash, size))

    async def _keep(self, hash: str, size: int) -> Version:
        """Refer to what is there, or name what was sent.

        Shards of a small content go where its hash says, so that equal ones meet on
        their names. Those of a large one lie where chance put them before the hash was
        known: equal ones take turns here, and all but the first find a known content.
        """
        layout = self._encoder.layout()
        return await self._known(hash, size) or await self._new(hash, layout)

    async def _receive(self, body: Body) -> int:
        """Take in the whole body; from its second stripe on it goes to the nodes."""
        size = 0
        held: memoryview | None = None
        while chunk := await body.read():
            size += len(chunk)
            self._hasher.update(chunk)
            for raw in self._encoder.feed(chunk):
                if held is not None:
                    await self._send(held)
                held = raw
        tail = self._encoder.finish()
        if self._fanout is None and (held is None or tail is None):
            only = held if held is not None else tail
            self._small = () if only is None else self._encoder.code(only)
            return size
        for rest in (held, tail):
            if rest is not None:
                await self._send(rest)
        return size

    async def _send(self, raw: memoryview) -> None:
        """Code one stripe and hand it to every standing sink: the back-pressure."""
        house = self._house
        if self._fanout is None:
            await self._open()
        cost = len(raw) * house.coding.geometry.shards // house.coding.geometry.data
        await house.budget.take(cost)
        try:
            frames = self._encoder.code(raw)
            await self._each(lambda index, one: one.write(frames[index]))
        finally:
            house.budget.give(cost)

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

    def _left_out(self, index: int, one: ShardUpload, error: Exception) -> None:
        house = self._house
        house.given_up += 1
        if isinstance(error, NodeUnreachable):
            house.cluster.suspect(one.node)
        house.tasks.spawn("removing a temporary", one.abort)

    async def _each(
        self, step: Callable[[int, ShardUpload], Awaitable[object]]
    ) -> None:
        assert self._fanout is not None
        try:
            await self._fanout.each(step)
        except QuorumLost:
            raise self._house.too_few(self._fanout.failures.values()) from None

    async def _known(self, hash: str, size: int) -> Version | None:
        """The content is there already: refer to it, if it can be relied on."""
        house = self._house
        census = await house.cluster.locate(hash)
        for standing in census.standings():
            if standing.layout.size != size:
                continue
            quorum = house.quorum(standing.layout)
            if len(standing.spread) < quorum:
                continue
            present = await house.renewing.renew(hash, standing)
            if len(present) < quorum:
                continue
            layout = standing.layout
            missing = tuple(i for i in range(layout.shards) if i not in present)
            version = await self._record(hash, layout, missing)
            again = await house.renewing.renew(hash, standing)
            if len(again) < quorum:
                await self._mend(hash, version)
            return version
        return None

    async def _mend(self, hash: str, version: Version) -> None:
        """The shards relied on went away: store the body, or take the version back."""
        house, layout = self._house, self._encoder.layout()
        try:
            await self._store(hash, layout)
            if missing := self._facts.missing(layout):
                house.repairs.found(hash, layout, dict.fromkeys(missing, ""))
        except OstoreError:
            if await house.recording.take_back(version):
                raise
            raise OutcomeUnknown(
                "the shards of this version could not be kept, and the version could "
                "not be taken back"
            ) from None

    async def _new(self, hash: str, layout: Layout) -> Version:
        """Name what was sent, then write the version."""
        house = self._house
        begun = house.clock.monotonic()
        await self._store(hash, layout)
        slow = house.clock.monotonic() - begun > house.coding.grace / 4
        missing = self._facts.missing(layout)
        if slow:
            present = await self._renewed(hash, layout)
            missing = tuple(i for i in range(layout.shards) if i not in present)
        version = await self._record(hash, layout, missing)
        if slow:
            await self._renewed(hash, layout, version)
        return version

    async def _renewed(
        self, hash: str, layout: Layout, version: Version | None = None
    ) -> Mapping[int, str]:
        """The commits took so long that an orphan hunter may have met them."""
        house = self._house
        standing = (await house.cluster.locate(hash)).standing(layout.id)
        present = {} if standing is None else await house.renewing.renew(hash, standing)
        if len(present) >= house.coding.quorum:
            return present
        if version is not None and not await house.recording.take_back(version):
            raise OutcomeUnknown("the version may yet appear")
        raise Unavailable("the nodes took too long to keep the content")

    async def _store(self, hash: str, layout: Layout) -> None:
        """Make the content durable on a write quorum of nodes."""
        if self._fanout is None:
            await self._store_small(hash, layout)
            return
        deadline = self._house.clock.wall() + COMMIT_TIME

        async def commit(index: int, one: ShardUpload) -> None:
            await one.commit(hash, layout, deadline)
            self._machine.named(index)

        await self._each(commit)

    async def _store_small(self, hash: str, layout: Layout) -> None:
        house = self._house
        deadline = house.clock.wall() + COMMIT_TIME

        def left_out(index: int, node: str, error: Exception) -> None:
            house.given_up += 1
            if isinstance(error, NodeUnreachable):
                house.cluster.suspect(node)

        fanout = house.fan(house.place(hash), left_out)

        async def put(index: int, node: str) -> None:
            frames = self._small[index : index + 1]
            key = ShardKey(hash, index, layout.id)
            await house.nodes.store(node).put_small(key, layout, frames, deadline, 0.0)
            self._machine.named(index)

        try:
            await fanout.each(put)
        except QuorumLost:
            raise house.too_few(fanout.failures.values()) from None

    async def _record(
        self, hash: str, layout: Layout, missing: tuple[int, ...]
    ) -> Version:
        request, house = self._request, self._house
        self._machine.record()
        version = await house.recording.add(
            NewVersion(
                name=request.name,
                bucket=request.bucket,
                put_id=request.put_id or house.recording.put_id(),
                hash=hash,
                size=layout.size,
                headers=request.headers,
                layout=layout,
                degraded=missing,
                condition=request.condition,
            )
        )
        if missing:
            mark = (version.bucket, version.name, version.number)
            house.repairs.found(
                hash, layout, dict.fromkeys(missing, ""), marks=frozenset([mark])
            )
        return version


class Putting:
    """What all PUTs share; owned by the store."""

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        metadata: IMetadataStore,
        recording: Recording,
        renewing: Renewing,
        repairs: Repairs,
        codecs: Codecs,
        clock: Clock,
        entropy: Callable[[int], bytes],
        budget: Budget,
        coding: Coding,
    ) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self._metadata = metadata
        self.recording = recording
        self.renewing = renewing
        self.repairs = repairs
        self.codecs = codecs
        self.clock = clock
        self.entropy = entropy
        self.budget = budget
        self.coding = coding
        self.given_up = 0
        self.turns = Turns()
        self.tasks = Tasks(Logger())

    async def put(self, request: PutRequest, body: Body) -> Version:
        """Store the body under the name; everything or nothing.

        Before the first byte is read: TooFewNodes, NoSpace, and the condition as far
        as the newest version can tell already.
        """
        self.place("")
        conditional = request.condition != WriteCondition()
        if conditional and await self.made_before(request) is None:
            latest = await self._metadata.latest(request.bucket, request.name)
            absent = latest is None or latest.deleted
            request.condition.check(None if absent or not latest else latest.hash)
        return await Put(self, request).run(body)

    async def made_before(self, request: PutRequest) -> Version | None:
        """The version that an earlier try of this very request made."""
        if request.put_id is None:
            return None
        return await self._metadata.by_put_id(
            request.bucket, request.name, request.put_id
        )

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
