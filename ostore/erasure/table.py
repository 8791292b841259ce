"""The stripe table: what a content's stripes are, and the name of that layout."""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_right
from itertools import accumulate

import attrs

from ostore.erasure.checksums import crc32c
from ostore.erasure.geometry import STRIPE, Buffer, Geometry
from ostore.model.errors import ShardRotten
from ostore.model.layouts import Layout

RAW = 0
"""Coding of a stripe that is stored as it is."""

MAX_STORED = STRIPE + 4096
"""The greatest stored length of a stripe: room for what a cipher adds to it."""

UNKNOWN = 0
"""A stripe crc nobody computed: the stripe is vouched for by its block crcs alone.

A stripe whose true crc is 0 (one in 2^32) is treated the same.
"""

ROW = struct.Struct(">IIBI")
"""Raw length, stored length, coding, crc32c of the stored stripe."""

TABLE_HEAD = struct.Struct(">4sBBHI")
"""Magic, k, m, zero, number of rows."""

TABLE_MAGIC = b"OST1"

_CRC = struct.Struct(">I")


def flaw(raw: int, stored: int, coding: int) -> str | None:
    """What makes this stripe impossible, or None."""
    if not 1 <= raw <= STRIPE:
        return f"a stripe has 1 to {STRIPE} raw bytes, not {raw}"
    if not 1 <= stored <= MAX_STORED:
        return f"a stripe has 1 to {MAX_STORED} stored bytes, not {stored}"
    if coding == RAW and raw != stored:
        return f"an uncoded stripe of {raw} bytes cannot be stored in {stored}"
    return None


@attrs.frozen
class Row:
    """One stripe: raw and stored length, coding, crc32c of the stored bytes.

    The crc leaves out the padding of the last block; 0 is unknown.
    """

    raw: int
    stored: int
    coding: int
    crc: int


class Table:
    """All stripes of one content in one layout; never changes.

    Kept packed (13 bytes a stripe, and 8 more once an offset was asked for), so
    that the table of a huge content stays small.
    """

    __slots__ = ("_ends", "_id", "_rows", "geometry")

    def __init__(self, geometry: Geometry, rows: bytes) -> None:
        """`rows` are packed ROWs without a flaw."""
        self.geometry = geometry
        self._rows = rows
        self._ends: array[int] | None = None
        self._id = ""

    def __len__(self) -> int:
        return len(self._rows) // ROW.size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return self.geometry == other.geometry and self._rows == other._rows

    def __hash__(self) -> int:
        return hash((self.geometry, self._rows))

    def row(self, number: int) -> Row:
        """The stripe of that number. Raises IndexError."""
        if not 0 <= number < len(self):
            raise IndexError(f"stripe {number} of {len(self)}")
        return Row(*ROW.unpack_from(self._rows, number * ROW.size))

    @property
    def size(self) -> int:
        """Raw bytes of the content."""
        ends = self._cumulated()
        return ends[-1] if ends else 0

    @property
    def id(self) -> str:
        """The layout id: 32 hex digits, the first half of SHA-256 over head and rows."""
        if not self._id:
            self._id = hashlib.sha256(self._body()).hexdigest()[:32]
        return self._id

    def layout(self) -> Layout:
        """The layout that this table describes."""
        return Layout(self.geometry.data, self.geometry.parity, self.size, self.id)

    def find(self, offset: int) -> tuple[int, int]:
        """The stripe that holds the raw byte at `offset`, and where in it that byte is.

        Raises IndexError outside the content.
        """
        ends = self._cumulated()
        number = bisect_right(ends, offset)
        if offset < 0 or number == len(ends):
            raise IndexError(f"byte {offset} of {self.size}")
        return number, offset - (ends[number - 1] if number else 0)

    def stripes(self, start: int, stop: int) -> tuple[int, int]:
        """The stripes first <= i < end that hold the raw bytes start <= b < stop.

        An empty span gives (0, 0). Raises IndexError outside the content.
        """
        if start >= stop:
            return 0, 0
        return self.find(start)[0], self.find(stop - 1)[0] + 1

    def to_bytes(self) -> bytes:
        """Head, rows and a crc32c over both: the form in which tables travel."""
        body = self._body()
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def from_bytes(cls, data: Buffer) -> Table:
        """Read what to_bytes() gave. Raises ShardRotten."""
        if len(data) < TABLE_HEAD.size + _CRC.size:
            raise ShardRotten("a stripe table is cut short")
        body = memoryview(data)[: -_CRC.size]
        magic, k, m, zero, rows = TABLE_HEAD.unpack_from(body)
        if magic != TABLE_MAGIC or zero:
            raise ShardRotten("a stripe table does not begin like one")
        if crc32c(body) != _CRC.unpack_from(data, len(body))[0]:
            raise ShardRotten("a stripe table differs from its checksum")
        if len(body) != TABLE_HEAD.size + rows * ROW.size:
            raise ShardRotten("a stripe table has not as many rows as it says")
        try:
            builder = TableBuilder(k, m)
            for row in ROW.iter_unpack(body[TABLE_HEAD.size :]):
                builder.append(*row)
            return builder.table()
        except ValueError as error:
            raise ShardRotten(str(error)) from error

    def _body(self) -> bytes:
        cut = self.geometry
        head = TABLE_HEAD.pack(TABLE_MAGIC, cut.data, cut.parity, 0, len(self))
        return head + self._rows

    def _cumulated(self) -> array[int]:
        if self._ends is None:
            raws = (row[0] for row in ROW.iter_unpack(self._rows))
            self._ends = array("Q", accumulate(raws))
        return self._ends


class TableBuilder:
    """Grows the table of a content that is being cut; its user appends in order."""

    __slots__ = ("_geometry", "_rows")

    def __init__(self, k: int, m: int) -> None:
        """Raises ValueError for an impossible geometry."""
        self._geometry = Geometry(k, m)
        self._rows = bytearray()

    def __len__(self) -> int:
        return len(self._rows) // ROW.size

    @property
    def rows(self) -> bytes:
        """What was appended, packed."""
        return bytes(self._rows)

    def append(self, raw: int, stored: int, coding: int, crc: int) -> None:
        """Add the next stripe. Raises ValueError for an impossible one."""
        wrong = flaw(raw, stored, coding)
        if wrong is not None:
            raise ValueError(wrong)
        self._rows += ROW.pack(raw, stored, coding, crc)

    def table(self) -> Table:
        """The table of what was appended so far."""
        return Table(self._geometry, bytes(self._rows))
