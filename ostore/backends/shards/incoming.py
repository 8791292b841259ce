"""One temporary shard that is being written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.backends.shards.gathering import Gathering
from ostore.backends.shards.shelf import EXTENT, Naming, Shelf
from ostore.erasure.draft import ShardDraft
from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.erasure.geometry import Buffer
from ostore.erasure.shardfile import PROLOGUE
from ostore.erasure.single import single_file
from ostore.interfaces import IShardSink
from ostore.model.errors import NodeUnreachable, ShardError, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import shielded, start

T = TypeVar("T")

RESERVE_FROM = 1 << 20
"""Temporaries below this many bytes reserve nothing."""


PARTS = 512
"""Most buffers given to one write; the kernel takes 1024."""


def whole_file(
    key: ShardKey, layout: Layout, frames: Sequence[Frame]
) -> Sequence[Buffer]:
    """A shard's file in parts."""
    if len(frames) == 1:
        return single_file(key, layout, frames[0])
    draft = ShardDraft()
    parts: list[Buffer] = [PROLOGUE]
    for frame in frames:
        parts += (draft.append(frame), frame.block)
    parts.append(draft.trailer(key, layout))
    return parts if len(parts) <= PARTS else [b"".join(parts)]


class Keeper(Protocol):
    """The part of a store that a sink ends in."""

    async def keep(
        self, key: ShardKey, name: Callable[[bool], Awaitable[int | None]]
    ) -> bool:
        """Call `name(standing is bad)` when it is this key's turn; note the outcome.

        False when there was no need to call it.
        """


@implementer(IShardSink)
class Incoming:
    """A temporary file, from the store's create() to commit() or abort().

    Used by one PUT. At most one piece of work is with the worker threads at a time,
    and the descriptor is closed only when none is. Meanwhile frames of a large file
    are gathered. A file that was released goes on in another Incoming, which is given
    its `draft`.
    """

    def __init__(
        self,
        upload: str,
        fd: int,
        shelf: Shelf,
        workers: Workers,
        keeper: Keeper,
        draft: ShardDraft | None = None,
        *,
        lasting: bool = False,
    ) -> None:
        """`lasting`: the temporary outlives its commit, under both names."""
        self._lasting = lasting
        self._upload = upload
        self._fd: int | None = fd
        self._shelf = shelf
        self._workers = workers
        self._keeper = keeper
        self._draft = draft or ShardDraft()
        self._reserved = RESERVE_FROM
        self._gathering = Gathering(shelf.rooms, shelf.wall)
        self._busy: Deferred[None] | None = None
        self._error: ShardError | None = None

    async def write(self, frame: Frame) -> None:
        """Append one frame; waits for the write before, unless this may wait itself."""
        length = FRAME_HEADER.size + len(frame.block)
        gathering = self._gathering
        waits = gathering.may_wait(length)
        waits = waits and self._shelf.disk.is_large(self._draft.offset)
        fd = self._usable() if waits else await self._free()
        offset = self._draft.offset
        parts: list[Buffer] = [self._draft.append(frame), frame.block]
        if frame.number == 0:
            parts.insert(0, PROLOGUE)
            offset = 0
        if waits or gathering:
            gathering.add(offset, parts)
            if not waits:
                self._begin(fd)
        else:
            self._run(self._shelf.write, fd, parts, offset)

    def layout(self, k: int, m: int) -> Layout:
        """That of the frames so far. Raises ShardRefused if they were cut otherwise."""
        return self._draft.table(k, m).layout()

    async def commit(
        self, key: ShardKey, layout: Layout, deadline: float | None, age: float
    ) -> None:
        """Name it; the temporary stays when that is refused."""
        fd = await self._written()
        self._shelf.disk.paths.shard(key)
        trailer = self._draft.trailer(key, layout)
        if not self._draft.frames:
            trailer = PROLOGUE + trailer
        offset = self._draft.offset if self._draft.frames else 0

        async def name(standing_bad: bool) -> int | None:
            naming = Naming(key, deadline, age, standing_bad, self._lasting)
            return await self._workers.run(
                self._shelf.finish, fd, self._upload, trailer, offset, naming
            )

        self._busy = start(self._commit(key, name))
        await shielded(self._busy)

    async def sync(self) -> None:
        """Make durable what was written."""
        fd = await self._written()
        self._busy = start(self._sync(fd))
        await shielded(self._busy)
        if self._error is not None:
            raise self._error

    async def abort(self) -> None:
        """Drop the temporary, once nothing is under way in it.

        That goes on when the caller is cancelled.
        """
        self._error = self._error or NodeUnreachable("the write was given up")
        await shielded(self._abort())

    async def release(self) -> None:
        """Close the file and keep it, once nothing is under way in it.

        Raises what a write failed with; the temporary is of no use then.
        """
        await shielded(self._release())

    async def _abort(self) -> None:
        fd = await self._last()
        if fd is not None:
            await self._workers.run(self._shelf.give_up, fd, self._upload)

    async def _release(self) -> None:
        with suppress(ShardError):  # it is raised below
            await self._written()
        fd = await self._last()
        if fd is not None:
            await self._workers.run(self._shelf.close, fd)
        if self._error is not None:
            raise self._error

    async def _last(self) -> int | None:
        """The descriptor, once nothing is under way; nobody else gets it again."""
        if self._busy is not None:
            with suppress(ShardError):
                await shielded(self._busy)
        self._gathering.drop()
        fd, self._fd = self._fd, None
        return fd

    def _begin(self, fd: int) -> None:
        """Have a worker write what was gathered."""
        room, offset = self._gathering.take()
        self._run(self._shelf.write_room, fd, room, offset)

    def _run(
        self, write: Callable[[int, T, int, int], None], fd: int, what: T, offset: int
    ) -> None:
        end = 0
        if self._draft.offset > self._reserved:
            end = self._reserved = self._draft.offset + EXTENT

        writing = self._workers.run(write, fd, what, offset, end)
        self._busy = start(writing).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Any:
        if not isinstance(failure.value, ShardError):
            return failure
        self._error = self._error or failure.value
        return None

    async def _sync(self, fd: int) -> None:
        try:
            await self._workers.run(self._shelf.sync, fd)
        except ShardError as error:
            self._error = self._error or error

    async def _commit(
        self, key: ShardKey, name: Callable[[bool], Awaitable[int | None]]
    ) -> None:
        async def unless_given_up(standing_bad: bool) -> int | None:
            if self._error is not None:
                raise self._error
            return await name(standing_bad)

        try:
            named = await self._keeper.keep(key, unless_given_up)
        except ShardRefused:
            raise
        except ShardError as error:
            self._error = error
            raise
        fd, self._fd = self._fd, None
        if named or fd is None:
            return
        if self._lasting:
            await self._workers.run(self._shelf.close, fd)
        else:
            await self._workers.run(self._shelf.give_up, fd, self._upload)

    async def _free(self) -> int:
        """The descriptor, when nothing is under way. Raises what failed before."""
        if self._busy is not None:
            await shielded(self._busy)
        return self._usable()

    async def _written(self) -> int:
        """As _free(), with all that was gathered written."""
        fd = await self._free()
        if self._gathering:
            self._begin(fd)
            fd = await self._free()
        return fd

    def _usable(self) -> int:
        """The descriptor. Raises what failed before."""
        if self._error is not None:
            raise self._error
        if self._fd is None:
            raise ShardRefused("this temporary has ended")
        return self._fd
