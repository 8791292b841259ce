"""Any k blocks give back all others."""

from __future__ import annotations

from itertools import combinations
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ostore.erasure import codec, isal
from ostore.erasure.codec import Codecs
from ostore.erasure.geometry import Buffer, Geometry
from ostore.model.layouts import MAX_SHARDS
from tests.erasure.cases import CODECS, content, few, geometries, some

FAST = Codecs("auto")
NO_ISAL = "" if FAST.name == "isal" else "ISA-L is not installed"

every_geometry = st.integers(1, MAX_SHARDS).flatmap(
    lambda shards: st.integers(1, shards).map(lambda k: Geometry(k, shards - k))
)
lengths = st.one_of(st.integers(0, 70), st.integers(0, 5000))


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


class SameBytesTests(SynchronousTestCase):
    """ISA-L gives what zfec gives."""

    skip = NO_ISAL or None

    @some
    @given(every_geometry, lengths, st.data())
    def test_any_blocks_of_any_geometry(
        self, geometry: Geometry, length: int, draw: st.DataObject
    ) -> None:
        """The same parity and the same rebuilt blocks, whatever is had and wanted."""
        zfec, fast = CODECS.get(geometry), FAST.get(geometry)
        every = blocks_of(geometry, length)
        self.assertEqual(fast.encode(every[: geometry.data]), every[geometry.data :])
        numbers = draw.draw(st.permutations(range(geometry.shards)))
        kept = numbers[: draw.draw(st.integers(geometry.data, geometry.shards))]
        want = draw.draw(st.lists(st.integers(0, geometry.shards - 1), max_size=40))
        kind = draw.draw(st.sampled_from((bytes, bytearray, memoryview)))
        have: dict[int, Buffer] = {index: kind(every[index]) for index in kept}
        rebuilt = fast.rebuild(have, want)
        self.assertEqual(rebuilt, zfec.rebuild(have, want))
        self.assertEqual({type(block) for block in rebuilt} - {bytes}, set())

    def test_every_geometry(self) -> None:
        """Each of the 528 geometries up to k + m = 32, its last m blocks from the rest."""
        for shards in range(1, MAX_SHARDS + 1):
            for data in range(1, shards + 1):
                geometry = Geometry(data, shards - data)
                every = blocks_of(geometry, 37)
                fast = FAST.get(geometry)
                self.assertEqual(fast.encode(every[:data]), every[data:])
                have: dict[int, Buffer] = dict(enumerate(every))
                lost = range(min(data, shards - data))
                for index in lost:
                    del have[index]
                self.assertEqual(fast.rebuild(have, lost), every[: len(lost)])

    def test_every_length(self) -> None:
        """Every block length up to 600, where the library's loops begin and end."""
        for length in range(600):
            every = blocks_of(Geometry(4, 2), length)
            fast = FAST.get(Geometry(4, 2))
            self.assertEqual(fast.encode(every[:4]), every[4:])
            have: dict[int, Buffer] = dict(enumerate(every[2:], 2))
            self.assertEqual(fast.rebuild(have, [0, 1]), every[:2])

    def test_a_whole_stripe(self) -> None:
        """A stripe of 1 MiB, by both, as 1 + 31 and as 31 + 1 too."""
        for geometry in (Geometry(4, 2), Geometry(1, 31), Geometry(31, 1)):
            every = blocks_of(geometry, geometry.block(1 << 20))
            data = every[: geometry.data]
            self.assertEqual(FAST.get(geometry).encode(data), every[geometry.data :])

    @few
    @given(st.lists(st.integers(0, 255), min_size=6, max_size=6))
    def test_inconsistent_blocks(self, values: list[int]) -> None:
        """Blocks that are no code word give the same wrong blocks."""
        have: dict[int, Buffer] = {i: bytes([each]) for i, each in enumerate(values)}
        del have[1]
        for want in ([1], [4, 5], [5, 1, 0, 4, 2, 3]):
            self.assertEqual(
                FAST.get(Geometry(4, 2)).rebuild(have, want),
                CODECS.get(Geometry(4, 2)).rebuild(have, want),
            )

    def test_what_it_would_not_survive(self) -> None:
        """What zfec is guarded from, ISA-L is guarded from."""
        fast = FAST.get(Geometry(2, 2))
        for blocks in ([b"aa"], [b"aa"] * 3, [b"aa", b"a"], [b"", b"a"], [b"a", b""]):
            self.assertRaises(ValueError, fast.encode, blocks)
        for have, want in (
            ({0: b"aa"}, [1]),
            ({}, [0]),
            ({0: b"aa", 2: b"a"}, [1]),
            ({0: b"a", 4: b"a"}, [1]),
            ({-1: b"a", 2: b"a"}, [1]),
            ({0: b"a", 1: b"a"}, [4]),
            ({0: b"a", 1: b"a"}, [-1]),
        ):
            self.assertRaises(ValueError, fast.rebuild, have, want)

    def test_input_is_left_alone(self) -> None:
        """Blocks are as they were afterwards, and outputs are nobody else's."""
        every = blocks_of(Geometry(4, 2), 1)
        have: dict[int, Buffer] = {i: bytearray(every[i]) for i in (5, 4, 3, 1)}
        FAST.get(Geometry(4, 2)).rebuild(have, [0, 2])
        self.assertEqual(have, {i: every[i] for i in (5, 4, 3, 1)})
        self.assertEqual([bytes([n])[0] for n in range(256)], list(range(256)))

    def test_few_matrices_are_kept(self) -> None:
        """However many choices of blocks are met, so many matrices are held."""
        geometry = Geometry(10, 5)
        every = blocks_of(geometry, 3)
        fast = Codecs("isal").get(geometry)
        assert isinstance(fast, codec.IsalCodec)
        for lost in combinations(range(10), 3):
            have: dict[int, Buffer] = dict(enumerate(every))
            for index in lost:
                del have[index]
            for want in ([lost[0]], [*lost]):
                self.assertEqual(fast.rebuild(have, want), [every[i] for i in want])
        info = fast._multiplier._tables.cache_info()
        self.assertEqual((info.currsize, info.maxsize), (204 + 36, isal.KEPT))


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

    def test_without_the_library(self) -> None:
        """Where ISA-L is not installed, auto is zfec, and isal is refused in words."""
        with (
            mock.patch.object(isal, "_bundled", list),
            mock.patch.object(isal, "_INSTALLED", "libnone.so.0"),
        ):
            self.assertEqual(Codecs("auto").name, "zfec")
            self.assertEqual(Codecs("auto").get(Geometry(4, 2)).name, "zfec")
            with self.assertRaisesRegex(ValueError, "package pyeclib brings it"):
                Codecs("isal")

    def test_a_library_that_computes_something_else(self) -> None:
        """ISA-L with another matrix, or broken, is not used."""
        if NO_ISAL:
            raise SkipTest(NO_ISAL)
        expand = isal.Isal.expand

        def other(self: isal.Isal, matrix: list[bytes]) -> object:
            return expand(self, [row[::-1] for row in matrix])

        with mock.patch.object(isal.Isal, "expand", other):
            self.assertEqual(Codecs("auto").name, "zfec")
            with self.assertRaisesRegex(ValueError, "does not compute what zfec does"):
                Codecs("isal")

    def test_names(self) -> None:
        """A codec bears the name of what computes; auto is never one."""
        self.assertIn(FAST.name, ("zfec", "isal"))
        self.assertEqual(FAST.get(Geometry(4, 2)).name, FAST.name)
