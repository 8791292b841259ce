"""Shard files of contents of one stripe: made and read in one go, for they are many.

The bytes are those that draft.py writes and shardfile.py reads.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.erasure.geometry import Buffer
from ostore.erasure.shardfile import (
    FOOTER_SIZE,
    INDEX_ROW,
    PROLOGUE,
    pack_trailer,
)
from ostore.erasure.table import TableBuilder
from ostore.model.errors import ShardRefused
from ostore.model.layouts import Layout, ShardKey

_HEAD = len(PROLOGUE) + FRAME_HEADER.size
_AROUND = _HEAD + INDEX_ROW.size + FOOTER_SIZE
_NAME = struct.Struct(">32sQ16sBBB")
"""What a footer begins with: hash, size, layout id, k, m, index."""


@lru_cache(maxsize=256)
def _layout(
    k: int, m: int, raw: int, stored: int, coding: int, crc: int
) -> tuple[Layout, int]:
    """Layout and block length of a content of that one stripe. Raises ValueError."""
    builder = TableBuilder(k, m)
    builder.append(raw, stored, coding, crc)
    table = builder.table()
    return table.layout(), table.geometry.block(stored)


def layout_of(cut: Layout, frame: Frame) -> Layout:
    """The layout of a content whose only stripe that frame is of, cut like `cut`.

    Raises ValueError for a block that is no part of one.
    """
    made, block = _layout(
        cut.data, cut.parity, frame.raw, frame.stored, frame.coding, frame.stripe_crc
    )
    if frame.number or len(frame.block) != block:
        raise ValueError("the block is not where and what it must be")
    return made


def single_file(key: ShardKey, layout: Layout, frame: Frame) -> list[Buffer]:
    """A shard's file in parts. Raises ShardRefused when the frame is not its only one.

    The block's crc is taken as it is.
    """
    try:
        made = layout_of(layout, frame)
    except ValueError as error:
        raise ShardRefused(str(error)) from error
    if layout != made or key.layout != made.id:
        raise ShardRefused(f"the frames are of the layout {made.header()}")
    if not 0 <= key.index < layout.shards:
        raise ShardRefused(f"there is no shard {key.index} among {layout.shards}")
    row = INDEX_ROW.pack(
        frame.raw,
        frame.stored,
        frame.coding,
        frame.stripe_crc,
        frame.block_crc,
        len(frame.block),
        len(PROLOGUE),
    )
    return [PROLOGUE + frame.header(), frame.block, pack_trailer(key, layout, row)]


def single_frame(key: ShardKey, file: Buffer) -> Frame | None:
    """The only frame in the bytes of that shard's file, which are known to be right.

    None when there are several, or anything is not as it should be: reading them the
    long way tells.
    """
    view = memoryview(file)
    at = len(view) - FOOTER_SIZE
    if at < _HEAD or view[: len(PROLOGUE)] != PROLOGUE:
        return None
    _, coding, zero, number, raw, stored, length, crc, block_crc, _ = (
        FRAME_HEADER.unpack_from(view, len(PROLOGUE))
    )
    hash, size, layout, k, m, index = _NAME.unpack_from(view, at)
    if number or zero or len(view) != _AROUND + length or index != key.index:
        return None
    try:
        made, block = _layout(k, m, raw, stored, coding, crc)
    except ValueError:
        return None
    if (
        length != block
        or made.id != key.layout
        or made.size != size
        or hash.hex() != key.hash
        or layout.hex() != key.layout
    ):
        return None
    return Frame(0, raw, stored, coding, crc, block_crc, view[_HEAD : _HEAD + length])
