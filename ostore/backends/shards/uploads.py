"""Resumable uploads on one node: who may write them, and what of them is durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from ostore.backends.shards.heldupload import Desk, HeldUpload
from ostore.backends.shards.incoming import Keeper
from ostore.backends.shards.paths import checked_id
from ostore.backends.shards.serial import Serial
from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.uploadfiles import Envelope
from ostore.backends.shards.uploadstreams import HeldFrames, UploadSink
from ostore.erasure.framing import Frame
from ostore.interfaces import IFrameStream, IUploads, IUploadSink
from ostore.model.errors import NodeUnreachable, ShardMissing, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.model.resuming import UploadState
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import Tasks

T = TypeVar("T")

ALIVE = 5.0
"""Seconds for which a claimant that wrote, and did not release, is not replaced."""
FRESH = 0.1
"""Part of an expiry after which a record is written anew by the standing claimant."""
MOST = 10_000
"""Uploads that a node holds at once."""
QUIET = 600.0
"""Seconds after which what is known of an upload is forgotten; its files stay."""
OPEN = 64
"""Uploads whose file stays open between parts."""
REST = 10.0
"""Seconds between two parts after which it is closed."""


@implementer(IUploads)
class Uploads:
    """All resumable uploads of one node; owned by its store.

    Work on one upload is done one after the other. They outlive the process: what is
    kept in memory is read from the files when it is asked for.
    """

    def __init__(
        self,
        keeper: Keeper,
        shelf: Shelf,
        admit: Callable[[], None],
        workers: Workers,
        clock: Clock,
    ) -> None:
        self._desk = Desk(shelf, workers, keeper, clock.wall)
        self._admit = admit
        self._clock = clock
        self._serial = Serial()
        self._tasks = Tasks(Logger(namespace="ostore.shards"))
        self._held: dict[str, HeldUpload] = {}
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    async def start(self) -> None:
        """Remove what a crash left, but for uploads that have not expired."""
        self._known = set(await self._desk.workers.run(self._desk.files.sweep))

    async def stop(self) -> None:
        """Close what is open, once nothing is under way."""
        await self._tasks.idle()
        await self._serial.idle()
        for held in list(self._held.values()):
            await held.rest()
        self._held.clear()

    def recount(self) -> None:
        """The root is another folder than before: forget all."""
        for held in self._held.values():
            self._tasks.spawn("closing a temporary", held.rest)
        self._held.clear()
        self._known.clear()

    async def sweep(self) -> None:
        """Remove uploads that have expired; forget, not remove, what is quiet."""
        for upload in await self._desk.workers.run(self._desk.files.listed):
            await self._serial.run(upload, partial(self._sweep, upload))

    async def expired(self) -> int:
        """How many a sweep would remove."""
        count = 0
        for upload in await self._desk.workers.run(self._desk.files.listed):
            count += await self._serial.run(upload, partial(self._expired, upload))
        return count

    # Anybody

    async def begin(self, upload: str, record: str, expiry: float) -> None:
        """A new upload, durable."""
        checked_id(upload)
        self._admit()
        if len(self._known) >= MOST:
            raise NodeUnreachable(f"the node holds {MOST} uploads")

        async def work() -> None:
            try:
                await self._get(upload)
            except ShardMissing:
                await self._remove(upload)  # what has expired
            else:
                raise ShardRefused("there is such an upload")
            envelope = Envelope(record, expiry, self._clock.wall() + expiry)
            await self._desk.workers.run(self._desk.files.begin, upload, envelope)
            await self._hold(upload, envelope)

        await self._in_turn(upload, work)

    async def look(self, upload: str) -> UploadState:
        """What is held, as far as it is durable."""

        async def work() -> UploadState:
            held = await self._get(upload)
            await held.sync()  # or a claim may find more than this told
            return await held.state(active=self._active(held))

        return await self._in_turn(upload, work)

    async def claim(self, upload: str, epoch: int) -> UploadState:
        """Become the one who writes."""

        async def work() -> UploadState:
            held = await self._get(upload)
            known, active = held.envelope, self._active(held)
            if epoch <= known.epoch or active or known.outcome is not None:
                return await held.state(active=active)
            await held.rest()
            await held.sync()
            expires = self._clock.wall() + known.expiry
            await held.keep(attrs.evolve(known, epoch=epoch, expires=expires))
            held.touched = self._clock.monotonic()
            held.released = False
            return await held.state(active=True, granted=True)

        return await self._in_turn(upload, work)

    async def frames(self, upload: str, first: int, stop: int) -> IFrameStream:
        """Frames that are held, for reading back."""

        async def work() -> IFrameStream:
            held = await self._get(upload)
            await held.sync()
            draft = await held.draft()
            if not 0 <= first <= stop <= draft.frames:
                raise ShardMissing("the upload holds fewer frames")
            source = await held.source()
            return HeldFrames(source, self._desk.workers, draft, first, stop)

        return await self._in_turn(upload, work)

    async def tail(self, upload: str, stripe: int, epoch: int) -> bytes:
        """The bytes of a tail."""

        async def work() -> bytes:
            held = await self._get(upload)
            return await held.tail(stripe, epoch)

        return await self._in_turn(upload, work)

    async def remove(self, upload: str, epoch: int | None = None) -> None:
        """Drop all of it."""

        async def work() -> None:
            if epoch is not None:
                try:
                    held = await self._get(upload)
                except ShardMissing:
                    held = None
                if held is not None and held.envelope.epoch > epoch:
                    raise ShardRefused("the upload was claimed by another")
            await self._remove(upload)

        await self._in_turn(upload, work)

    # The claimant

    async def renew(self, upload: str, epoch: int) -> int:
        """Go on under the same claim; the number of durable frames."""

        async def work(held: HeldUpload) -> int:
            held.released = False
            known = held.envelope
            expires = self._clock.wall() + known.expiry
            if expires - known.expires > FRESH * known.expiry:
                await held.keep(attrs.evolve(known, expires=expires))
            return await held.sync()

        return await self._as_claimant(upload, epoch, work)

    async def cut(self, upload: str, epoch: int, stripes: int) -> None:
        """Forget all frames but the first ones."""
        await self._as_claimant(upload, epoch, lambda held: held.cut(stripes))

    async def settle(self, upload: str, epoch: int, record: str) -> None:
        """Say that this node holds all there is; drops what older epochs left."""

        async def work(held: HeldUpload) -> None:
            await held.keep(attrs.evolve(held.envelope, settled=epoch, record=record))
            await held.drop_tails(lambda tail: tail.epoch != epoch)

        await self._as_claimant(upload, epoch, work)

    async def open(self, upload: str, epoch: int, first: int) -> IUploadSink:
        """A sink for the frames behind those that are held."""

        async def write(held: HeldUpload, frame: Frame) -> None:
            self._admit()
            await held.write(frame)

        async def sync(held: HeldUpload) -> int:
            durable = await held.sync()
            await held.drop_tails(lambda tail: tail.stripe < durable)
            return durable

        async def ready(held: HeldUpload) -> IUploadSink:
            if (await held.draft()).frames != first:
                raise ShardRefused("the upload holds another number of frames")
            return UploadSink(
                lambda frame: self._as_claimant(
                    upload, epoch, lambda held: write(held, frame)
                ),
                lambda: self._as_claimant(upload, epoch, sync),
            )

        return await self._as_claimant(upload, epoch, ready)

    async def add_tail(
        self, upload: str, epoch: int, stripe: int, at: int, data: bytes
    ) -> None:
        """Append to the tail of that stripe, durably."""

        async def work(held: HeldUpload) -> None:
            self._admit()
            await held.add_tail(stripe, epoch, at, data)

        await self._as_claimant(upload, epoch, work)

    async def commit(
        self,
        upload: str,
        epoch: int,
        key: ShardKey,
        layout: Layout,
        deadline: float | None,
    ) -> None:
        """Name the temporary, which stays under its own name too."""
        await self._as_claimant(
            upload, epoch, lambda held: held.commit(key, layout, deadline)
        )

    async def finish(self, upload: str, epoch: int, outcome: str) -> None:
        """Keep the outcome alone."""
        await self._as_claimant(upload, epoch, lambda held: held.end(outcome))

    async def release(self, upload: str, epoch: int) -> None:
        """Let another claim it at once."""

        async def work() -> None:
            held = self._held.get(upload)
            if held is not None and held.envelope.epoch == epoch:
                held.released = True
                if sum(each.open for each in self._held.values()) > OPEN:
                    await held.rest()

        await self._in_turn(upload, work)

    # Its own; all but the first two in turn

    async def _in_turn(self, upload: str, work: Callable[[], Awaitable[T]]) -> T:
        return await self._serial.run(checked_id(upload), work)

    async def _as_claimant(
        self, upload: str, epoch: int, work: Callable[[HeldUpload], Awaitable[T]]
    ) -> T:
        """Raises ShardRefused for whoever is not the standing claimant."""

        async def checked() -> T:
            held = await self._get(upload)
            if held.envelope.epoch != epoch or held.envelope.outcome is not None:
                raise ShardRefused("the upload was claimed by another, or has ended")
            held.touched = self._clock.monotonic()
            return await work(held)

        return await self._in_turn(upload, checked)

    async def _get(self, upload: str) -> HeldUpload:
        held = self._held.get(upload)
        if held is None:
            held = await self._hold(
                upload, await self._desk.workers.run(self._desk.files.read, upload)
            )
        elif held.envelope.expires < self._clock.wall():
            raise ShardMissing("the upload has expired")
        return held

    async def _hold(self, upload: str, envelope: Envelope) -> HeldUpload:
        held = HeldUpload(self._desk, upload, envelope)
        await held.load()
        held.touched = self._clock.monotonic()
        self._held[upload] = held
        self._known.add(upload)
        return held

    def _active(self, held: HeldUpload) -> bool:
        quiet = self._clock.monotonic() - held.touched
        return not held.released and quiet < ALIVE

    async def _remove(self, upload: str) -> None:
        held = self._held.pop(upload, None)
        if held is not None:
            await held.rest()
        await self._desk.workers.run(self._desk.files.remove, upload)
        self._known.discard(upload)

    async def _expired(self, upload: str) -> bool:
        held = self._held.get(upload)
        if held is not None and self._active(held):
            return False
        try:
            await self._desk.workers.run(self._desk.files.read, upload)
        except ShardMissing:
            return True
        return False

    async def _sweep(self, upload: str) -> None:
        if await self._expired(upload):
            await self._remove(upload)
            return
        held = self._held.get(upload)
        quiet = 0.0 if held is None else self._clock.monotonic() - held.touched
        if held is not None and quiet > REST:
            await held.rest()
            if quiet > QUIET and self._held.get(upload) is held:
                del self._held[upload]
