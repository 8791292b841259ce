"""The encoder cuts any content, in any chunks, into the same frames."""

from __future__ import annotations

import gc
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.encoder import Encoder, split
from ostore.erasure.framing import crc32c
from ostore.erasure.geometry import STRIPE, Geometry
from tests.erasure.cases import CODECS, content, encode, few, geometries, some

FOUR_TWO = Geometry(4, 2)


def encoder() -> Encoder:
    """An encoder of 4 + 2."""
    return Encoder(FOUR_TWO, CODECS.get(FOUR_TWO))


class CuttingTests(SynchronousTestCase):
    """feed() and finish()."""

    @few
    @given(
        st.integers(0, 3 * STRIPE + 5),
        st.lists(st.integers(0, 3 * STRIPE + 5), max_size=8),
    )
    def test_any_chunks(self, size: int, cuts: list[int]) -> None:
        """Stripes are 1 MiB and a rest, the same bytes, however they come in."""
        data = content(size)
        subject = encoder()
        stripes = []
        edges = [0, *sorted(min(cut, size) for cut in cuts), size]
        for start, stop in pairwise(edges):
            stripes += subject.feed(data[start:stop])
            self.assertEqual(subject.held, stop % STRIPE)
        self.assertEqual({len(stripe) for stripe in stripes} - {STRIPE}, set())
        tail = subject.finish()
        self.assertEqual(subject.held, 0)
        self.assertEqual(tail is None, size % STRIPE == 0)
        self.assertTrue(b"".join((*stripes, tail or b"")) == data)

    def test_whole_stripes_are_not_copied(self) -> None:
        """Stripes that lie within what was fed refer to it."""
        data = content(2 * STRIPE + 1)
        subject = encoder()
        for stripe in subject.feed(data):
            self.assertIs(stripe.obj, data)
        self.assertEqual(subject.held, 1)

    def test_nothing(self) -> None:
        """An empty content has no stripe, and a layout of size 0."""
        subject = encoder()
        self.assertEqual(subject.feed(b""), [])
        self.assertIsNone(subject.finish())
        self.assertEqual(len(subject.table()), 0)
        self.assertEqual(subject.layout().size, 0)


class CodingTests(SynchronousTestCase):
    """code()."""

    @some
    @given(geometries, st.integers(1, 200))
    def test_frames_of_a_stripe(self, geometry: Geometry, size: int) -> None:
        """A stripe gives k + m frames with right crcs; the data blocks are it and zeros."""
        raw = content(size)
        subject = Encoder(geometry, CODECS.get(geometry))
        subject.code(b"first")
        frames = subject.code(raw)
        self.assertEqual(len(frames), geometry.shards)
        data = b"".join(frame.block for frame in frames[: geometry.data])
        self.assertEqual(data[:size], raw)
        self.assertEqual(data[size:].strip(b"\0"), b"")
        for frame in frames:
            frame.check()
            self.assertEqual((frame.number, frame.coding), (1, 0))
            self.assertEqual((frame.raw, frame.stored), (size, size))
            self.assertEqual(frame.stripe_crc, crc32c(raw))
            self.assertEqual(len(frame.block), geometry.block(size))
        self.assertEqual(subject.table().row(1), frames[0].row)
        self.assertEqual(subject.layout(), subject.table().layout())

    def test_only_padded_blocks_are_copied(self) -> None:
        """Data blocks refer to the stripe but where zeros must follow."""
        raw = content(10)
        blocks = split(raw, FOUR_TWO)
        kinds = [getattr(block, "obj", None) is raw for block in blocks]
        self.assertEqual(kinds, [True, True, True, False])
        self.assertEqual([len(block) for block in blocks], [3] * 4)
        self.assertEqual(split(b"ab", FOUR_TWO), [b"a", b"b", b"\0", b"\0"])

    def test_frames_stay_as_they_were(self) -> None:
        """Frames are not touched by what the encoder does after them."""
        subject = encoder()
        data = content(2 * STRIPE)
        first = second = None
        for at in range(0, len(data), 100_000):
            for raw in subject.feed(data[at : at + 100_000]):
                first, second = second, subject.code(raw)
        gc.collect()
        assert first is not None
        for frame in first:
            frame.check()
        self.assertTrue(b"".join(f.block for f in first[:4]) == data[:STRIPE])

    def test_stripes_that_cannot_be(self) -> None:
        """An empty stripe and one beyond 1 MiB are refused and not counted."""
        subject = encoder()
        self.assertRaises(ValueError, subject.code, b"")
        self.assertRaises(ValueError, subject.code, bytes(STRIPE + 1))
        self.assertEqual(len(subject.table()), 0)

    def test_chunks_do_not_matter_to_the_layout(self) -> None:
        """The same content gets the same layout and frames in whatever chunks."""
        data = content(STRIPE + 4321)
        one, two = encode(data, FOUR_TWO), encode(data, FOUR_TWO, (1, 5000, STRIPE))
        self.assertEqual(one.table, two.table)
        self.assertTrue(one.shards == two.shards)
