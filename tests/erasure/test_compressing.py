"""Compressed stripes: smaller or left alone, exact, and bounded whatever is in them."""

from __future__ import annotations

import attrs
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.compressing import (
    LEAST,
    SAVING,
    ZSTD,
    compress,
    expand,
    promising,
)
from ostore.erasure.decoder import decode, rebuild
from ostore.erasure.encoder import Encoder
from ostore.erasure.framing import Frame, Row, crc32c
from ostore.erasure.geometry import STRIPE, Geometry
from ostore.model.errors import ShardRotten
from tests.erasure.cases import CODECS, content, few, geometries

TEXT = b"".join(b"%d lines of a log, one like the other\n" % n for n in range(50_000))


def shrunk(raw: bytes) -> bytes:
    """What compress() makes of something that shrinks."""
    made = compress(raw)
    assert made is not None
    return made


class CompressTests(SynchronousTestCase):
    """What is compressed, and what is not."""

    def test_text(self) -> None:
        """A text is promising, shrinks, and comes back."""
        raw = TEXT[:STRIPE]
        self.assertTrue(promising(raw))
        made = shrunk(raw)
        self.assertLess(len(made), len(raw) // 4)
        row = Row(len(raw), len(made), ZSTD, crc32c(made))
        self.assertTrue(expand(row, [made[:1000], made[1000:]]) == raw)

    def test_noise(self) -> None:
        """What has no pattern stays raw, and is found out by its samples."""
        for size in (LEAST, 30_000, STRIPE):
            self.assertIsNone(compress(content(size)))
        self.assertFalse(promising(content(STRIPE)))

    def test_small(self) -> None:
        """A few bytes stay as they are, whatever they are."""
        self.assertFalse(promising(b"a" * (LEAST - 1)))
        self.assertFalse(promising(b""))

    @few
    @given(st.binary(max_size=2000), st.integers(1, 400))
    def test_never_larger(self, piece: bytes, times: int) -> None:
        """What is kept saves enough, and is the same bytes again."""
        raw = (piece * times)[:STRIPE]
        made = compress(raw) if raw else None
        if made is not None:
            self.assertLessEqual(len(made), SAVING * len(raw))
            row = Row(len(raw), len(made), ZSTD, crc32c(made))
            self.assertTrue(expand(row, [made]) == raw)


class ExpandTests(SynchronousTestCase):
    """Blocks that lie."""

    def rotten(self, row: Row, stored: bytes) -> None:
        """It is refused as rot."""
        with self.assertRaises(ShardRotten):
            expand(row, [stored])

    def test_bombs(self) -> None:
        """No frame expands beyond the row, whatever it says of itself."""
        bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
        self.assertLess(len(bomb), STRIPE)
        self.rotten(Row(STRIPE, len(bomb), ZSTD, 0), bomb)
        silent = zstandard.ZstdCompressor(write_content_size=False).compress(
            bytes(1 << 28)
        )
        self.rotten(Row(STRIPE, len(silent), ZSTD, 0), silent)

    def test_lies(self) -> None:
        """Another length, garbage, a cut frame, nothing at all."""
        made = shrunk(TEXT[:STRIPE])
        self.rotten(Row(STRIPE - 1, len(made), ZSTD, 0), made)
        self.rotten(Row(STRIPE, len(made), ZSTD, 0), made[:-5])
        self.rotten(Row(STRIPE, 1000, ZSTD, 0), content(1000))
        self.rotten(Row(STRIPE, 1, ZSTD, 0), b"")

    @few
    @given(st.binary(max_size=200))
    def test_garbage(self, stored: bytes) -> None:
        """Whatever the bytes, there is the right length or rot, and nothing else."""
        try:
            raw = expand(Row(100, max(1, len(stored)), ZSTD, 0), [stored])
        except ShardRotten:
            return
        self.assertEqual(len(raw), 100)


class CodedTests(SynchronousTestCase):
    """Through encoder and decoder."""

    @few
    @given(geometries, st.integers(LEAST, 300_000), st.randoms(use_true_random=False))
    def test_any_k(self, geometry: Geometry, size: int, random: object) -> None:
        """Any k blocks of a compressed stripe give the raw bytes, or the others."""
        raw = TEXT[:size]
        codec = CODECS.get(geometry)
        encoder = Encoder(geometry, codec)
        frames = encoder.code(memoryview(raw), shrunk(raw))
        row = encoder.table().row(0)
        self.assertEqual((row.raw, row.coding), (size, ZSTD))
        self.assertEqual(encoder.layout().size, size)
        self.assertLess(sum(len(frame.block) for frame in frames), size * 3)
        picked = list(range(geometry.shards))
        random.shuffle(picked)  # type: ignore[attr-defined] # hypothesis gives a Random
        some = {index: frames[index].block for index in picked[: geometry.data]}
        self.assertTrue(b"".join(decode(row, geometry, codec, some)) == raw)
        rest = picked[geometry.data :]
        made = rebuild(0, row, geometry, codec, some, rest)
        plain = [attrs.evolve(frame, block=bytes(frame.block)) for frame in made]
        expected = [
            attrs.evolve(frames[index], block=bytes(frames[index].block))
            for index in rest
        ]
        self.assertEqual(plain, expected)
        self.assertIsInstance(frames[0], Frame)
