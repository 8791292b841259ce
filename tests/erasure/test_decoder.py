"""What was encoded comes back from any k shards, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.decoder import decode, rebuild
from ostore.erasure.geometry import STRIPE, Buffer, Geometry
from ostore.model.errors import ShardRotten
from tests.erasure.cases import (
    CODECS,
    Coded,
    content,
    encode,
    few,
    geometries,
    small_stripes,
    some,
)

FOUR_TWO = Geometry(4, 2)
CODEC = CODECS.get(FOUR_TWO)


def blocks_of(coded: Coded, number: int, kept: Iterable[int]) -> dict[int, Buffer]:
    """The blocks of one stripe, of these shards."""
    return {index: coded.shards[index][number].block for index in kept}


def joined(coded: Coded, kept: Iterable[int]) -> bytes:
    """The content, decoded from these shards."""
    kept, cut = tuple(kept), coded.table.geometry
    pieces: list[Buffer] = []
    for number in range(len(coded.table)):
        blocks = blocks_of(coded, number, kept)
        row = coded.table.row(number)
        pieces += decode(row, cut, CODECS.get(cut), blocks)
    return b"".join(pieces)


class DecodeTests(SynchronousTestCase):
    """decode()."""

    @some
    @given(geometries, st.binary(max_size=200), st.integers(1, 60), st.data())
    def test_any_k_shards(
        self, geometry: Geometry, data: bytes, length: int, draw: st.DataObject
    ) -> None:
        """Whichever m shards are lost, the content is the same."""
        coded = small_stripes(data, geometry, length)
        order = draw.draw(st.permutations(range(geometry.shards)))
        for count in (geometry.data, geometry.shards):
            self.assertEqual(joined(coded, order[:count]), data)

    @few
    @given(
        st.integers(0, 2 * STRIPE + 9),
        st.lists(st.integers(0, STRIPE), max_size=4),
        st.permutations(range(6)),
    )
    def test_whole_stripes(self, size: int, cuts: list[int], order: list[int]) -> None:
        """Contents of several 1 MiB stripes come back from any four of six."""
        data = content(size)
        coded = encode(data, FOUR_TWO, tuple(min(cut, size) for cut in cuts))
        self.assertTrue(joined(coded, order[:4]) == data)

    def test_data_blocks_are_passed_on(self) -> None:
        """With all data blocks at hand the pieces are these blocks, not copies."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        blocks = blocks_of(coded, 0, range(6))
        pieces = decode(coded.table.row(0), FOUR_TWO, CODEC, blocks)
        for index in range(4):
            self.assertIs(pieces[index], blocks[index])

    def test_padding_is_cut_off(self) -> None:
        """Zeros behind the content are not returned; blocks of zeros alone vanish."""
        coded = small_stripes(b"ab", FOUR_TWO, 2)
        blocks = blocks_of(coded, 0, range(6))
        pieces = decode(coded.table.row(0), FOUR_TWO, CODEC, blocks)
        self.assertEqual(pieces, [b"a", b"b"])

    def test_wrong_bytes(self) -> None:
        """A wrong block among those used raises, whether data or parity."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        row = coded.table.row(0)
        for wrong, kept in ((1, range(4)), (5, (0, 1, 2, 5)), (4, (0, 1, 4, 5))):
            blocks = blocks_of(coded, 0, kept)
            blocks[wrong] = bytes(10)
            with self.assertRaisesRegex(ShardRotten, "stripe differs"):
                decode(row, FOUR_TWO, CODEC, blocks)

    def test_unknown_crc(self) -> None:
        """A stripe crc of 0 is unknown: nothing is compared with it."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        row = attrs.evolve(coded.table.row(0), crc=0)
        blocks = blocks_of(coded, 0, range(4))
        self.assertEqual(b"".join(decode(row, FOUR_TWO, CODEC, blocks)), coded.data)
        blocks[0] = bytes(10)
        wrong = b"".join(decode(row, FOUR_TWO, CODEC, blocks))
        self.assertEqual(wrong, bytes(10) + coded.data[10:])

    def test_wrong_length(self) -> None:
        """A block of another length is named, not decoded, even one not needed."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        blocks = blocks_of(coded, 0, range(6))
        for index in (2, 5):
            for bad in (b"", bytes(9), bytes(11)):
                with self.assertRaisesRegex(ShardRotten, f"block {index} has"):
                    decode(coded.table.row(0), FOUR_TWO, CODEC, {**blocks, index: bad})

    def test_too_few(self) -> None:
        """Fewer than k blocks are the caller's mistake."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        blocks = blocks_of(coded, 0, (0, 4, 5))
        row = coded.table.row(0)
        self.assertRaises(ValueError, decode, row, FOUR_TWO, CODEC, blocks)

    def test_unknown_coding(self) -> None:
        """A stripe in a coding we do not know is never passed off as content."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        row = attrs.evolve(coded.table.row(0), coding=2)
        blocks = blocks_of(coded, 0, range(4))
        with self.assertRaisesRegex(ShardRotten, "unknown coding 2"):
            decode(row, FOUR_TWO, CODEC, blocks)


class RebuildTests(SynchronousTestCase):
    """rebuild()."""

    @some
    @given(geometries, st.integers(1, 200), st.integers(1, 60), st.data())
    def test_frames_as_they_were(
        self, geometry: Geometry, size: int, length: int, draw: st.DataObject
    ) -> None:
        """Missing frames are made again, the same to the byte."""
        coded = small_stripes(content(size), geometry, length)
        order = draw.draw(st.permutations(range(geometry.shards)))
        want = draw.draw(st.lists(st.sampled_from(order), unique=True))
        for number in range(len(coded.table)):
            made = rebuild(
                number,
                coded.table.row(number),
                geometry,
                CODECS.get(geometry),
                blocks_of(coded, number, order[: geometry.data]),
                want,
            )
            expected = [coded.shards[index][number] for index in want]
            self.assertEqual(made, expected)
            self.assertEqual(
                [frame.header() for frame in made],
                [frame.header() for frame in expected],
            )

    def test_any_coding(self) -> None:
        """Shards are mended without knowing how the stripe was coded."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        row = attrs.evolve(coded.table.row(0), coding=9, raw=77)
        blocks = blocks_of(coded, 0, (0, 1, 2, 4))
        (frame,) = rebuild(3, row, FOUR_TWO, CODEC, blocks, [3])
        self.assertEqual((frame.number, frame.raw, frame.coding), (3, 77, 9))
        self.assertEqual(frame.block, coded.shards[3][0].block)
        frame.check()

    def test_wrong_bytes_are_not_multiplied(self) -> None:
        """From a wrong block nothing is made, not even parity out of data."""
        coded = small_stripes(content(40), FOUR_TWO, 40)
        row = coded.table.row(0)
        for kept, want in (((0, 1, 2, 3), [5]), ((0, 1, 2, 5), [3])):
            blocks = blocks_of(coded, 0, kept)
            blocks[0] = bytes(10)
            self.assertRaises(
                ShardRotten, rebuild, 0, row, FOUR_TWO, CODEC, blocks, want
            )
