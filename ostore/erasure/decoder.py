"""From the blocks of a stripe back to its bytes, or to blocks that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ostore.erasure.checksums import joined
from ostore.erasure.codec import Codec
from ostore.erasure.compressing import ZSTD, expand
from ostore.erasure.framing import RAW, UNKNOWN, Frame, Row, crc32c
from ostore.erasure.geometry import STRIPE, Buffer, Geometry
from ostore.model.errors import ShardRotten


def decode(
    row: Row,
    geometry: Geometry,
    codec: Codec,
    blocks: Mapping[int, Buffer],
    crcs: Mapping[int, int] | None = None,
) -> list[Buffer]:
    """The raw bytes of a stripe, as pieces in order, from k blocks or more of it.

    `blocks` have passed their own checksums: `crcs`, where these are at hand. Nothing is computed or copied while all
    data blocks are among them. Raises ShardRotten when a block has the wrong length,
    the stripe differs from its crc (unless that is unknown: 0), its coding is none
    that we know, or it does not expand to its raw length; ValueError for fewer than k
    blocks.
    """
    if row.coding not in (RAW, ZSTD):
        raise ShardRotten(f"a stripe has the unknown coding {row.coding}")
    stored = _trimmed(row, _whole(row, geometry, codec, blocks, crcs))
    return stored if row.coding == RAW else [expand(row, stored)]


def rebuild(
    number: int,
    row: Row,
    geometry: Geometry,
    codec: Codec,
    blocks: Mapping[int, Buffer],
    want: Sequence[int],
) -> list[Frame]:
    """The frames of the shards `want` for stripe `number`, from k blocks or more of it.

    The stripe is checked as in decode(), so what is wrong is not multiplied; its
    coding does not matter. Raises ShardRotten, ValueError.
    """
    data = _whole(row, geometry, codec, blocks)
    made = codec.rebuild(dict(enumerate(data)), want)
    return [
        Frame(number, row.raw, row.stored, row.coding, row.crc, crc32c(block), block)
        for block in made
    ]


def _whole(
    row: Row,
    geometry: Geometry,
    codec: Codec,
    blocks: Mapping[int, Buffer],
    crcs: Mapping[int, int] | None = None,
) -> list[Buffer]:
    """The k data blocks, checked against the stripe's crc."""
    length = geometry.block(row.stored)
    for index, block in blocks.items():
        if len(block) != length:
            raise ShardRotten(f"block {index} has {len(block)} bytes, not {length}")
    missing = [index for index in range(geometry.data) if index not in blocks]
    found: dict[int, Buffer] = dict(blocks)
    if missing:
        found.update(zip(missing, codec.rebuild(blocks, missing), strict=True))
    data = [found[index] for index in range(geometry.data)]
    if row.crc not in (UNKNOWN, _crc(row, data, crcs or {})):
        raise ShardRotten("a stripe differs from its checksum")
    return data


def _crc(row: Row, data: Sequence[Buffer], crcs: Mapping[int, int]) -> int:
    """That of the stored bytes; a whole stripe's from those of its blocks."""
    length = len(data[0])
    if row.stored == STRIPE == len(data) * length and crcs:
        known = enumerate(data)
        return joined((crcs.get(i) or crc32c(block) for i, block in known), length)
    crc = 0
    for piece in _trimmed(row, data):
        crc = crc32c(piece, crc)
    return crc


def _trimmed(row: Row, data: Sequence[Buffer]) -> list[Buffer]:
    """The stored bytes: data blocks without the padding."""
    pieces: list[Buffer] = []
    left = row.stored
    for block in data:
        pieces.append(block if len(block) <= left else memoryview(block)[:left])
        left -= len(pieces[-1])
    return [piece for piece in pieces if piece]
