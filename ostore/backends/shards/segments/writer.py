"""The newest segment: batches are appended to it, each with one write and one sync."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from itertools import count, islice

import attrs
from twisted.python.failure import Failure

from ostore.backends.shards.files import FULL, on_disk
from ostore.backends.shards.segments.folder import Folder
from ostore.backends.shards.segments.form import (
    BATCH,
    HEADER_SIZE,
    MARK_SIZE,
    RECORD,
    Batch,
    Header,
    Index,
    Row,
    pack_record,
)
from ostore.erasure.checksums import crc32c
from ostore.erasure.geometry import Buffer
from ostore.model.errors import NodeUnreachable

LIMIT = 64 << 20
"""Bytes of batches after which a segment is sealed."""

RECORDS = 1 << 16
"""The same in records."""

EXTENT = 4 << 20
"""Most zeros written ahead of the batches, so that a sync need not grow the file."""

FIRST_EXTENT = 64 << 10
"""Zeros ahead of the first batch; later as many as were written, up to EXTENT."""

GATHERED = 64 << 10
"""Bytes of a batch from which the kernel gathers it from where it lies."""

PARTS = 512
"""Most parts that it is given; it takes 1024."""


@attrs.frozen
class Entry:
    """A record to be written: a row without its place, and a shard file's parts.

    With a birth of 0 it is a new shard.
    """

    row: Row
    parts: Sequence[Buffer] = ()

    @property
    def length(self) -> int:
        """Bytes of all parts."""
        return sum(map(len, self.parts))


@attrs.frozen
class Group:
    """Records that are written together or not at all.

    Nothing is written behind the `deadline` (seconds since 1970).
    """

    entries: Sequence[Entry]
    deadline: float | None = None

    @property
    def length(self) -> int:
        """Bytes of the records."""
        return sum(RECORD.size + each.length for each in self.entries)


Done = Callable[[Sequence[Row] | Failure], None]
"""Gets the rows of records that are durable, or why they are not."""

Waiting = tuple[Group, Done]

BATCH_BYTES = 4 << 20
"""Bytes of records after which a batch is full."""


@attrs.define
class Active:
    """A segment that is being written."""

    header: Header
    fd: int
    end: int = HEADER_SIZE
    synced: int = HEADER_SIZE
    room: int = HEADER_SIZE
    rows: bytearray = attrs.field(factory=bytearray)
    records: int = 0


class Writer:
    """Appends for one log; blocks, for one worker thread at a time.

    It begins a segment with the first record after a start, after a full one and after
    any failure: what failed is never written to again. Full ones wait in `full` to be
    sealed. Raises NodeUnreachable and NodeFull, and RootGone by way of `check`.
    """

    def __init__(
        self,
        folder: Folder,
        check: Callable[[], None],
        entropy: Callable[[int], bytes],
        wall: Callable[[], float],
        limit: int = LIMIT,
    ) -> None:
        self.numbers = count(1)
        """The numbers that new segments get."""
        self.sequence = 1
        """The number that the next record gets."""
        self.full: MutableSequence[Active] = []
        self._folder = folder
        self._check = check
        self._entropy = entropy
        self._wall = wall
        self._limit = limit
        self._active: Active | None = None
        self._before = (0, 0)

    @property
    def active(self) -> int:
        """The segment that is being written; 0 for none."""
        return self._active.header.segment if self._active is not None else 0

    def write(self, groups: Sequence[Group]) -> list[list[Row]]:
        """Write one batch; when this returns its records are durable.

        Of a group that comes too late there are no rows.
        """
        now = self._wall()
        late = [g.deadline is not None and now > g.deadline for g in groups]
        entries = [
            each
            for group, refused in zip(groups, late, strict=True)
            for each in (() if refused else group.entries)
        ]
        try:
            with on_disk():
                rows = iter(self._write(entries) if entries else ())
        except BaseException:
            self.close()
            raise
        return [
            [] if refused else list(islice(rows, len(group.entries)))
            for group, refused in zip(groups, late, strict=True)
        ]

    def seal(self, full: Active) -> int:
        """Write the index of a full segment; gives its length, 0 when that failed.

        Without an index the next start has to read it through.
        """
        header, files = full.header, self._folder.disk.files
        try:
            index = Index.of_packed(full.rows)
            trailer, at = index.trailer(header.segment, header.mark, full.end)
            files.pwrite(full.fd, [trailer], at)
            files.truncate(full.fd, at + len(trailer))
            self._folder.disk.sync(full.fd)
            return at + len(trailer)
        except OSError:
            return 0
        finally:
            self._close(full.fd)

    def close(self) -> None:
        """End the active segment without an index, for good."""
        active, self._active = self._active, None
        if active is not None:
            self._before = (active.header.segment, active.synced)
            self._close(active.fd)

    def finish(self) -> None:
        """End the active segment with its index: the log stops."""
        active, self._active = self._active, None
        if active is not None:
            self.seal(active)

    def _write(self, entries: Sequence[Entry]) -> list[Row]:
        length = sum(RECORD.size + each.length for each in entries)
        active = self._room(length + BATCH.size, len(entries))
        rows, parts = self._pack(active, entries, length)
        self._extend(active, active.end + BATCH.size + length)
        disk = self._folder.disk
        if length < GATHERED or len(parts) > PARTS:
            parts = [b"".join(parts)]
        disk.files.pwrite(active.fd, parts, active.end)
        disk.sync_data(active.fd)
        self._check()
        if not disk.files.fstat(active.fd).links:
            raise NodeUnreachable("the segment was removed meanwhile")
        active.end += BATCH.size + length
        active.synced = active.end
        active.records += len(rows)
        for row in rows:
            active.rows += row.packed()
        return rows

    def _pack(
        self, active: Active, entries: Sequence[Entry], length: int
    ) -> tuple[list[Row], list[Buffer]]:
        header = active.header
        batch = Batch(header.segment, len(entries), length, active.end, active.synced)
        parts: list[Buffer] = [batch.to_bytes(header.mark)]
        at = active.end + BATCH.size
        rows = []
        for each in entries:
            row = each.row
            row = row._replace(
                sequence=self.sequence,
                birth=row.birth or self.sequence,
                segment=header.segment,
                offset=at,
                length=each.length,
            )
            self.sequence += 1
            crc = 0
            for part in each.parts:
                crc = crc32c(part, crc)
            parts += (pack_record(row, header.mark, crc), *each.parts)
            at += row.span
            rows.append(row)
        return rows, parts

    def _room(self, length: int, records: int) -> Active:
        active = self._active
        if active is not None and (
            active.end + length > self._limit or active.records + records > RECORDS
        ):
            self.full.append(active)
            self._before = (active.header.segment, active.synced)
            self._active = active = None
        if active is None:
            self._active = active = self._begin()
        return active

    def _begin(self) -> Active:
        """A new segment, its name and header durable."""
        number = next(self.numbers)
        header = Header(number, self._entropy(MARK_SIZE), *self._before)
        self._check()
        fd = self._folder.create(number)
        try:
            self._folder.disk.files.pwrite(fd, [header.to_bytes()], 0)
            active = Active(header, fd)
            self._extend(active, HEADER_SIZE + 1)
            self._folder.disk.sync(fd)
            self._folder.keep(number)
        except BaseException:
            self._close(fd)
            self._folder.give_up(number)
            raise
        return active

    def _extend(self, active: Active, need: int) -> None:
        """Zeros ahead, where there is room for them."""
        if need <= active.room:
            return
        length, active.room = need - active.end, need
        if length > FIRST_EXTENT:  # the bytes cost more than a length that changes
            return
        more = min(EXTENT, max(FIRST_EXTENT, need))
        try:
            self._folder.disk.files.pwrite(active.fd, [bytes(more)], need)
        except OSError as error:
            if error.errno not in FULL:
                raise
        else:
            active.room += more

    def _close(self, fd: int) -> None:
        with suppress(OSError):
            self._folder.disk.files.close(fd)


def write_waiting(
    writer: Writer, queue: deque[Waiting], taken: MutableSequence[Waiting]
) -> list[list[Row]]:
    """Write what waits by the time that a worker comes to it; a worker's work."""
    length = 0
    with suppress(IndexError):  # the log may begin anew meanwhile
        while not taken or length + queue[0][0].length <= BATCH_BYTES:
            taken.append(queue.popleft())
            length += taken[-1][0].length
    return writer.write([group for group, _ in taken])
