"""Frames come out of a stream as they went in, or not at all."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.framing import (
    FRAME_HEADER,
    MAX_STORED,
    Frame,
    FrameParser,
    Row,
    crc32c,
)
from ostore.erasure.geometry import STRIPE, Geometry
from ostore.model.errors import ShardRefused, ShardRotten
from tests.erasure.cases import content, few, repacked, small_stripes, some, stream

FRAMES = small_stripes(content(50), Geometry(4, 2), 20).shards[5]
FRAME = FRAMES[0]


def parse(
    data: bytes, cuts: list[int], first: int = 0
) -> tuple[FrameParser, list[Frame]]:
    """Feed `data` in pieces that end at `cuts`."""
    parser = FrameParser(first)
    frames = []
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(edges):
        frames += parser.feed(data[start:stop])
    return parser, frames


class ChecksumTests(SynchronousTestCase):
    """The checksum of blocks."""

    def test_known_value(self) -> None:
        """crc32c is Castagnoli's, with the published check value."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(b""), 0)

    @some
    @given(st.binary(max_size=50), st.binary(max_size=50))
    def test_chains(self, one: bytes, two: bytes) -> None:
        """A checksum goes on from the one of the bytes before."""
        self.assertEqual(crc32c(memoryview(two), crc32c(one)), crc32c(one + two))


class FrameTests(SynchronousTestCase):
    """One frame."""

    @some
    @given(
        st.integers(0, 0xFFFFFFFF),
        st.integers(1, STRIPE),
        st.integers(1, MAX_STORED),
        st.integers(1, 255),
        st.integers(0, 0xFFFFFFFF),
        st.binary(min_size=1, max_size=1),
    )
    def test_round_trip(
        self, number: int, raw: int, stored: int, coding: int, crc: int, block: bytes
    ) -> None:
        """A header says again what was packed, whatever the coding."""
        frame = Frame(number, raw, stored, coding, crc, crc32c(block), block)
        header = Frame.parse_header(frame.header())
        self.assertEqual(header.length, len(block))
        self.assertEqual(header.frame(block), frame)
        self.assertEqual(frame.row, Row(raw, stored, coding, crc))
        frame.check()

    def test_a_changed_block(self) -> None:
        """check() raises when the block is not what was framed."""
        changed = attrs.evolve(FRAME, block=b"?" * len(FRAME.block))
        self.assertRaises(ShardRotten, changed.check)

    def test_every_flipped_byte(self) -> None:
        """A header in which any byte was changed is refused."""
        for at in range(FRAME_HEADER.size):
            flipped = bytearray(FRAME.header())
            flipped[at] ^= 1
            self.assertRaises(ShardRotten, Frame.parse_header, bytes(flipped))

    def test_wrong_length(self) -> None:
        """A header is exactly as long as headers are."""
        header = FRAME.header()
        self.assertRaises(ShardRotten, Frame.parse_header, header[:-1])
        self.assertRaises(ShardRotten, Frame.parse_header, header + b"\0")

    def test_impossible(self) -> None:
        """A header with a right checksum and impossible lengths is refused."""
        for change in (
            {"raw": 0},
            {"raw": STRIPE + 1},
            {"stored": 0, "coding": 1},
            {"stored": 0xFFFFFFFF, "coding": 1},
            {"stored": FRAME.raw + 1},
        ):
            header = repacked(FRAME.header(), **change)
            self.assertRaises(ShardRotten, Frame.parse_header, header)
        for length in (0, FRAME.stored + 1):
            header = repacked(FRAME.header(), length=length)
            self.assertRaises(ShardRotten, Frame.parse_header, header)

    def test_reserved_byte(self) -> None:
        """The reserved byte must be zero, even under a right checksum."""
        fields = bytearray(FRAME.header()[:-4])
        fields[3] = 1
        header = bytes(fields) + crc32c(fields).to_bytes(4, "big")
        with self.assertRaisesRegex(ShardRotten, "reserved"):
            Frame.parse_header(header)

    def test_repr_leaves_out_the_block(self) -> None:
        """A frame that is printed does not pour out its bytes."""
        self.assertIn(f"<{len(FRAME.block)} bytes>", repr(FRAME))


class FrameParserTests(SynchronousTestCase):
    """A stream of frames."""

    @some
    @given(st.integers(1, 120), st.integers(1, 40), st.data())
    def test_any_splits(self, size: int, length: int, draw: st.DataObject) -> None:
        """However the stream is cut, the same frames come out, and are counted."""
        frames = small_stripes(content(size), Geometry(2, 1), length).shards[1]
        data = stream(frames)
        cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=12))
        parser, parsed = parse(data, cuts)
        parser.finish()
        self.assertEqual(parsed, list(frames))
        self.assertEqual(parser.frames, len(frames))
        self.assertEqual(parser.block_bytes, sum(len(f.block) for f in frames))

    def test_byte_by_byte(self) -> None:
        """Single bytes are fine, and a stream may begin with any number."""
        frames = [attrs.evolve(f, number=f.number + 7) for f in FRAMES]
        data = stream(tuple(frames))
        parser, parsed = parse(data, list(range(len(data))), first=7)
        parser.finish()
        self.assertEqual(parsed, frames)

    def test_whole_blocks_are_not_copied(self) -> None:
        """A block that came in one piece refers to that piece."""
        data = stream(FRAMES)
        for frame in FrameParser().feed(data):
            self.assertIsInstance(frame.block, memoryview)
            self.assertIs(memoryview(frame.block).obj, data)

    def test_earlier_frames_outlive_the_parser(self) -> None:
        """A frame's block is its own: what comes later does not change it."""
        data = stream(FRAMES)
        parser, parsed = parse(data[:40], [33])
        parsed += parser.feed(data[40:])
        parsed[-1].check()
        self.assertEqual(parsed, list(FRAMES))

    def test_cut_stream(self) -> None:
        """A stream that ends inside a frame gives the whole ones and says so."""
        data = stream(FRAMES)
        ends = [0]
        for frame in FRAMES:
            ends.append(ends[-1] + FRAME_HEADER.size + len(frame.block))
        for stop in range(len(data) + 1):
            parser, parsed = parse(data[:stop], [])
            whole = sum(end <= stop for end in ends[1:])
            self.assertEqual(parsed, list(FRAMES[:whole]))
            self.assertEqual(parser.frames, whole)
            if stop in ends:
                parser.finish()
            else:
                with self.assertRaisesRegex(ShardRefused, f"inside frame {whole}"):
                    parser.finish()

    def test_every_flipped_byte(self) -> None:
        """A stream in which any byte was changed is refused, and nothing counted."""
        data = stream(FRAMES)
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 0x80
            parser = FrameParser()
            self.assertRaises(ShardRefused, parser.feed, bytes(flipped))
            self.assertEqual((parser.frames, parser.block_bytes), (0, 0))

    def test_numbers_ascend_by_one(self) -> None:
        """A frame that is missing, repeated or out of order is refused."""
        one, two, three = FRAMES
        for frames in ((two,), (one, one), (one, three), (one, two, one)):
            with self.assertRaisesRegex(ShardRefused, "stands where"):
                FrameParser().feed(stream(frames))

    def test_refusal_lasts(self) -> None:
        """A parser that refused a header goes on refusing."""
        parser = FrameParser()
        self.assertRaises(ShardRefused, parser.feed, b"\0" * 40)
        self.assertRaises(ShardRefused, parser.feed, FRAME.header())
        self.assertRaises(ShardRefused, parser.finish)

    @some
    @given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
    def test_noise(self, data: bytes, cuts: list[int]) -> None:
        """Bytes that are no frames are refused or wait for more; nothing else."""
        try:
            parser, parsed = parse(data, [min(cut, len(data)) for cut in cuts])
        except ShardRefused:
            return
        self.assertEqual(parsed, [])
        self.assertLess(len(data), FRAME_HEADER.size)
        self.assertEqual(parser.frames, 0)

    @few
    @given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
    def test_hostile_lengths_allocate_nothing(self, stored: int, raw: int) -> None:
        """A header that promises much costs no memory until the bytes come."""
        block = bytes(MAX_STORED)
        frames = [Frame(0, raw, stored, 1, 0, 0, block)]
        frames.append(Frame(0, STRIPE, MAX_STORED, 1, 0, 0, block))
        headers = [frame.header() + b"x" for frame in frames]
        tracemalloc.start()
        try:
            for header in headers:
                try:
                    FrameParser().feed(header)
                except ShardRefused:
                    continue
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 100_000)
