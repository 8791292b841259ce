"""Shard files of one stripe: the same bytes as any other way makes, read in one go."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.codec import Codecs
from ostore.erasure.compressing import compress
from ostore.erasure.draft import ShardDraft
from ostore.erasure.encoder import Encoder
from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Geometry
from ostore.erasure.shardfile import PROLOGUE
from ostore.erasure.single import single_file, single_frame
from ostore.model.errors import ShardRefused
from ostore.model.layouts import Layout, ShardKey

CODECS = Codecs()


def coded(
    content: bytes, k: int, m: int, *, small: bool = False
) -> tuple[Layout, tuple[Frame, ...]]:
    """Layout and frames of a content of one stripe."""
    geometry = Geometry(k, m)
    encoder = Encoder(geometry, CODECS.get(geometry))
    frames = encoder.code(content, compress(content) if small else None)
    return encoder.layout(), frames


def drafted(key: ShardKey, layout: Layout, frame: Frame) -> bytes:
    """The file as it grows frame by frame."""
    draft = ShardDraft()
    head = draft.append(frame)
    return b"".join((PROLOGUE, head, frame.block, draft.trailer(key, layout)))


class SingleTests(SynchronousTestCase):
    """single_file() and single_frame()."""

    @given(st.integers(1, 5000), st.integers(1, 10), st.integers(0, 5), st.booleans())
    @settings(deadline=None, max_examples=60)
    def test_same_bytes(self, size: int, k: int, m: int, small: bool) -> None:
        """For any geometry and size, compressed or not; and the frame comes back."""
        content = Random(size).randbytes(size) if not small else b"ab" * size
        layout, frames = coded(content, k, m, small=small)
        hash = sha256(content).hexdigest()
        for index, frame in enumerate(frames):
            key = ShardKey(hash, index, layout.id)
            file = b"".join(single_file(key, layout, frame))
            self.assertEqual(file, drafted(key, layout, frame))
            found = single_frame(key, file)
            assert found is not None
            self.assertEqual(attrs.evolve(found, block=bytes(found.block)), frame)

    def test_refused(self) -> None:
        """A frame of another layout, of a later stripe, with a block cut short."""
        layout, frames = coded(b"x" * 100, 4, 2)
        other, _ = coded(b"y" * 100, 4, 2)
        key = ShardKey("a" * 64, 0, layout.id)
        for wrong_key, wrong, frame in (
            (ShardKey("a" * 64, 0, other.id), layout, frames[0]),
            (ShardKey("a" * 64, 0, other.id), other, frames[0]),
            (ShardKey("a" * 64, 6, layout.id), layout, frames[0]),
            (key, layout, attrs.evolve(frames[0], number=1)),
            (key, layout, attrs.evolve(frames[0], block=frames[0].block[:-1])),
            (key, layout, attrs.evolve(frames[0], raw=0)),
        ):
            self.assertRaises(ShardRefused, single_file, wrong_key, wrong, frame)

    @given(st.data())
    @settings(deadline=None, max_examples=150)
    def test_changed(self, data: st.DataObject) -> None:
        """Whatever is changed or cut: another frame never, unless only its block is."""
        layout, frames = coded(b"some bytes" * 9, 4, 2)
        key = ShardKey("b" * 64, 1, layout.id)
        file = bytearray(b"".join(single_file(key, layout, frames[1])))
        at = data.draw(st.integers(0, len(file) - 1))
        if data.draw(st.booleans()):
            file[at] ^= data.draw(st.integers(1, 255))
        else:
            del file[at]
        found = single_frame(key, bytes(file))
        if found is not None:
            self.assertEqual(found.row, frames[1].row)
            self.assertEqual(len(found.block), len(frames[1].block))

    def test_another(self) -> None:
        """A whole file under another shard's name is not read."""
        layout, frames = coded(b"some bytes" * 9, 4, 2)
        key = ShardKey("b" * 64, 1, layout.id)
        file = b"".join(single_file(key, layout, frames[1]))
        for wrong in (
            ShardKey("c" * 64, 1, layout.id),
            ShardKey("b" * 64, 2, layout.id),
            ShardKey("b" * 64, 1, "0" * 32),
        ):
            self.assertIsNone(single_frame(wrong, file))
        self.assertIsNone(single_frame(key, b""))
