"""Checksums that are put together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.checksums import crc32c, joined


class Checksums(SynchronousTestCase):
    """CRC-32C."""

    def test_known(self) -> None:
        """It is the one of RFC 3720, appendix B.4."""
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)

    @given(st.sampled_from((1, 3, 64, 1000, 1 << 18)), st.data())
    @settings(deadline=None, max_examples=60)
    def test_joined(self, length: int, data: st.DataObject) -> None:
        """Checksums of blocks of one length make that of all of them."""
        block = st.randoms(use_true_random=False).map(lambda r: r.randbytes(length))
        blocks = data.draw(st.lists(block, max_size=5))
        found = joined(map(crc32c, blocks), length)
        self.assertEqual(found, crc32c(b"".join(blocks)))
