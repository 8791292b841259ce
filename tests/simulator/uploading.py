"""Clients who upload in parts, and do not give up soon."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred

from ostore.engine.resuming import Begun, Progress
from ostore.engine.store import PutRequest
from ostore.model.errors import (
    AlreadyExists,
    ClientGone,
    ConditionFailed,
    DigestMismatch,
    NotFound,
    OstoreError,
    OutcomeUnknown,
)
from ostore.model.versions import Version
from ostore.streaming.tasks import start
from tests.simulator.cluster import Cluster
from tests.simulator.world import World
from tests.support.disk import PowerCut

T = TypeVar("T")
PATIENCE = 90.0
"""Seconds after which a client gives up an upload."""
PAUSE = 2.0
"""Seconds that it waits after anything that went wrong."""
DEFINITE = (AlreadyExists, ConditionFailed, DigestMismatch)
"""Errors that end an upload."""


class Gone(Exception):
    """The client gave up before the last byte was sent: there is no version."""


class PartBody:
    """Bytes of a part; the client goes away behind them if it is to be `cut`."""

    def __init__(self, data: bytes, *, cut: bool) -> None:
        self._data = data
        self._cut = cut

    async def read(self) -> bytes:
        """The next piece."""
        data, self._data = self._data, b""
        if not data and self._cut:
            raise ClientGone("the client went away")
        return data


class Uploader:
    """One client with one upload, through whichever engine answers.

    What was acknowledged never becomes less, and an upload that did not expire is there
    until it is finished, unless a disk was exchanged meanwhile.
    """

    def __init__(
        self, cluster: Cluster, first: int, request: PutRequest, content: bytes
    ) -> None:
        self.host = cluster.engines[first]
        """Whom it asks now."""
        self._cluster = cluster
        self._world = cluster.world
        self._next = first
        self._request = request
        self._content = content
        self._token = ""
        self._least = 0
        self._whole = False
        """Whether the last byte was ever sent."""
        self._exchanged = cluster.exchanged

    async def run(self) -> Version:
        """To the version. Raises Gone, OutcomeUnknown, and what a PUT raises."""
        world = self._world
        until = world.now + PATIENCE
        while world.now < until:
            try:
                done = await self._step()
            except (PowerCut, CancelledError, OstoreError) as error:
                world.note(f"told a part: {error!r}")
                if isinstance(error, DEFINITE):
                    raise
                await _sleep(world, PAUSE)
                self._next += 1
                continue
            if done is not None:
                return done
        raise OutcomeUnknown("it takes too long") if self._whole else Gone

    async def _step(self) -> Version | None:
        engines = self._cluster.engines
        self.host = engines[self._next % len(engines)]
        if not self.host.up:
            raise ClientGone("nobody is there")
        store = self.host.store
        size = len(self._content)
        if not self._token:
            begun = await self._ask(store.begin_upload(self._request, size))
            if not isinstance(begun, Begun):
                return begun
            self._token = begun.token
        held = await self._held()
        if held is None:
            return await self._outcome()
        if held.held < self._least:
            self._lost(f"holds {held.held} bytes, {self._least} were acknowledged")
        if held.finishing:
            await _sleep(self._world, PAUSE)
            return held.version
        rng = self._world.rng
        self._next += rng.random() < 0.3
        part = self._content[held.held :]
        part = part[: max(1, int(size * rng.choice((0.1, 0.4, 1.0))))]
        cut = rng.random() < 0.2
        end = held.held + len(part)
        self._whole = self._whole or end == size
        body = PartBody(part[: len(part) // 2] if cut else part, cut=cut)
        found = await self._ask(
            store.uploads.part(self._token, held.held, body, len(part))
        )
        self._least = max(self._least, found.held)
        if found.held != end:
            self._world.violated(f"a part up to {end} bytes gave {found}")
        return found.version

    async def _held(self) -> Progress | None:
        """What is held; None when the upload is not there any more."""
        try:
            return await self._ask(self.host.store.uploads.held(self._token))
        except NotFound:
            return None

    async def _outcome(self) -> Version | None:
        """What became of it."""
        size = len(self._content)
        body = PartBody(b"", cut=False)
        try:
            asked = self.host.store.uploads.part(self._token, size, body, 0)
            return (await self._ask(asked)).version
        except NotFound:
            if not self._whole:
                self._lost("is gone")
            raise

    def _lost(self, what: str) -> None:
        if self._exchanged == self._cluster.exchanged:
            self._world.violated(f"an upload of {self._request.name} {what}")

    async def _ask(self, work: Awaitable[T]) -> T:
        """A request that ends with its engine."""
        running = start(work)
        ops = self.host.ops
        ops[running] = None
        try:
            return await running
        finally:
            ops.pop(running, None)


async def _sleep(world: World, seconds: float) -> None:
    waiting: Deferred[None] = Deferred()
    world.later(seconds, waiting.callback, None)
    await waiting
