"""The shard file: prologue, frames, an index of them, a footer that names the shard.

Pure functions over bytes; what grows while a file is written is in draft.py. The bytes
are described in docs/shard-format.md. What does not hold together when it is read
raises ShardRotten.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

import attrs

from ostore.erasure.checksums import crc32c
from ostore.erasure.framing import FRAME_HEADER, Frame, FrameHeader
from ostore.erasure.geometry import STRIPE, Buffer, Geometry
from ostore.erasure.table import Table, TableBuilder
from ostore.model.errors import ShardRefused, ShardRotten
from ostore.model.layouts import Layout, ShardKey

VERSION = 1

PROLOGUE_STRUCT = struct.Struct(">8sHHI")
INDEX_ROW = struct.Struct(">IIBIIIQ")
"""A row of the stripe table, then block crc, block length, offset of the frame."""
FOOTER = struct.Struct(">32sQ16sBBBBIQIQI8s")
"""Hash, size, layout id, k, m, index, version, frames, index offset, index crc, block
bytes, crc of all before, magic."""

_MAGIC = b"\x89ostore\n"
_END = b"ostore\x89\n"
_CRC = struct.Struct(">I")
_HASH = re.compile("[0-9a-f]{64}")
_SIGNED = FOOTER.size - _CRC.size - len(_END)


def _prologue() -> bytes:
    plain = PROLOGUE_STRUCT.pack(_MAGIC, VERSION, 0, 0)[: -_CRC.size]
    return plain + _CRC.pack(crc32c(plain))


PROLOGUE = _prologue()
"""The bytes that every shard file begins with."""

FOOTER_SIZE = FOOTER.size


def check_prologue(data: Buffer) -> None:
    """Compare the first len(PROLOGUE) bytes of a file. Raises ShardRotten."""
    if data != PROLOGUE:
        raise ShardRotten("a shard file does not begin like one of version 1")


@attrs.frozen
class Footer:
    """The end of a shard file: what it is, and where its index lies."""

    key: ShardKey
    layout: Layout
    frames: int
    block_bytes: int
    index_offset: int
    index_crc: int

    @property
    def index_length(self) -> int:
        """Bytes of the index."""
        return self.frames * INDEX_ROW.size


class ShardIndex:
    """Where the frames of one shard file lie; one is held for each open shard."""

    __slots__ = ("_rows", "table")

    def __init__(self, table: Table, rows: bytes) -> None:
        """`rows` are packed INDEX_ROWs that agree with `table`: see parse_index()."""
        self.table = table
        self._rows = rows

    def __len__(self) -> int:
        return len(self.table)

    def frame_span(self, number: int) -> tuple[int, int]:
        """Offset in the file, and length of header and block. Raises IndexError."""
        *_, length, offset = self._row(number)
        return offset, FRAME_HEADER.size + length

    def block_offset(self, number: int) -> int:
        """Bytes of the blocks before that one; of all for number = len().

        Raises IndexError.
        """
        if number == 0:
            return 0
        *_, length, offset = self._row(number - 1)
        before = offset - len(PROLOGUE) - (number - 1) * FRAME_HEADER.size
        return int(before + length)

    def frame(self, number: int, data: Buffer) -> Frame:
        """The frame read from frame_span(number), checked; its block refers to `data`.

        Raises ShardRotten, also when header and index differ.
        """
        raw, stored, coding, stripe_crc, block_crc, length, _ = self._row(number)
        view = memoryview(data)
        header = FrameHeader(number, raw, stored, coding, stripe_crc, block_crc, length)
        if view[: FRAME_HEADER.size] != header.pack():
            Frame.parse_header(view[: FRAME_HEADER.size])
            raise ShardRotten(f"frame {number} differs from the index")
        frame = header.frame(view[FRAME_HEADER.size :])
        frame.check()
        return frame

    def _row(self, number: int) -> tuple[int, ...]:
        if not 0 <= number < len(self):
            raise IndexError(f"frame {number} of {len(self)}")
        return INDEX_ROW.unpack_from(self._rows, number * INDEX_ROW.size)


def pack_trailer(key: ShardKey, layout: Layout, rows: Buffer) -> bytes:
    """Index and footer of a file whose frames are those of the packed INDEX_ROWs.

    Raises ShardRefused for a content hash that is not 64 hex digits.
    """
    if _HASH.fullmatch(key.hash) is None:
        raise ShardRefused("a content hash has 64 hex digits")
    frames = len(rows) // INDEX_ROW.size
    index_offset = len(PROLOGUE)
    if frames:
        *_, length, offset = INDEX_ROW.unpack_from(rows, len(rows) - INDEX_ROW.size)
        index_offset = offset + FRAME_HEADER.size + length
    signed = FOOTER.pack(
        bytes.fromhex(key.hash),
        layout.size,
        bytes.fromhex(key.layout),
        layout.data,
        layout.parity,
        key.index,
        VERSION,
        frames,
        index_offset,
        crc32c(rows),
        index_offset - len(PROLOGUE) - frames * FRAME_HEADER.size,
        0,
        _END,
    )[:_SIGNED]
    return b"".join((rows, signed, _CRC.pack(crc32c(signed)), _END))


def parse_footer(tail: Buffer, file_size: int) -> Footer:
    """Read the last FOOTER_SIZE bytes of a file of `file_size`. Raises ShardRotten."""
    if len(tail) != FOOTER.size:
        raise ShardRotten("a shard file is too short for its footer")
    (
        content,
        size,
        layout_id,
        k,
        m,
        index,
        version,
        frames,
        offset,
        index_crc,
        blocks,
        crc,
        magic,
    ) = FOOTER.unpack(tail)
    if magic != _END:
        raise ShardRotten("a shard file does not end like one")
    if crc32c(memoryview(tail)[:_SIGNED]) != crc:
        raise ShardRotten("the footer differs from its checksum")
    if version != VERSION:
        raise ShardRotten(f"version {version} of shard files is unknown")
    try:
        geometry = Geometry(k, m)
    except ValueError as error:
        raise ShardRotten(str(error)) from error
    footer = Footer(
        ShardKey(content.hex(), index, layout_id.hex()),
        Layout(k, m, size, layout_id.hex()),
        frames,
        blocks,
        offset,
        index_crc,
    )
    if index >= geometry.shards:
        raise ShardRotten(f"there is no shard {index} among {geometry.shards}")
    if offset != len(PROLOGUE) + frames * FRAME_HEADER.size + blocks:
        raise ShardRotten("the footer's index offset differs from the frames it counts")
    if offset + footer.index_length + FOOTER.size != file_size:
        raise ShardRotten("the file's length differs from what its footer counts")
    if not frames <= size <= frames * STRIPE:
        raise ShardRotten(f"{frames} stripes cannot hold {size} bytes")
    return footer


def parse_index(footer: Footer, index: Buffer) -> ShardIndex:
    """Read the bytes between frames and footer. Raises ShardRotten."""
    if len(index) != footer.index_length or crc32c(index) != footer.index_crc:
        raise ShardRotten("the index differs from its checksum")
    try:
        table = table_of(footer.layout.data, footer.layout.parity, index)
    except ValueError as error:
        raise ShardRotten(str(error)) from error
    if table.layout() != footer.layout:
        raise ShardRotten("the index differs from the layout in the footer")
    return ShardIndex(table, bytes(index))


@lru_cache(maxsize=256)
def _table_of_one(
    k: int, m: int, raw: int, stored: int, coding: int, crc: int
) -> Table:
    """The table of a content of one stripe; all its shards ask for the same."""
    builder = TableBuilder(k, m)
    builder.append(raw, stored, coding, crc)
    return builder.table()


def table_of(k: int, m: int, index: Buffer) -> Table:
    """The stripe table in an index. Raises ValueError when blocks are out of place."""
    if len(index) == INDEX_ROW.size:
        raw, stored, coding, crc, _, length, offset = INDEX_ROW.unpack(index)
        table = _table_of_one(k, m, raw, stored, coding, crc)
        if length != table.geometry.block(stored) or offset != len(PROLOGUE):
            raise ValueError("block 0 is not where and what it must be")
        return table
    builder = TableBuilder(k, m)
    block = Geometry(k, m).block
    at = len(PROLOGUE)
    for raw, stored, coding, crc, _, length, offset in INDEX_ROW.iter_unpack(index):
        if length != block(stored) or offset != at:
            raise ValueError(f"block {len(builder)} is not where and what it must be")
        builder.append(raw, stored, coding, crc)
        at += FRAME_HEADER.size + length
    return builder.table()
