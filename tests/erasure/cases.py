"""What the tests of this room draw from and build with."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from ostore.erasure.codec import Codecs
from ostore.erasure.draft import ShardDraft
from ostore.erasure.encoder import Encoder
from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.erasure.geometry import Geometry
from ostore.erasure.shardfile import (
    FOOTER_SIZE,
    PROLOGUE,
    Footer,
    ShardIndex,
    check_prologue,
    parse_footer,
    parse_index,
)
from ostore.erasure.table import Table
from ostore.model.layouts import ShardKey

few = settings(deadline=None, max_examples=40)
some = settings(deadline=None, max_examples=150)

CODECS = Codecs()

geometries = st.builds(Geometry, st.integers(1, 6), st.integers(0, 4))
rows = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 300), st.just(1), st.integers(0, 9)),
    max_size=12,
)


def content(size: int, seed: int = 0) -> bytes:
    """Bytes without a pattern, the same each time."""
    return random.Random(seed).randbytes(size)


@attrs.frozen
class Coded:
    """A content and all of its frames: `shards[i]` are those of shard i."""

    data: bytes
    table: Table
    shards: tuple[tuple[Frame, ...], ...]


def encode(data: bytes, geometry: Geometry, cuts: tuple[int, ...] = ()) -> Coded:
    """Code `data`, given to the encoder in pieces that end at `cuts`."""
    encoder = Encoder(geometry, CODECS.get(geometry))
    stripes = []
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(edges):
        stripes += [encoder.code(raw) for raw in encoder.feed(data[start:stop])]
    tail = encoder.finish()
    if tail is not None:
        stripes.append(encoder.code(tail))
    shards = tuple(
        tuple(stripe[index] for stripe in stripes) for index in range(geometry.shards)
    )
    return Coded(data, encoder.table(), shards)


def small_stripes(data: bytes, geometry: Geometry, length: int) -> Coded:
    """Code `data` in stripes of `length` bytes, so that few bytes make many frames."""
    encoder = Encoder(geometry, CODECS.get(geometry))
    stripes = [
        encoder.code(data[at : at + length]) for at in range(0, len(data), length)
    ]
    shards = tuple(
        tuple(stripe[index] for stripe in stripes) for index in range(geometry.shards)
    )
    return Coded(data, encoder.table(), shards)


def shard_file(coded: Coded, index: int) -> bytes:
    """The whole file of one shard."""
    draft = ShardDraft()
    parts = [PROLOGUE]
    for frame in coded.shards[index]:
        parts += [draft.append(frame), bytes(frame.block)]
    layout = coded.table.layout()
    key = ShardKey(hashlib.sha256(coded.data).hexdigest(), index, layout.id)
    return b"".join((*parts, draft.trailer(key, layout)))


def stream(frames: tuple[Frame, ...]) -> bytes:
    """Frames as they travel."""
    return b"".join(frame.header() + bytes(frame.block) for frame in frames)


def open_file(file: bytes) -> tuple[Footer, ShardIndex]:
    """Read a shard file's identity and index as a node does when it opens it."""
    check_prologue(file[: len(PROLOGUE)])
    footer = parse_footer(file[-FOOTER_SIZE:], len(file))
    end = footer.index_offset + footer.index_length
    return footer, parse_index(footer, file[footer.index_offset : end])


def read_frames(file: bytes, index: ShardIndex) -> list[Frame]:
    """Every frame of a shard file, checked."""
    frames = []
    for number in range(len(index)):
        offset, length = index.frame_span(number)
        frames.append(index.frame(number, file[offset : offset + length]))
    return frames


def repacked(header: bytes, **change: int) -> bytes:
    """A frame header with some fields changed and its checksum made right again."""
    parsed = Frame.parse_header(header)
    fields = parsed._replace(**change)
    block = memoryview(bytes(fields.length))
    made = fields.frame(block).header()
    assert len(made) == FRAME_HEADER.size
    return made
