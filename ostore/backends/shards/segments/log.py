"""The segment log of one node: one flusher, the rows in memory, the copying."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import Files, on_disk
from ostore.backends.shards.root import RootGone
from ostore.backends.shards.segments.compactor import (
    Compactor,
    Copied,
    Source,
)
from ostore.backends.shards.segments.folder import Folder
from ostore.backends.shards.segments.form import Kind, Row
from ostore.backends.shards.segments.loader import Loaded, Segment, load
from ostore.backends.shards.segments.records import Records
from ostore.backends.shards.segments.rows import Rows
from ostore.backends.shards.segments.writer import (
    LIMIT,
    Active,
    Done,
    Entry,
    Group,
    Waiting,
    Writer,
    write_waiting,
)
from ostore.erasure.geometry import Buffer
from ostore.model.errors import NodeUnreachable, ShardError, ShardMissing, ShardRefused
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import Tasks

MOST_SOURCES = 16
"""Segments copied at a time."""


def _failure(error: BaseException) -> Failure:
    return Failure(error)  # type: ignore[no-untyped-call]  # Twisted's


class SegmentLog:
    """Records of shards, durable when append() returns; owned by a store.

    load() reads what is there; until then nothing else may be called. Everything that
    waits is written and synced at once, without a delay for more to come. `rows` are
    what the records come to. `forget` when the root is another folder, `stop` at the
    end.
    """

    def __init__(
        self,
        disk: Disk,
        check: Callable[[], None],
        workers: Workers,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        limit: int = LIMIT,
        flushers: Workers | None = None,
    ) -> None:
        """`flushers` write and sync, for other logs too; the `workers` by default."""
        self.loaded = False
        self.rows = Rows()
        self.strange = 0
        """Entries of the folder that are not ours."""
        self.erasures = 0
        """Records that were found lost at the start."""
        self._disk = disk
        self._folder = Folder(disk)
        self._check = check
        self._workers = workers
        self._flushers = workers if flushers is None else flushers
        self._clock = clock
        self._entropy = entropy
        self._limit = limit
        self._tasks = Tasks(Logger(namespace="ostore.segments"))
        self._records = Records(self._folder, check, workers)
        self._queue: deque[Waiting] = deque()
        self._flushing = False
        self._copying = False
        self._stopped = False
        self._begin_empty()

    def _begin_empty(self) -> None:
        self._writer = Writer(
            self._folder, self._check, self._entropy, self._clock.wall, self._limit
        )
        self._segments: dict[int, Segment] = {}
        self._copiable: set[int] = set()
        self._replaced: MutableSequence[int] = []

    @property
    def files(self) -> Files:
        """The file seam that it stands on."""
        return self._disk.files

    # Its life

    async def load(self) -> None:
        """Read and take what is there. Raises NodeUnreachable; fine to call again."""
        writer = self._writer
        found = await self._workers.run(load, self._folder, self._check)
        if self._writer is writer and not self.loaded:
            self._take(found)

    def forget(self) -> None:
        """The root is another folder: begin with nothing, not loaded."""
        self.loaded = False
        self._records.forget()
        old = self._writer
        self.rows = Rows()
        self._begin_empty()
        waiting, self._queue = self._queue, deque()
        with suppress(IndexError):  # a worker may take from it too
            while True:
                _, done = waiting.popleft()
                done(_failure(RootGone("the storage root was exchanged meanwhile")))
        if not self._flushing:
            old.close()

    async def stop(self) -> None:
        """Finish what is under way, and end the newest segment with its index."""
        self._stopped = True
        await self._tasks.idle()
        await self._tasks.stop()
        if self.loaded:
            await self._workers.run(self._writer.finish)
        self._records.clear()

    async def any(self) -> bool:
        """Whether there is anything on the disk; for a log that is not loaded."""
        with on_disk():
            segments, _, _ = await self._workers.run(self._folder.names)
        return bool(segments)

    # Writing

    async def append(
        self, entries: Sequence[Entry], deadline: float | None = None
    ) -> Sequence[Row]:
        """Write records in one batch; returns when they are durable and in `rows`.

        Raises ShardRefused behind the deadline, NodeUnreachable, NodeFull, RootGone.
        """
        result: Deferred[Sequence[Row]] = Deferred()
        self.add(entries, deadline, result.callback)  # a Failure goes its own way
        return await result

    def add(self, entries: Sequence[Entry], deadline: float | None, done: Done) -> None:
        """As append(); `done` is called once, later. Raises NodeUnreachable."""
        if not self.loaded:
            raise NodeUnreachable("the node is still counting its shards")
        if self._stopped:
            raise NodeUnreachable("the node has stopped")
        self._queue.append((Group(entries, deadline), done))
        if not self._flushing:
            self._flushing = True
            self._tasks.spawn("writing a segment", self._flush)

    async def _flush(self) -> None:
        while self._queue:
            taken: MutableSequence[Waiting] = []
            writer = self._writer
            try:
                written = await self._flushers.run(
                    write_waiting, writer, self._queue, taken
                )
                if writer is not self._writer:
                    writer.close()
                    raise RootGone("the storage root was exchanged meanwhile")
            except BaseException as error:  # noqa: BLE001 - handed to all who wait
                self._records.clear()
                for _, done in taken:
                    done(_failure(error))
                continue
            for rows in written:
                for row in rows:
                    self._note(row)
            full, writer.full = list(writer.full), []
            for each in full:
                self._tasks.spawn("sealing a segment", partial(self._seal, each))
            for (_, done), rows in zip(taken, written, strict=True):
                if rows:
                    done(rows)
                else:
                    late = "the deadline of this commit has passed"
                    done(_failure(ShardRefused(late)))
        self._flushing = False

    def _note(self, row: Row) -> None:
        segment = self._segments.setdefault(row.segment, Segment(row.segment, 0))
        if row.length:
            self.rows.set(row)
            return
        segment.changes += row.span
        done = self.rows.change(row)
        if done is not None:
            before, after = done
            if after.kind == Kind.DELETE != before.kind:
                self._segments[after.segment].dead += after.span
                self._consider()

    async def _seal(self, full: Active) -> None:
        number = full.header.segment
        size = await self._workers.run(self._writer.seal, full)
        segment = self._segments.get(number)
        if segment is not None and size:
            segment.size = size
            self._copiable.add(number)
            self._consider()

    # Reading

    async def fetch(self, row: Row, length: int) -> Buffer:
        """The first bytes of a shard's record, wherever it lies by now.

        Raises ShardMissing, ShardRotten, NodeUnreachable.
        """
        while True:
            try:
                return await self._records.fetch(row, length)
            except ShardMissing:
                now = self.rows.get(row.hash, row.birth)
                if now is None or now.segment == row.segment:
                    raise
                row = now

    def at_hand(self, row: Row, length: int) -> Buffer | None:
        """The same, if it can be had without waiting. Raises ShardMissing."""
        return self._records.at_hand(row, length)

    # Copying

    def _consider(self) -> None:
        if not self._copying and not self._stopped and self._choose():
            self._copying = True
            self._tasks.spawn("copying segments", self._copy_all)

    def _choose(self) -> list[int]:
        """Segments that may be worth copying, the most wasteful first."""
        found = [
            segment
            for number in self._copiable
            if (segment := self._segments[number]).damaged
            or (2 * segment.waste > segment.size and segment.waste != segment.tried)
        ]
        found.sort(key=lambda segment: segment.size - segment.waste)
        return [segment.number for segment in found[:MOST_SOURCES]]

    async def _copy_all(self) -> None:
        try:
            while not self._stopped and await self._copy_some():
                pass
        except ShardError:
            return
        finally:
            self._copying = False

    async def _copy_some(self) -> bool:
        """One round; False when there is nothing to do."""
        writer, folder = self._writer, self._folder
        await self._workers.run(self._remove, self._replaced)
        self._replaced = []
        chosen = self._choose()
        if not chosen or writer is not self._writer:
            return False
        compactor = Compactor(
            folder,
            self._check,
            self._entropy,
            self.rows,
            lambda: not self._stopped and writer is self._writer,
        )
        sources, alive = await self._workers.run(self._examine, compactor, chosen)
        if writer is not self._writer:
            return False
        for segment in alive:
            segment.tried = segment.waste
        if not sources:
            return True
        number = next(writer.numbers)
        copied = await self._workers.run(compactor.copy, number, sources)
        if writer is not self._writer:
            return False
        self._exchange(sources, copied)
        await self._workers.run(self._remove, self._replaced)
        self._replaced = []
        if not copied.shards and not copied.changes:
            self._drop(number)
            await self._workers.run(self._remove, [number])
        return True

    def _examine(
        self, compactor: Compactor, chosen: Sequence[int]
    ) -> tuple[Sequence[Source], Sequence[Segment]]:
        """Those that one copy has room for, and segments that are not worth it."""
        found: list[int] = []
        alive: list[Segment] = []
        room = self._limit
        for number in chosen:
            segment = self._segments[number]
            source = compactor.examine(number, chosen, lossy=True)
            if 2 * source.alive > segment.size and not segment.damaged:
                alive.append(segment)
            elif source.alive <= room or not found:
                found.append(number)
                room -= source.alive
        lossy = any(
            segment.damaged
            for number, segment in list(self._segments.items())
            if number not in found
        )
        return [compactor.examine(each, found, lossy=lossy) for each in found], alive

    def _exchange(self, sources: Sequence[Source], copied: Copied) -> None:
        """The copy is durable: rows lead there from now on."""
        segment = Segment(copied.number, copied.size, copied.changes)
        self._segments[segment.number] = segment
        self._copiable.add(segment.number)
        for row in copied.shards:
            now = self.rows.get(row.hash, row.birth)
            if now is None:
                continue
            kind = row.kind if now.sequence == row.sequence else now.kind
            self.rows.set(
                now._replace(segment=row.segment, offset=row.offset, kind=kind)
            )
            if kind == Kind.DELETE:
                segment.dead += row.span
        for source in sources:
            for row in source.dead:
                self.rows.remove(row)
            self._drop(source.number)
            self._replaced.append(source.number)

    def _drop(self, number: int) -> None:
        self._records.drop(number)
        self._copiable.discard(number)
        del self._segments[number]

    def _remove(self, numbers: Sequence[int]) -> None:
        with on_disk():
            self._folder.remove(list(numbers))

    def _take(self, found: Loaded) -> None:
        self.rows = found.rows
        self.strange = found.strange
        self.erasures += found.erasures
        self._segments = found.segments
        self._copiable = {
            number for number, segment in found.segments.items() if segment.readable
        }
        self._writer.numbers = count(found.last + 1)
        self._writer.sequence = found.sequence + 1
        self.loaded = True
        self._consider()
