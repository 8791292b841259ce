"""Copies what is alive in mostly dead segments into a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ostore.backends.shards.files import ShortRead, on_disk
from ostore.backends.shards.segments.folder import Folder
from ostore.backends.shards.segments.form import (
    BATCH,
    HEADER_SIZE,
    MARK_SIZE,
    RECORD,
    STANDING,
    Batch,
    Flawed,
    Header,
    Index,
    Kind,
    Row,
    pack_record,
    parse_record,
    unpacked,
)
from ostore.backends.shards.segments.loader import contents_of
from ostore.backends.shards.segments.rows import Rows
from ostore.erasure.checksums import crc32c
from ostore.erasure.geometry import Buffer
from ostore.model.errors import NodeUnreachable

PIECE = 1 << 20
"""Bytes of records that are copied at a time."""


@attrs.frozen
class Source:
    """What is alive in one segment, and what is not."""

    number: int
    mark: bytes | None
    shards: Sequence[Row]
    dead: Sequence[Row]
    changes: Sequence[Row]

    @property
    def alive(self) -> int:
        """Bytes that a copy of it takes."""
        return sum(row.span for row in (*self.shards, *self.changes))


@attrs.frozen
class Copied:
    """A new segment in the place of others: where its shards lie, and its size."""

    number: int
    shards: Sequence[Row]
    changes: int
    size: int


class Compactor:
    """Examines and copies segments for one log; blocks, for a worker thread.

    `rows` are the log's, only read here: a change that comes meanwhile is a record of
    its own and stays true of the copy. `going` says whether to go on.
    """

    def __init__(
        self,
        folder: Folder,
        check: Callable[[], None],
        entropy: Callable[[int], bytes],
        rows: Rows,
        going: Callable[[], bool],
    ) -> None:
        self._folder = folder
        self._check = check
        self._entropy = entropy
        self._rows = rows
        self._going = going

    def examine(self, number: int, chosen: Sequence[int], *, lossy: bool) -> Source:
        """What is alive in one of the `chosen` segments.

        A change stays as long as the bytes that it is about are elsewhere and do not
        know of it. With `lossy`, when some segment has lost records, changes of
        unknown shards stay as well: they may be about what was lost.
        """
        with on_disk():
            read = contents_of(self._folder, number)
            alive: list[Row] = []
            dead: list[Row] = []
            for row in unpacked(read.index.shards):
                now = self._rows.get(row.hash, row.birth)
                if now is not None and now.segment == number:
                    (dead if now.kind == Kind.DELETE else alive).append(row)
            changes = [
                change
                for change in unpacked(read.index.changes)
                if self._needed(change, chosen, lossy=lossy)
            ]
        return Source(number, read.mark, alive, dead, changes)

    def copy(self, number: int, sources: Sequence[Source]) -> Copied:
        """Write segment `number`, which replaces the sources, durably.

        Raises NodeUnreachable, NodeFull, RootGone; nothing has changed then.
        """
        header = Header(
            number,
            self._entropy(MARK_SIZE),
            sources=tuple(source.number for source in sources),
        )
        with on_disk():
            self._check()
            fd = self._folder.create(number)
            try:
                output = _Output(self._folder, fd, header)
                for source in sources:
                    self._copy(source, output)
                copied = output.finish()
                self._check()
                if not self._folder.disk.files.fstat(fd).links:
                    raise NodeUnreachable("the segment was removed meanwhile")
                self._folder.keep(number)
            except BaseException:
                self._folder.give_up(number)
                raise
            finally:
                self._folder.disk.files.close(fd)
        return copied

    def _copy(self, source: Source, output: _Output) -> None:
        with self._folder.opened(source.number) as fd:
            for row in sorted(source.shards, key=lambda row: row.offset):
                if not self._going():
                    raise NodeUnreachable("the node is stopping")
                now = self._rows.get(row.hash, row.birth)
                if now is not None:
                    output.add(now, *self._payload(fd, now, source.mark))
        for change in source.changes:
            output.add(change, b"", 0)

    def _payload(self, fd: int, row: Row, mark: bytes | None) -> tuple[bytes, int]:
        """A record's bytes, rotten ones too, and the crc that it was written with."""
        try:
            data = self._folder.disk.files.pread(fd, row.span, row.offset)
        except ShortRead:
            return bytes(row.length), 0
        payload = data[RECORD.size :]
        try:
            found, crc = parse_record(data[: RECORD.size], mark or b"", row.offset)
        except Flawed:
            return payload, crc32c(payload)
        return payload, crc if found.birth == row.birth else crc32c(payload)

    def _needed(self, change: Row, chosen: Sequence[int], *, lossy: bool) -> bool:
        now = self._rows.get(change.hash, change.birth)
        if now is None:
            return lossy
        if now.sequence != change.sequence or now.segment in chosen:
            return False
        with self._folder.opened(now.segment) as fd:
            try:
                head = self._folder.disk.files.pread(fd, RECORD.size, now.offset)
                known, _ = parse_record(head, head[:MARK_SIZE], now.offset)
            except (ShortRead, Flawed):
                return True
        return known.birth != change.birth or known.sequence < change.sequence


class _Output:
    """The new segment while it is being written."""

    def __init__(self, folder: Folder, fd: int, header: Header) -> None:
        self._disk = folder.disk
        self._fd = fd
        self._header = header
        self._end = HEADER_SIZE
        self._parts: list[Buffer] = []
        self._length = 0
        self._records = 0
        self._rows: list[Row] = []
        self._disk.files.pwrite(fd, [header.to_bytes()], 0)

    def add(self, row: Row, payload: bytes, crc: int) -> None:
        """Append a record that says of its shard what `row` says."""
        kind = row.kind
        if kind in STANDING and payload and crc32c(payload) != crc:
            kind = Kind.BAD
        row = row._replace(
            segment=self._header.segment,
            offset=self._end + BATCH.size + self._length,
            kind=kind,
        )
        self._parts += (pack_record(row, self._header.mark, crc), payload)
        self._length += row.span
        self._records += 1
        self._rows.append(row)
        if self._length >= PIECE:
            self._flush()

    def finish(self) -> Copied:
        """Write the index, and make all of it durable."""
        self._flush()
        number = self._header.segment
        index = Index.of(self._rows)
        trailer, at = index.trailer(number, self._header.mark, self._end)
        self._disk.files.pwrite(self._fd, [trailer], at)
        self._disk.sync(self._fd)
        shards = [row for row in self._rows if row.length]
        changes = (len(self._rows) - len(shards)) * RECORD.size
        return Copied(number, shards, changes, at + len(trailer))

    def _flush(self) -> None:
        if not self._records:
            return
        header = self._header
        batch = Batch(header.segment, self._records, self._length, self._end, self._end)
        parts = [batch.to_bytes(header.mark), *self._parts]
        self._disk.files.pwrite(self._fd, [b"".join(parts)], self._end)
        self._end += BATCH.size + self._length
        self._parts, self._length, self._records = [], 0, 0
