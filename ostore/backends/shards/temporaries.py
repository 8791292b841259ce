"""Temporaries: shards that are written over several requests, by their uuids."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile
from typing import Protocol

from ostore.backends.shards.held import HeldBytes
from ostore.backends.shards.incoming import Incoming, Keeper
from ostore.backends.shards.paths import checked_id
from ostore.backends.shards.plain import PlainCut, PlainFile, check_length
from ostore.backends.shards.reading import Source
from ostore.backends.shards.serial import Serial, handed_over
from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.temporary import Commit, Temporary, TooLong, WrongOffset
from ostore.erasure.framing import FrameParser
from ostore.erasure.geometry import Buffer
from ostore.model.errors import (
    NodeUnreachable,
    NotFound,
    Refused,
    ShardError,
    ShardMissing,
    ShardRefused,
)
from ostore.model.layouts import Layout
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers

MOST = 10_000
"""Temporaries that a node holds at once."""

FORGOTTEN = 24 * 3600.0
"""Seconds after which a temporary that nobody touches makes room for another."""

Read = Callable[[], Awaitable[Buffer]]
"""The next bytes of a body, none at its end."""


class Sinks(Keeper, Protocol):
    """The part of a store that temporaries stand on."""

    async def create(self, upload: str) -> Incoming:
        """A new file in the folder of temporaries, open."""


class Temporaries:
    """All temporaries of one node that outlive a request; owned by its store.

    One request at a time appends to a temporary or commits it: another is Refused.
    Files are open only meanwhile. What fails on the disk is dropped. An unknown uuid
    raises NotFound everywhere but in remove().
    """

    def __init__(
        self,
        store: Sinks,
        shelf: Shelf,
        workers: Workers,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._workers = workers
        self._clock = clock
        self._entropy = entropy
        self._serial = Serial()
        self._known: dict[str, Temporary] = {}
        """By uuid, the one that was touched last at the end."""

    def __len__(self) -> int:
        return len(self._known)

    async def stop(self) -> None:
        """Finish what is under way."""
        await self._serial.idle()

    async def create(self, limit: int | None = None, uuid: str = "") -> str:
        """A new one of at most `limit` bytes; its uuid.

        Raises Refused for a uuid that is taken, NodeFull, NodeUnreachable.
        """
        uuid = checked_id(uuid) if uuid else self._entropy(16).hex()
        await self.sweep()
        if uuid in self._known:
            raise Refused("that uuid is taken")
        if len(self._known) >= MOST:
            raise NodeUnreachable(f"the node holds {MOST} temporaries")
        temp = Temporary(uuid, limit, self._clock.monotonic(), busy=True)
        self._known[uuid] = temp
        await self._serial.run(uuid, lambda: self._create(temp))
        return uuid

    def held(self, uuid: str) -> int:
        """Bytes that the next append() must begin with."""
        return self._get(uuid).held

    async def open(self, uuid: str) -> HeldBytes:
        """Its bytes for reading."""
        temp = self._get(uuid)
        if temp.busy:
            raise Refused("another request writes this temporary")
        source = Source(self._shelf.disk.files, await self._reopen(temp), None)
        return HeldBytes(source, self._workers, temp.draft, temp.plain)

    async def append(
        self,
        uuid: str,
        offset: int,
        framed: bool,
        read: Read,
        length: int | None = None,
    ) -> int:
        """Append all that `read` gives, behind `offset`; the bytes held then.

        What is wrong with a body of `length` bytes is said before it is read. Whole
        frames, or plain bytes, that came before an error are kept. Raises WrongOffset,
        Refused (also for bytes of the other kind), ShardRefused (frames that are none),
        TooLong, NodeFull, NodeUnreachable, and what `read` raises.
        """
        temp = self._take(uuid)
        try:
            if offset != temp.held:
                raise WrongOffset(temp.held)
            if length:
                temp.become(framed)
                temp.admit(0 if framed else length)
            piece = await read()
            if not piece:
                return temp.held
            temp.become(framed)
            append = self._append_frames if framed else self._append_plain
            await append(temp, piece, read)
            return temp.held
        except ShardError as error:
            await self._settle(temp, error)
            raise
        finally:
            self._put_back(temp)

    async def commit(self, uuid: str, commit: Commit) -> Layout:
        """Make it a shard, create-only and durable; it is gone then.

        Gives the layout with its id. Raises ShardRefused or Malformed for what
        contradicts itself (the temporary is kept), NodeFull, NodeUnreachable.
        """
        temp = self._take(uuid)

        async def work() -> Layout:
            try:
                make = self._commit_frames if temp.framed else self._commit_plain
                layout = await make(temp, commit)
                await self._forget(temp)
                return layout
            except ShardError as error:
                if not isinstance(error, ShardRefused):
                    await self._forget(temp)
                raise
            finally:
                self._put_back(temp)

        return await self._serial.run(uuid, work)

    async def remove(self, uuid: str) -> None:
        """Drop it, if it is there; whoever writes it fails at the next byte."""
        checked_id(uuid)
        temp = self._known.get(uuid)
        if temp is not None:
            await self._remove(temp)

    async def sweep(self) -> None:
        """Drop those that nobody came back to."""
        for temp in self.expired():
            await self._remove(temp)

    def expired(self) -> Sequence[Temporary]:
        """Those that a sweep drops."""
        oldest = self._clock.monotonic() - FORGOTTEN
        idle = (temp for temp in self._known.values() if not temp.busy)
        return list(takewhile(lambda temp: temp.touched <= oldest, idle))

    # Its own

    def _get(self, uuid: str) -> Temporary:
        temp = self._known.get(uuid)
        if temp is None:
            raise NotFound("there is no such temporary")
        return temp

    def _take(self, uuid: str) -> Temporary:
        temp = self._get(uuid)
        if temp.busy:
            raise Refused("another request writes this temporary")
        temp.busy = True
        return temp

    def _put_back(self, temp: Temporary) -> None:
        temp.busy = False
        temp.touched = self._clock.monotonic()
        if self._known.get(temp.uuid) is temp:
            self._known[temp.uuid] = self._known.pop(temp.uuid)

    async def _create(self, temp: Temporary) -> None:
        try:
            sink = await self._store.create(temp.uuid)
            await sink.release()
        except ShardRefused:
            self._strike(temp)
            raise Refused("that uuid is taken") from None
        except Exception:
            self._strike(temp)
            raise
        finally:
            temp.busy = False

    async def _remove(self, temp: Temporary) -> None:
        if not temp.gone:
            self._strike(temp)
            await self._serial.run(temp.uuid, lambda: self._drop(temp))

    async def _settle(self, temp: Temporary, error: ShardError) -> None:
        """A temporary is kept only when the sender alone was wrong."""
        if isinstance(error, TooLong) or not isinstance(error, ShardRefused):
            await self._remove(temp)

    async def _forget(self, temp: Temporary) -> None:
        """In turn."""
        if not temp.gone:
            self._strike(temp)
            await self._drop(temp)

    def _strike(self, temp: Temporary) -> None:
        temp.gone = True
        if self._known.get(temp.uuid) is temp:
            del self._known[temp.uuid]

    async def _drop(self, temp: Temporary) -> None:
        await self._workers.run(self._shelf.drop, temp.uuid)

    async def _reopen(self, temp: Temporary) -> int:
        try:
            return await handed_over(
                self._workers.run(self._shelf.reopen, temp.uuid),
                self._shelf.close,
            )
        except ShardMissing:
            self._strike(temp)
            raise NotFound("there is no such temporary") from None

    async def _append_frames(self, temp: Temporary, piece: Buffer, read: Read) -> None:
        parser = FrameParser(temp.draft.frames)
        sink = await self._sink(temp)
        try:
            while piece:
                for frame in parser.feed(piece):
                    temp.admit(len(frame.block))
                    await sink.write(frame)
                piece = await read()
            parser.finish()
        finally:
            await sink.release()

    async def _append_plain(self, temp: Temporary, piece: Buffer, read: Read) -> None:
        fd = await self._reopen(temp)
        file = PlainFile(fd, self._shelf, self._workers, temp.plain)
        try:
            while piece:
                temp.admit(len(piece))
                await file.write(piece)
                temp.plain = file.length
                piece = await read()
        finally:
            await file.release()

    async def _sink(self, temp: Temporary) -> Incoming:
        fd = await self._reopen(temp)
        return Incoming(
            temp.uuid, fd, self._shelf, self._workers, self._store, temp.draft
        )

    async def _commit_frames(self, temp: Temporary, commit: Commit) -> Layout:
        """In turn."""
        if commit.digest not in (None, temp.draft.digest()):
            raise ShardRefused("the frames are not those of the digest")
        sink = await self._sink(temp)
        try:
            key = commit.key(commit.layout)
            await sink.commit(key, commit.layout, commit.deadline, commit.age)
        finally:
            await sink.release()
        return commit.layout

    async def _commit_plain(self, temp: Temporary, commit: Commit) -> Layout:
        """In turn."""
        cut = check_length(commit.layout, temp.plain)
        fd = await self._reopen(temp)
        try:
            sink = await self._store.create(self._entropy(16).hex())
            try:
                bytes_of = PlainCut(fd, self._shelf, self._workers, cut)
                digest = await bytes_of.run(commit.layout.size, sink)
                if commit.digest not in (None, digest):
                    raise ShardRefused("the bytes are not those of the digest")
                layout = sink.layout(cut.data, cut.parity)
                if commit.layout.id not in ("", layout.id):
                    raise ShardRefused(f"the bytes are of the layout {layout.header()}")
                key = commit.key(layout)
                await sink.commit(key, layout, commit.deadline, commit.age)
                return layout
            finally:
                await sink.abort()
        finally:
            await self._workers.run(self._shelf.close, fd)
