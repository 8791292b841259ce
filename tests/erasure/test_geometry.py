"""Stripes and blocks cover a content exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.geometry import STRIPE, Geometry
from ostore.model.layouts import MAX_SHARDS
from tests.erasure.cases import geometries, some


class GeometryTests(SynchronousTestCase):
    """How contents are cut."""

    def test_limits(self) -> None:
        """Only k >= 1, m >= 0, k + m <= 32 is a geometry."""
        for k, m in ((0, 2), (-1, 2), (4, -1), (MAX_SHARDS, 1), (1, MAX_SHARDS)):
            with self.assertRaises(ValueError) as caught:
                Geometry(k, m)
            self.assertIn(f"k={k} m={m}", str(caught.exception))
        self.assertEqual(Geometry(MAX_SHARDS, 0).shards, MAX_SHARDS)
        self.assertEqual(Geometry(1, MAX_SHARDS - 1).shards, MAX_SHARDS)

    @some
    @given(geometries, st.integers(0, 2 * STRIPE))
    def test_blocks_cover_the_stripe(self, geometry: Geometry, stored: int) -> None:
        """The k blocks hold a stripe, and blocks one byte shorter would not."""
        block = geometry.block(stored)
        self.assertGreaterEqual(block * geometry.data, stored)
        if stored:
            self.assertLess((block - 1) * geometry.data, stored)

    @some
    @given(st.integers(0, 1 << 63))
    def test_stripes_cover_the_content(self, size: int) -> None:
        """A content has as many stripes as it needs, exactly, of any size."""
        stripes = Geometry(4, 2).stripes(size)
        self.assertGreaterEqual(stripes * STRIPE, size)
        self.assertLess((stripes - 1) * STRIPE, size or 1)
