"""One resumable upload on one node, as far as the process knows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs

from ostore.backends.shards.incoming import Incoming, Keeper
from ostore.backends.shards.reading import Source
from ostore.backends.shards.serial import handed_over
from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.uploadfiles import Envelope, UploadFiles
from ostore.backends.shards.uploadframes import UNSYNCED, UploadFrames
from ostore.backends.shards.uploadtails import UploadTails
from ostore.erasure.draft import ShardDraft
from ostore.erasure.framing import Frame
from ostore.model.errors import ShardError, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.model.resuming import Tail, UploadState
from ostore.streaming.pools import Workers


class Desk:
    """What all uploads of a node are worked on with."""

    def __init__(
        self,
        shelf: Shelf,
        workers: Workers,
        keeper: Keeper,
        wall: Callable[[], float],
    ) -> None:
        self.shelf = shelf
        self.workers = workers
        self.keeper = keeper
        self.frames = UploadFrames(shelf)
        self.tails = UploadTails(shelf)
        self.files = UploadFiles(shelf, self.tails, wall)


class HeldUpload:
    """What is known of one upload; all of it can be read from its files.

    Owned by Uploads, which lets one piece of work at a time into it. `touched` is when
    its claimant was heard last, `released` whether that gave it back.
    """

    def __init__(self, desk: Desk, upload: str, envelope: Envelope) -> None:
        self.upload = upload
        self.envelope = envelope
        self.touched = 0.0
        self.released = True
        self._desk = desk
        self._draft: ShardDraft | None = None
        self._durable = 0
        self._tails: dict[tuple[int, int], int] = {}
        self._sink: Incoming | None = None

    @property
    def open(self) -> bool:
        """Whether its file is open."""
        return self._sink is not None

    async def load(self) -> None:
        """Find its tails; its frames are looked at when they are needed."""
        if self.envelope.outcome is not None:
            self._draft = ShardDraft()
        tails = await self._desk.workers.run(self._desk.tails.durable, self.upload)
        self._tails = {(tail.stripe, tail.epoch): tail.length for tail in tails}

    async def state(self, *, active: bool, granted: bool = False) -> UploadState:
        """What the node says of it."""
        draft, envelope = await self.draft(), self.envelope
        return UploadState(
            envelope.epoch,
            envelope.settled,
            active,
            envelope.record,
            draft.rows(self._durable),
            tuple(Tail(*name, length) for name, length in self._tails.items()),
            envelope.outcome,
            granted,
        )

    async def keep(self, envelope: Envelope) -> None:
        """Put another envelope in place, durably."""
        await self._desk.workers.run(self._desk.files.write, self.upload, envelope)
        self.envelope = envelope

    async def end(self, outcome: str) -> None:
        """Keep nothing but what became of it."""
        await self.rest()
        await self.keep(attrs.evolve(self.envelope, outcome=outcome))
        await self._desk.workers.run(self._desk.files.clean, self.upload)
        self._draft, self._durable = ShardDraft(), 0
        self._tails.clear()
        self.released = True

    # Frames

    async def draft(self) -> ShardDraft:
        """The account of its frames; the file is read when that is not known."""
        if self._draft is None:
            draft = await self._desk.workers.run(self._desk.frames.scan, self.upload)
            self._draft, self._durable = draft, draft.frames
        return self._draft

    async def write(self, frame: Frame) -> None:
        """Append one frame."""
        draft, sink = await self.draft(), await self._open()
        await self._trusting(sink.write(frame))
        if draft.frames - self._durable >= UNSYNCED:
            await self.sync()

    async def sync(self) -> int:
        """Make durable what was written; the number of frames."""
        draft = await self.draft()
        if self._durable != draft.frames:
            idle = self._sink is None
            sink = await self._open()
            await self._trusting(sink.sync())
            self._durable = draft.frames
            if idle:
                await self.rest()
        return self._durable

    async def cut(self, frames: int) -> None:
        """Forget all but the first ones."""
        await self.rest()
        draft = await self.draft()
        if frames < draft.frames:
            self._draft = None
            self._draft = await self._desk.workers.run(
                self._desk.frames.cut, self.upload, draft, frames
            )
            self._durable = frames

    async def source(self) -> Source:
        """The file of the frames, open for reading."""
        return Source(self._desk.shelf.disk.files, await self._reopened(), None)

    async def commit(
        self, key: ShardKey, layout: Layout, deadline: float | None
    ) -> None:
        """Name the temporary, which stays under its own name too."""
        sink = await self._open()
        await self._trusting(sink.commit(key, layout, deadline, 0.0))
        self._sink = None

    async def rest(self) -> None:
        """Close the temporary, if it is open, with all that was written."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if self._draft is not None and self._durable != self._draft.frames:
            with suppress(ShardError):  # release() raises it again
                await sink.sync()
        try:
            await sink.release()
        except ShardError:
            self._draft = None  # what was written last may not be there
        else:
            self._durable = 0 if self._draft is None else self._draft.frames

    async def _trusting(self, work: Awaitable[None]) -> None:
        """A write that fails leaves what must be read anew."""
        try:
            await work
        except ShardRefused:
            raise
        except ShardError:
            await self.rest()
            self._draft, self._durable = None, 0
            raise

    async def _open(self) -> Incoming:
        if self._sink is None:
            desk, draft = self._desk, await self.draft()
            self._sink = Incoming(
                self.upload,
                await self._reopened(),
                desk.shelf,
                desk.workers,
                desk.keeper,
                draft,
                lasting=True,
            )
        return self._sink

    async def _reopened(self) -> int:
        shelf = self._desk.shelf
        opening = self._desk.workers.run(shelf.reopen, self.upload)
        return await handed_over(opening, shelf.close)

    # Tails

    async def tail(self, stripe: int, epoch: int) -> bytes:
        """The bytes of one. Raises ShardMissing."""
        return await self._desk.workers.run(
            self._desk.tails.read, self.upload, stripe, epoch
        )

    async def add_tail(self, stripe: int, epoch: int, at: int, data: bytes) -> None:
        """Append to one, durably."""
        await self._desk.workers.run(
            self._desk.tails.add, self.upload, stripe, epoch, at, data
        )
        self._tails[stripe, epoch] = at + len(data)

    async def drop_tails(self, which: Callable[[Tail], bool]) -> None:
        """Remove those for which that holds."""
        known = [Tail(*name, length) for name, length in self._tails.items()]
        dropped = [tail for tail in known if which(tail)]
        if dropped:
            await self._desk.workers.run(self._desk.tails.drop, self.upload, dropped)
            for tail in dropped:
                del self._tails[tail.stripe, tail.epoch]
