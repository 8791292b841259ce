"""What a start does: every segment's rows into memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import attrs

from ostore.backends.shards.files import Files, ShortRead, on_disk
from ostore.backends.shards.segments.folder import Folder
from ostore.backends.shards.segments.form import (
    BATCH,
    FOOTER,
    HEADER_SIZE,
    RECORD,
    ROW,
    Batch,
    Flawed,
    Footer,
    Header,
    Index,
    unpacked,
)
from ostore.backends.shards.segments.rows import Rows
from ostore.backends.shards.segments.scanner import Scanner
from ostore.erasure.checksums import crc32c
from ostore.erasure.geometry import Buffer


@attrs.define
class Segment:
    """What the log keeps of a segment that is not being written any more.

    `dead` are bytes of records known to be of no use, `changes` bytes of changes,
    `damaged`: something in it is lost, or its ends are; not `readable`: all is.
    """

    number: int
    size: int
    changes: int = 0
    dead: int = 0
    damaged: bool = False
    readable: bool = True
    tried: int = -1
    """The waste when copying was last found not to pay."""

    @property
    def waste(self) -> int:
        """Bytes that copying may save, at most."""
        return self.dead + self.changes


class Loaded:
    """What load() found; it is filled one segment after the other."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.segments: dict[int, Segment] = {}
        self.last = 0
        """The greatest number of a segment."""
        self.sequence = 0
        """The greatest number of a record."""
        self.strange = 0
        self.erasures = 0
        self._doubtful: list[Buffer] = []
        self._changes: list[Buffer] = []

    def add(self, segment: Segment, read: Contents) -> None:
        """Take in a segment's rows."""
        index = read.index
        segment.changes = len(index.changes) // ROW.size * RECORD.size
        self.segments[segment.number] = segment
        self.sequence = max(self.sequence, index.sequence)
        self.erasures += read.erasures
        self._changes.append(bytes(index.changes))
        if segment.damaged:
            self._doubtful.append(index.shards)
            return
        self.rows.load(bytes(index.shards))

    def settle(self) -> None:
        """All segments are in: let their changes happen, and count."""
        self.rows.settle()
        for rows in self._doubtful:
            for row in unpacked(rows):
                if self.rows.get(row.hash, row.birth) is None:
                    self.rows.set(row)
        for rows in self._changes:
            for change in unpacked(rows):
                self.rows.change(change)
        for row in self.rows.settle():
            self.segments[row.segment].dead += row.span
        self._doubtful.clear()
        self._changes.clear()


@attrs.frozen
class Contents:
    """The rows of one segment, and what was lost of it.

    `sealed`: it has an index, which is right. `damaged`: something is lost, or its
    ends.
    """

    index: Index
    sealed: bool
    damaged: bool
    erasures: int = 0
    end: int = 0
    mark: bytes | None = None


def load(folder: Folder, check: Callable[[], None]) -> Loaded:
    """Read all segments, sealing those that have no index; blocks.

    Unfinished ones are removed, and those that another one replaces. Raises
    NodeUnreachable, RootGone.
    """
    found = Loaded()
    with on_disk():
        numbers, left, found.strange = folder.names()
        if not numbers:
            check()
        for path in left:
            folder.disk.drop(path)
        headers = {number: _header(folder, number) for number in numbers}
        known = [header for header in headers.values() if header is not None]
        replaced = {source for header in known for source in header.sources}
        folder.remove([number for number in numbers if number in replaced])
        found.last = max((0, *numbers, *replaced))
        ends = {header.before: header.before_end for header in known}
        for number in numbers:
            if number not in replaced:
                _take(found, folder, number, headers[number], ends.get(number))
        found.settle()
    return found


def contents_of(folder: Folder, number: int) -> Contents:
    """The rows of a segment. Raises OSError."""
    header = _header(folder, number)
    with folder.opened(number) as fd:
        return _contents(folder.disk.files, fd, number, header)


def _take(
    found: Loaded, folder: Folder, number: int, header: Header | None, end: int | None
) -> None:
    files = folder.disk.files
    with folder.opened(number, os.O_RDWR) as fd:
        read = _contents(files, fd, number, header, end)
        if not read.sealed and not read.damaged and header is not None:
            if read.end == HEADER_SIZE:
                folder.remove([number])
                return
            _seal(folder, fd, header, read)
        size = files.fstat(fd).size
    found.add(
        Segment(number, size, damaged=read.damaged, readable=read.mark is not None),
        read,
    )


def _contents(
    files: Files,
    fd: int,
    number: int,
    header: Header | None,
    known_end: int | None = None,
) -> Contents:
    """`known_end` is where the segment behind says that this one was given up.

    What was written there later was never acknowledged, and counts for nothing.
    """
    synced = known_end or 0
    size = files.fstat(fd).size
    footer = _footer(files, fd, number, size)
    if footer is not None:
        index = memoryview(_pread(files, fd, footer.index_length, footer.index_offset))
        if crc32c(index) == footer.index_crc:
            at = footer.shards * ROW.size
            rows = Index(index[:at], index[at:], footer.sequence)
            damaged = header is None
            return Contents(rows, sealed=True, damaged=damaged, mark=footer.mark)
        synced = max(synced, footer.end)
    marks = [each.mark for each in (header, footer) if each is not None]
    mark = marks[0] if marks else _first_mark(files, fd, size)
    if mark is None:
        return Contents(Index.of(()), sealed=False, damaged=True, erasures=1)
    scanned = Scanner(files, fd, number, mark).run(synced)
    valid = scanned.rows
    if known_end is not None:
        valid = [row for row in valid if row.offset < known_end]
    return Contents(
        Index.of(valid),
        sealed=False,
        damaged=header is None or footer is not None or scanned.erasures > 0,
        erasures=scanned.erasures,
        end=scanned.end,
        mark=mark,
    )


def _seal(folder: Folder, fd: int, header: Header, read: Contents) -> None:
    """Write the index that a crash prevented, behind everything that was written."""
    folder.disk.sync(fd)
    trailer, at = read.index.trailer(header.segment, header.mark, read.end)
    folder.disk.files.pwrite(fd, [trailer], at)
    folder.disk.files.truncate(fd, at + len(trailer))
    folder.disk.sync(fd)


def _header(folder: Folder, number: int) -> Header | None:
    with folder.opened(number) as fd:
        files = folder.disk.files
        size = min(files.fstat(fd).size, HEADER_SIZE)
        try:
            header = Header.from_bytes(_pread(files, fd, size, 0))
        except Flawed:
            return None
    return header if header.segment == number else None


def _footer(files: Files, fd: int, number: int, size: int) -> Footer | None:
    length = min(FOOTER.size, size)
    try:
        footer = Footer.from_bytes(_pread(files, fd, length, size - length), size)
    except Flawed:
        return None
    return footer if footer.segment == number else None


def _first_mark(files: Files, fd: int, size: int) -> bytes | None:
    length = max(0, min(BATCH.size, size - HEADER_SIZE))
    try:
        mark, _ = Batch.from_bytes(_pread(files, fd, length, HEADER_SIZE))
    except Flawed:
        return None
    return mark


def _pread(files: Files, fd: int, length: int, offset: int) -> bytes:
    try:
        return files.pread(fd, length, offset)
    except ShortRead as error:
        raise OSError(errno.EIO, "a segment is being cut") from error
