"""Frames: a block with a header before it, the same on the wire and on disk.

A stream of frames (`application/x-ostore-frames`) is header, block, header, block
and so on, for one shard, its stripe numbers ascending by one. The bytes are
described in docs/shard-format.md.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import attrs

from ostore.erasure.checksums import crc32c
from ostore.erasure.geometry import Buffer
from ostore.erasure.table import (
    MAX_STORED,
    RAW,
    UNKNOWN,
    Row,
    Table,
    TableBuilder,
    flaw,
)
from ostore.model.errors import ShardRefused, ShardRotten

__all__ = [
    "FRAME_HEADER",
    "MAX_STORED",
    "RAW",
    "UNKNOWN",
    "Frame",
    "FrameHeader",
    "FrameParser",
    "Row",
    "Table",
    "TableBuilder",
    "crc32c",
]

FRAME_HEADER = struct.Struct(">2sBBIIIIIII")
"""Magic, coding, zero, number, raw, stored, block length, three crcs (the last its own)."""

_FIELDS = struct.Struct(">2sBBIIIIII")
_CRC = struct.Struct(">I")
_MAGIC = b"oF"


class FrameHeader(NamedTuple):
    """What stands before a block."""

    number: int
    raw: int
    stored: int
    coding: int
    stripe_crc: int
    block_crc: int
    length: int

    def pack(self) -> bytes:
        """The header as it stands before the block."""
        fields = _FIELDS.pack(
            _MAGIC,
            self.coding,
            0,
            self.number,
            self.raw,
            self.stored,
            self.length,
            self.stripe_crc,
            self.block_crc,
        )
        return fields + _CRC.pack(crc32c(fields))

    def frame(self, block: Buffer) -> Frame:
        """The frame of this header and its block, which is not checked."""
        return Frame(
            self.number,
            self.raw,
            self.stored,
            self.coding,
            self.stripe_crc,
            self.block_crc,
            block,
        )


@attrs.frozen
class Frame:
    """One block of one shard, with what a reader must know of its stripe.

    `raw` and `stored` are the stripe's lengths, `stripe_crc` is the crc32c of the
    stored stripe without padding (0: unknown), `block_crc` that of the block.
    """

    number: int
    raw: int
    stored: int
    coding: int
    stripe_crc: int
    block_crc: int
    block: Buffer = attrs.field(repr=lambda block: f"<{len(block)} bytes>")

    @property
    def row(self) -> Row:
        """The stripe's row in the table."""
        return Row(self.raw, self.stored, self.coding, self.stripe_crc)

    @property
    def head(self) -> FrameHeader:
        """Its header."""
        return FrameHeader(
            self.number,
            self.raw,
            self.stored,
            self.coding,
            self.stripe_crc,
            self.block_crc,
            len(self.block),
        )

    def header(self) -> bytes:
        """The packed header, FRAME_HEADER.size bytes."""
        return self.head.pack()

    def check(self) -> None:
        """Compare the block with its crc. Raises ShardRotten."""
        if crc32c(self.block) != self.block_crc:
            raise ShardRotten(f"block {self.number} differs from its checksum")

    @staticmethod
    def parse_header(data: Buffer) -> FrameHeader:
        """Read and check a header of FRAME_HEADER.size bytes. Raises ShardRotten."""
        if len(data) != FRAME_HEADER.size:
            raise ShardRotten(f"a frame header has {FRAME_HEADER.size} bytes")
        magic, coding, zero, number, raw, stored, length, *crcs = FRAME_HEADER.unpack(
            data
        )
        stripe_crc, block_crc, own_crc = crcs
        if magic != _MAGIC:
            raise ShardRotten("a frame does not begin like one")
        if crc32c(memoryview(data)[: _FIELDS.size]) != own_crc:
            raise ShardRotten("a frame header differs from its checksum")
        wrong = flaw(raw, stored, coding)
        if wrong is None and zero:
            wrong = "a reserved byte is not zero"
        if wrong is None and not 1 <= length <= stored:
            wrong = f"a block of {length} bytes is no part of {stored} stored bytes"
        if wrong is not None:
            raise ShardRotten(f"frame {number}: {wrong}")
        return FrameHeader(number, raw, stored, coding, stripe_crc, block_crc, length)


class FrameParser:
    """Cuts a stream of frames as it comes in and checks each of them.

    Made by whoever receives a framed body, one for each. Holds at most one header
    and one block, and of a block no more than what has come. `frames` and
    `block_bytes` count what feed() has returned. After an error it is finished.
    """

    def __init__(self, first: int = 0) -> None:
        """`first` is the stripe number that the stream must begin with."""
        self.frames = 0
        self.block_bytes = 0
        self._first = first
        self._head = bytearray()
        self._header: FrameHeader | None = None
        self._block = bytearray()

    def feed(self, data: Buffer) -> list[Frame]:
        """The frames that `data` completes, each checked; blocks may refer to `data`.

        Raises ShardRefused.
        """
        view = memoryview(data)
        frames: list[Frame] = []
        try:
            while view:
                if self._header is None:
                    view = self._feed_head(
                        view, self._first + self.frames + len(frames)
                    )
                    continue
                view, frame = self._feed_block(self._header, view)
                if frame is not None:
                    frame.check()
                    frames.append(frame)
        except ShardRotten as error:
            raise ShardRefused(str(error)) from error
        self.frames += len(frames)
        self.block_bytes += sum(len(frame.block) for frame in frames)
        return frames

    def finish(self) -> None:
        """Say that the stream is over. Raises ShardRefused inside a frame."""
        if self._header is not None or self._head:
            number = self._first + self.frames
            raise ShardRefused(f"the body ends inside frame {number}")

    def _feed_head(self, view: memoryview, number: int) -> memoryview:
        taken = FRAME_HEADER.size - len(self._head)
        self._head += view[:taken]
        if len(self._head) == FRAME_HEADER.size:
            header = Frame.parse_header(self._head)
            if header.number != number:
                raise ShardRefused(f"frame {header.number} stands where {number} must")
            self._header = header
            self._head = bytearray()
        return view[taken:]

    def _feed_block(
        self, header: FrameHeader, view: memoryview
    ) -> tuple[memoryview, Frame | None]:
        missing = header.length - len(self._block)
        piece, rest = view[:missing], view[missing:]
        if len(piece) == header.length:
            frame = header.frame(piece)
        else:
            self._block += piece
            if len(piece) < missing:
                return rest, None
            frame = header.frame(self._block)
            self._block = bytearray()
        self._header = None
        return rest, frame
