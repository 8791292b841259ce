"""Reads a segment through, when it has no index or a damaged one."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ostore.backends.shards.files import Files
from ostore.backends.shards.segments.form import (
    BATCH,
    HEADER_SIZE,
    MARK_SIZE,
    RECORD,
    STANDING,
    Batch,
    Flawed,
    Kind,
    Row,
    parse_record,
)
from ostore.erasure.checksums import crc32c

PIECE = 1 << 20
"""Bytes read at a time."""


@attrs.frozen
class Scanned:
    """What a segment was found to hold.

    `erasures` counts records that were synced once and are damaged now; those of which
    the head is right are among `rows`, as bad ones. A torn batch counts for nothing.
    """

    rows: Sequence[Row]
    end: int
    erasures: int


class Scanner:
    """One pass over one open segment; blocks. Raises OSError.

    Client bytes are never taken for records: each of these begins with the segment's
    mark, which is random and known to nobody else.
    """

    def __init__(self, files: Files, fd: int, segment: int, mark: bytes) -> None:
        self._files = files
        self._fd = fd
        self._segment = segment
        self._mark = mark
        self._size = files.fstat(fd).size
        self._piece = b""
        self._piece_at = 0
        self._synced = HEADER_SIZE
        self._rows: list[Row] = []
        self._damaged: list[tuple[int, Row | None]] = []

    def run(self, synced: int = 0) -> Scanned:
        """Read it all; `synced` is what others know to have been synced here."""
        self._synced = max(self._synced, synced)
        at = end = HEADER_SIZE
        while at < self._size:
            after = self._item(at)
            if after:
                at = end = after
                continue
            found = self._find(at + 1)
            if self._anything(at, found):
                self._damaged.append((at, None))
                end = found if found < self._size else self._last(at) + 1
            at = found
        lost = [(o, row) for o, row in self._damaged if o < self._synced]
        self._rows += (row for _, row in lost if row is not None)
        self._rows.sort(key=lambda row: row.offset)
        return Scanned(self._rows, end, len(lost))

    def _item(self, at: int) -> int:
        """The end of the batch head or record that begins here; 0 without one."""
        head = self._bytes(at, max(BATCH.size, RECORD.size))
        if head[:MARK_SIZE] != self._mark:
            return 0
        try:
            _, batch = Batch.from_bytes(head[: BATCH.size], self._mark)
        except Flawed:
            return self._record(at, head)
        if batch.segment == self._segment and batch.offset == at:
            self._synced = max(self._synced, batch.synced)
            return at + BATCH.size
        return 0

    def _record(self, at: int, head: bytes) -> int:
        try:
            row, crc = parse_record(head[: RECORD.size], self._mark, at)
        except Flawed:
            return 0
        if row.segment != self._segment:
            return 0
        payload = self._bytes(at + RECORD.size, row.length)
        if len(payload) == row.length and crc32c(payload) == crc:
            self._rows.append(row)
        elif at + row.span > self._size:
            return 0
        else:
            kind = Kind.BAD if row.kind in STANDING else row.kind
            self._damaged.append((at, row._replace(kind=kind)))
        return at + row.span

    def _find(self, at: int) -> int:
        """Where the mark stands next; the end of the file without one."""
        while at < self._size:
            data = self._bytes(at, PIECE)
            found = data.find(self._mark)
            if found >= 0:
                return at + found
            if at + len(data) >= self._size:
                break
            at += len(data) - MARK_SIZE + 1
        return self._size

    def _anything(self, at: int, stop: int) -> bool:
        while at < stop:
            data = self._bytes(at, min(PIECE, stop - at))
            if data.count(0) != len(data):
                return True
            at += len(data)
        return False

    def _last(self, at: int) -> int:
        """The last byte from `at` on that is not zero."""
        last = at
        while at < self._size:
            data = self._bytes(at, PIECE)
            kept = len(data.rstrip(b"\0"))
            if kept:
                last = at + kept - 1
            at += len(data)
        return last

    def _bytes(self, at: int, length: int) -> bytes:
        """What is there of these bytes."""
        length = max(0, min(length, self._size - at))
        start = at - self._piece_at
        if start < 0 or start + length > len(self._piece):
            more = min(max(PIECE, length), self._size - at)
            self._piece, self._piece_at, start = (
                self._files.pread(self._fd, more, at),
                at,
                0,
            )
        return self._piece[start : start + length]
