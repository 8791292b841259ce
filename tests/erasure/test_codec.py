"""Any k blocks give back all others."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.codec import Codecs
from ostore.erasure.geometry import Buffer, Geometry
from tests.erasure.cases import CODECS, content, geometries, some


def blocks_of(geometry: Geometry, length: int) -> list[bytes]:
    """All k + m blocks of some stripe."""
    data = [content(length, seed) for seed in range(geometry.data)]
    return [*data, *CODECS.get(geometry).encode(data)]


class CodecTests(SynchronousTestCase):
    """The coding of one stripe."""

    @some
    @given(geometries, st.integers(0, 70), st.data())
    def test_any_k_give_any_block(
        self, geometry: Geometry, length: int, draw: st.DataObject
    ) -> None:
        """Any k blocks or more, in any order and kind of buffer, give any others."""
        every = blocks_of(geometry, length)
        numbers = draw.draw(st.permutations(range(geometry.shards)))
        kept = numbers[: draw.draw(st.integers(geometry.data, geometry.shards))]
        want = draw.draw(st.lists(st.integers(0, geometry.shards - 1), max_size=9))
        kind = draw.draw(st.sampled_from((bytes, bytearray, memoryview)))
        have: dict[int, Buffer] = {index: kind(every[index]) for index in kept}
        rebuilt = CODECS.get(geometry).rebuild(have, want)
        self.assertEqual(rebuilt, [every[index] for index in want])
        self.assertEqual({type(block) for block in rebuilt} - {bytes}, set())

    def test_every_choice_of_four_in_six(self) -> None:
        """All fifteen pairs of blocks of 4 + 2 may be lost."""
        every = blocks_of(Geometry(4, 2), 100)
        for kept in combinations(range(6), 4):
            have: dict[int, Buffer] = {index: every[index] for index in kept}
            rebuilt = CODECS.get(Geometry(4, 2)).rebuild(have, range(6))
            self.assertEqual(rebuilt, every)

    def test_no_parity(self) -> None:
        """With m = 0 there is nothing to compute, and every block is needed."""
        codec = CODECS.get(Geometry(3, 0))
        self.assertEqual(codec.encode([b"a", b"b", b"c"]), [])
        self.assertEqual(codec.rebuild({0: b"a", 1: b"b", 2: b"c"}, [2]), [b"c"])
        self.assertRaises(ValueError, codec.rebuild, {0: b"a", 1: b"b"}, [2])

    def test_what_zfec_would_not_survive(self) -> None:
        """Unequal lengths, wrong counts and numbers are refused before zfec sees them."""
        codec = CODECS.get(Geometry(2, 2))
        for blocks in ([b"aa"], [b"aa"] * 3, [b"aa", b"a"], [b"", b"a"], [b"a", b""]):
            self.assertRaises(ValueError, codec.encode, blocks)
        for have, want in (
            ({0: b"aa"}, [1]),
            ({}, [0]),
            ({0: b"aa", 2: b"a"}, [1]),
            ({2: b"", 3: b"a"}, [1]),
            ({0: b"a", 4: b"a"}, [1]),
            ({-1: b"a", 2: b"a"}, [1]),
            ({0: b"a", 1: b"a"}, [4]),
            ({0: b"a", 1: b"a"}, [-1]),
        ):
            self.assertRaises(ValueError, codec.rebuild, have, want)

    def test_wanted_many_times(self) -> None:
        """A block may be wanted more often than there are blocks."""
        every = blocks_of(Geometry(1, 1), 9)
        rebuilt = CODECS.get(Geometry(1, 1)).rebuild({0: every[0]}, [1] * 1000)
        self.assertEqual(rebuilt, [every[1]] * 1000)

    def test_input_is_left_alone(self) -> None:
        """Blocks and the mapping they came in are as they were afterwards."""
        every = blocks_of(Geometry(4, 2), 9)
        have: dict[int, Buffer] = {i: bytearray(every[i]) for i in (5, 4, 3, 1)}
        CODECS.get(Geometry(4, 2)).rebuild(have, [0, 2])
        self.assertEqual(have, {i: every[i] for i in (5, 4, 3, 1)})
        self.assertEqual(list(have), [5, 4, 3, 1])


class CodecsTests(SynchronousTestCase):
    """Where codecs come from."""

    def test_one_a_geometry(self) -> None:
        """A geometry's codec is made once and bears the provider's name."""
        codecs = Codecs()
        self.assertIs(codecs.get(Geometry(4, 2)), codecs.get(Geometry(4, 2)))
        self.assertIsNot(codecs.get(Geometry(4, 2)), codecs.get(Geometry(4, 1)))
        self.assertEqual(codecs.name, "zfec")
        self.assertEqual(codecs.get(Geometry(4, 2)).name, "zfec")

    def test_unknown_provider(self) -> None:
        """A provider that does not exist is refused, and those that do are named."""
        with self.assertRaisesRegex(ValueError, "no codec 'magic'; there is zfec"):
            Codecs("magic")
