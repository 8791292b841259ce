"""The bytes of a segment: header, batches of records, index and footer.

Pure functions over bytes, described in docs/shard-format.md. What does not hold
together when it is read raises Flawed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

import attrs

from ostore.erasure.checksums import crc32c
from ostore.erasure.geometry import Buffer
from ostore.model.layouts import Layout, ShardFacts, ShardKey

HEADER_SIZE = 4096
"""Bytes before the first batch."""

MARK_SIZE = 8
MAX_SOURCES = 256
"""Most segments that one may replace."""

VERSION = 1

HEADER = struct.Struct(">8sHHIQ8sQQ")
"""Magic, version, zero, number of sources, segment, mark, and of the segment before:
its number and the end of what was synced there. Sources follow, the crc ends it."""
BATCH = struct.Struct(">8s4sIIQQQI")
"""Mark, tag, records, their bytes, segment, own offset, synced up to, crc."""
RECORD = struct.Struct(">8s4sQQQd32s16sBBBBIIII")
"""Mark, tag, segment, sequence, birth, time, hash, layout, index, k, m, kind, size,
payload bytes, payload crc, crc."""
ROW = struct.Struct(">32s16sQQdIIIIBBBB")
"""Hash, layout, birth, sequence, time, segment, offset, payload bytes, size, index, k,
m, kind."""
_LENGTH = slice(80, 84)
"""Where in a row its payload's length stands."""
FOOTER = struct.Struct(">8sQ8sQIIQQII8s")
"""Magic, segment, mark, end of the batches, shards, changes, offset of the index,
greatest sequence, index crc, crc, magic."""

_CRC = struct.Struct(">I")
_MAGIC = b"\x89oseg01\n"
_END = b"oseg\x89\r\n\n"
_BATCH_TAG = b"oBat"
_RECORD_TAG = b"oRec"


class Flawed(Exception):
    """These bytes are not what they should be."""


class Kind(IntEnum):
    """What a record does to its shard, and so what the shard is afterwards."""

    PUT = 1
    RENEW = 2
    RESTORE = 3
    BAD = 4
    GARBAGE = 5
    DELETE = 6


_KINDS = frozenset(Kind)
_STATES: Mapping[int, str] = {Kind.BAD: "bad", Kind.GARBAGE: "garbage"}
STANDING = frozenset({Kind.PUT, Kind.RENEW, Kind.RESTORE, Kind.BAD})
"""A shard whose last record is one of these bears its name."""


class Row(NamedTuple):
    """A shard as memory and index know it, or in an index a change to one.

    `birth` is the sequence of its put, `sequence` that of the last record about it,
    `time` its beginning of age (seconds since 1970). A change has `length` 0.
    """

    hash: bytes
    layout: bytes
    birth: int
    sequence: int
    time: float
    segment: int
    offset: int
    length: int
    size: int
    number: int
    data: int
    parity: int
    kind: int

    @property
    def key(self) -> ShardKey:
        """The shard's name."""
        return ShardKey(self.hash.hex(), self.number, self.layout.hex())

    @property
    def name(self) -> tuple[bytes, bytes, int]:
        """The same, packed."""
        return self.hash, self.layout, self.number

    @property
    def span(self) -> int:
        """Bytes of the whole record."""
        return RECORD.size + self.length

    def facts(self, now: float) -> ShardFacts:
        """What a node says of it at the time `now` on the wall."""
        layout = Layout(self.data, self.parity, self.size, self.layout.hex())
        state = _STATES.get(self.kind, "whole")
        age = max(0.0, now - self.time)
        return ShardFacts(self.hash.hex(), self.number, layout, self.span, age, state)

    def packed(self) -> bytes:
        """ROW.size bytes."""
        return ROW.pack(*self)


@attrs.frozen
class Header:
    """What a segment begins with.

    `sources` are segments that this one replaces. Of the segment `before`, everything
    below `before_end` was synced.
    """

    segment: int
    mark: bytes
    before: int = 0
    before_end: int = 0
    sources: tuple[int, ...] = ()

    def to_bytes(self) -> bytes:
        """HEADER_SIZE bytes."""
        head = HEADER.pack(
            _MAGIC,
            VERSION,
            0,
            len(self.sources),
            self.segment,
            self.mark,
            self.before,
            self.before_end,
        )
        names = struct.pack(f">{len(self.sources)}Q", *self.sources)
        body = (head + names).ljust(HEADER_SIZE - _CRC.size, b"\0")
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def from_bytes(cls, data: Buffer) -> Header:
        """Read the first HEADER_SIZE bytes. Raises Flawed."""
        view = memoryview(data)
        if len(view) != HEADER_SIZE:
            raise Flawed("a segment is too short for its header")
        body = view[: -_CRC.size]
        magic, version, zero, count, segment, mark, before, end = HEADER.unpack_from(
            body
        )
        if magic != _MAGIC or crc32c(body) != _CRC.unpack(view[-_CRC.size :])[0]:
            raise Flawed("a segment does not begin like one")
        if version != VERSION or zero or count > MAX_SOURCES:
            raise Flawed("a segment of an unknown version")
        sources = struct.unpack_from(f">{count}Q", body, HEADER.size)
        return cls(segment, mark, before, end, sources)


@attrs.frozen
class Batch:
    """What stands before the records that were written at one time."""

    segment: int
    records: int
    length: int
    offset: int
    synced: int

    def to_bytes(self, mark: bytes) -> bytes:
        """BATCH.size bytes."""
        plain = BATCH.pack(
            mark,
            _BATCH_TAG,
            self.records,
            self.length,
            self.segment,
            self.offset,
            self.synced,
            0,
        )[: -_CRC.size]
        return plain + _CRC.pack(crc32c(plain))

    @classmethod
    def from_bytes(cls, data: Buffer, mark: bytes | None = None) -> tuple[bytes, Batch]:
        """The mark, which has to be that one if any is given, and the rest.

        Raises Flawed.
        """
        if len(data) != BATCH.size:
            raise Flawed("a batch is cut short")
        found, tag, records, length, segment, offset, synced, crc = BATCH.unpack(data)
        if tag != _BATCH_TAG or mark not in (None, found):
            raise Flawed("no batch begins here")
        if crc32c(memoryview(data)[: -_CRC.size]) != crc:
            raise Flawed("a batch differs from its checksum")
        return found, cls(segment, records, length, offset, synced)


def pack_record(row: Row, mark: bytes, payload_crc: int) -> bytes:
    """The head of a row's record, RECORD.size bytes; its payload follows."""
    plain = RECORD.pack(
        mark,
        _RECORD_TAG,
        row.segment,
        row.sequence,
        row.birth,
        row.time,
        row.hash,
        row.layout,
        row.number,
        row.data,
        row.parity,
        row.kind,
        row.size,
        row.length,
        payload_crc,
        0,
    )[: -_CRC.size]
    return plain + _CRC.pack(crc32c(plain))


def parse_record(data: Buffer, mark: bytes, offset: int) -> tuple[Row, int]:
    """The row of a record whose head lies at `offset`, and its payload's crc.

    Raises Flawed.
    """
    if len(data) != RECORD.size:
        raise Flawed("a record is cut short")
    (
        found,
        tag,
        segment,
        sequence,
        birth,
        time,
        hash,
        layout,
        index,
        k,
        m,
        kind,
        size,
        length,
        payload_crc,
        crc,
    ) = RECORD.unpack(data)
    if found != mark or tag != _RECORD_TAG:
        raise Flawed("no record begins here")
    if crc32c(memoryview(data)[: -_CRC.size]) != crc or kind not in _KINDS:
        raise Flawed("a record differs from its checksum")
    row = Row(
        hash,
        layout,
        birth,
        sequence,
        time,
        segment,
        offset,
        length,
        size,
        index,
        k,
        m,
        kind,
    )
    return row, payload_crc


@attrs.frozen
class Footer:
    """The end of a sealed segment: where its index lies.

    The index is `shards` rows in hash order, then `changes` rows, for shards of other
    segments. `end` is where the last batch ends.
    """

    segment: int
    mark: bytes
    end: int
    shards: int
    changes: int
    index_offset: int
    sequence: int
    index_crc: int

    @property
    def index_length(self) -> int:
        """Bytes of the index."""
        return (self.shards + self.changes) * ROW.size

    def to_bytes(self) -> bytes:
        """FOOTER.size bytes."""
        plain = FOOTER.pack(_MAGIC, *attrs.astuple(self), 0, _END)
        signed = plain[: -_CRC.size - len(_END)]
        return signed + _CRC.pack(crc32c(signed)) + _END

    @classmethod
    def from_bytes(cls, data: Buffer, file_size: int) -> Footer:
        """Read the last FOOTER.size bytes of a file of `file_size`. Raises Flawed."""
        if len(data) != FOOTER.size:
            raise Flawed("a segment is too short for its footer")
        magic, *fields, crc, end = FOOTER.unpack(data)
        signed = memoryview(data)[: -_CRC.size - len(_END)]
        if magic != _MAGIC or end != _END or crc32c(signed) != crc:
            raise Flawed("a segment does not end like a sealed one")
        found = cls(*fields)
        if found.index_offset + found.index_length + FOOTER.size != file_size:
            raise Flawed("a segment has not the length that its footer says")
        return found


@attrs.frozen
class Index:
    """What a segment's records come to: packed rows in hash order.

    `shards` are those whose bytes it has, `changes` concern shards of other segments.
    """

    shards: Buffer
    changes: Buffer
    sequence: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Index:
        """That of these records, in the order in which they were written."""
        shards: dict[int, bytes] = {}
        changes: dict[int, bytes] = {}
        greatest = 0
        for row in rows:
            greatest = max(greatest, row.sequence)
            known = shards if row.length or row.birth in shards else changes
            before = None if row.length else known.get(row.birth)
            if before is not None:
                (standing,) = unpacked(before)
                row = changed(standing, row)  # noqa: PLW2901 - what it comes to
            known[row.birth] = row.packed()
        return cls(_in_order(shards.values()), _in_order(changes.values()), greatest)

    @classmethod
    def of_packed(cls, rows: bytearray) -> Index:
        """The same of packed ones, with less memory where no change is among them.

        All nodes of a process may seal a segment of 65,536 records at once.
        """
        size = ROW.size
        cut = [bytes(rows[at : at + size]) for at in range(0, len(rows), size)]
        if not cut or any(row[_LENGTH] == bytes(4) for row in cut):
            return cls.of(unpacked(rows))
        (last,) = unpacked(cut[-1])
        return cls(_in_order(cut), b"", last.sequence)

    def trailer(self, segment: int, mark: bytes, end: int) -> tuple[bytes, int]:
        """Index and footer of a segment, and the offset at which they belong."""
        index = b"".join((self.shards, self.changes))
        at = aligned(end)
        footer = Footer(
            segment,
            mark,
            end,
            len(self.shards) // ROW.size,
            len(self.changes) // ROW.size,
            at,
            self.sequence,
            crc32c(index),
        )
        return index + footer.to_bytes(), at


def unpacked(rows: Buffer) -> Iterator[Row]:
    """The rows in packed ones."""
    return map(Row._make, ROW.iter_unpack(rows))


def changed(row: Row, change: Row) -> Row:
    """What a change makes of a shard's row; an older one changes nothing."""
    if change.sequence <= row.sequence:
        return row
    return row._replace(sequence=change.sequence, time=change.time, kind=change.kind)


def _in_order(rows: Iterable[bytes]) -> bytes:
    """Packed rows by hash and birth."""
    ordered: list[bytes] = sorted(rows, key=lambda row: row[:32] + row[48:56])
    return b"".join(ordered)


def aligned(offset: int) -> int:
    """The offset, or the next one behind it that is a multiple of 8."""
    return -(-offset // 8) * 8
