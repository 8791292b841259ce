"""PUT: a body becomes shards, shards become a version, or nothing stays behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from ostore.engine.intake import Body, Intake, Writing
from ostore.engine.recording import Recording
from ostore.engine.referring import PutRequest, Referring
from ostore.engine.renewing import Renewing
from ostore.engine.repairs import Repairs
from ostore.engine.turns import Turns
from ostore.interfaces import IMetadataStore
from ostore.model.census import Standing
from ostore.model.conditions import WriteCondition
from ostore.model.encodings import may_shrink
from ostore.model.errors import (
    DigestMismatch,
    OstoreError,
    OutcomeUnknown,
    Unavailable,
)
from ostore.model.layouts import Layout
from ostore.model.uploading import Facts, Upload
from ostore.model.versions import Version


class Content(Protocol):
    """What was received, in temporaries or in memory."""

    @property
    def small(self) -> bool:
        """Whether its shards are placed by its hash."""

    def layout(self) -> Layout:
        """How it was cut."""

    async def store(self, hash: str, layout: Layout) -> Mapping[int, str]:
        """Make it durable on a write quorum of nodes: index -> node.

        All of them are durable under their names.
        """
        ...


class Put:
    """One content from its bytes to a version; used once."""

    def __init__(self, putting: Putting, request: PutRequest, content: Content) -> None:
        self._house = putting
        self._request = request
        self._facts = Facts()
        self._machine = Upload(self._facts)
        self._content = content

    async def run(self, receive: Callable[[], Awaitable[tuple[str, int]]]) -> Version:
        """Receive it (hash and size), then keep it."""
        try:
            self._machine.begin()
            hash, size = await receive()
            self._machine.end()
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
        return version

    async def _keep_in_turn(self, hash: str, size: int) -> Version:
        if self._content.small:
            return await self._keep(hash, size)
        return await self._house.turns.run(hash, lambda: self._keep(hash, size))

    async def _keep(self, hash: str, size: int) -> Version:
        """Refer to what is there, or name what was sent.

        Shards of a small content go where its hash says, so that equal ones meet on
        their names. Those of a large one lie where chance put them before the hash was
        known: equal ones take turns here, and all but the first find a known content.
        """
        layout = self._content.layout()
        known = await self._house.referring.known(
            self._request,
            hash,
            size,
            lambda *left: self._mend(hash, *left),
            self._machine.record,
        )
        return known or await self._new(hash, layout)

    async def _mend(
        self, hash: str, version: Version, known: Layout, present: Collection[int]
    ) -> Version:
        """The shards relied on went away: store the body, or take the version back."""
        house, layout = self._house, self._content.layout()
        try:
            await self._store(hash, layout)
        except OstoreError:
            if await house.recording.take_back(version):
                raise
            raise OutcomeUnknown(
                "the shards of this version could not be kept, and the version could "
                "not be taken back"
            ) from None
        mark = house.referring.mark
        version = await mark(version, hash, layout, self._facts.durable)
        if layout != known:
            version = await mark(version, hash, known, present)
        return version

    async def _new(self, hash: str, layout: Layout) -> Version:
        """Name what was sent, then write the version."""
        house = self._house
        begun = house.writing.clock.monotonic()
        placed = await self._store(hash, layout)
        slow = self._slow(begun)
        missing = self._facts.missing(layout)
        if slow:
            present = await self._renewed(hash, layout)
            missing = tuple(i for i in range(layout.shards) if i not in present)
        version = await self._record(hash, layout, missing)
        if slow or self._slow(begun):
            present = await self._renewed(hash, layout, version)
            return await house.referring.mark(version, hash, layout, present)
        house.writing.cluster.places.learn(hash, layout, placed)
        return version

    def _slow(self, begun: float) -> bool:
        """Whether what was named since then may be taken for an orphan soon."""
        writing = self._house.writing
        return writing.clock.monotonic() - begun > writing.coding.grace / 4

    async def _store(self, hash: str, layout: Layout) -> Mapping[int, str]:
        placed = await self._content.store(hash, layout)
        self._machine.named(placed)
        return placed

    async def _renewed(
        self, hash: str, layout: Layout, version: Version | None = None
    ) -> Mapping[int, str]:
        """It took so long that the shards may have been collected: all nodes are asked.

        Whatever lies in garbage comes back.
        """
        house = self._house
        live = tuple(member.beat.node for member in house.writing.cluster.live())
        present = await house.renewing.renew(hash, Standing(layout, {0: live}))
        if len(present) >= house.writing.coding.quorum:
            return present
        if version is not None and not await house.recording.take_back(version):
            raise OutcomeUnknown("the version may yet appear")
        raise Unavailable("the nodes took too long to keep the content")

    async def _record(
        self, hash: str, layout: Layout, missing: tuple[int, ...]
    ) -> Version:
        self._machine.record()
        return await self._house.referring.record(self._request, hash, layout, missing)


class Putting:
    """What all PUTs share; owned by the store."""

    def __init__(
        self,
        writing: Writing,
        metadata: IMetadataStore,
        recording: Recording,
        renewing: Renewing,
        repairs: Repairs,
    ) -> None:
        self.writing = writing
        self.recording = recording
        self.renewing = renewing
        self.repairs = repairs
        self.referring = Referring(writing, recording, renewing, repairs)
        self.turns = Turns()
        self._metadata = metadata

    async def stop(self) -> None:
        """Wait for what is being cleaned up, but not long for a node that hangs."""
        await self.writing.stop()

    async def put(self, request: PutRequest, body: Body) -> Version:
        """Store the body under the name; everything or nothing.

        Before the first byte is read: TooFewNodes, NoSpace, and the condition as far
        as the newest version can tell already.
        """
        self.writing.admit()
        await self.foresee(request)
        intake = Intake(self.writing, shrinking=may_shrink(request.headers))

        async def receive() -> tuple[str, int]:
            size = await intake.receive(body)
            return intake.hash, size

        try:
            return await Put(self, request, intake).run(receive)
        finally:
            await intake.clean()

    async def refer(self, request: PutRequest, hash: str, size: int) -> Version | None:
        """A version of a content that is there, without its bytes.

        None when it is not there, or cannot be relied on as it is. Raises what put()
        raises.
        """
        await self.foresee(request)
        made = await self.made_before(request)
        return made or await self.referring.known(request, hash, size)

    async def foresee(self, request: PutRequest) -> None:
        """The condition as far as the newest version can tell already."""
        conditional = request.condition != WriteCondition()
        if conditional and await self.made_before(request) is None:
            latest = await self._metadata.latest(request.bucket, request.name)
            absent = latest is None or latest.deleted
            request.condition.check(None if absent or not latest else latest.hash)

    async def made_before(self, request: PutRequest) -> Version | None:
        """The version that an earlier try of this very request made."""
        if request.put_id is None:
            return None
        return await self._metadata.by_put_id(
            request.bucket, request.name, request.put_id
        )
