"""Layouts and the names of shards."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.errors import Malformed
from ostore.model.layouts import MAX_SHARDS, MAX_SIZE, Layout, ShardFacts, ShardKey

ID = "0123456789abcdef" * 2


class LayoutTests(SynchronousTestCase):
    """The `X-Ostore-Layout` header."""

    @settings(deadline=None)
    @given(st.integers(1, 32), st.integers(0, 31), st.integers(0, MAX_SIZE))
    def test_round_trip(self, data: int, parity: int, size: int) -> None:
        """A layout comes back from its header, unless it has too many shards."""
        layout = Layout(data, parity, size, ID)
        self.assertEqual(layout.shards, data + parity)
        if layout.shards > MAX_SHARDS:
            self.assertRaises(Malformed, Layout.parse, layout.header())
        else:
            self.assertEqual(Layout.parse(f" {layout.header()}\t"), layout)

    def test_without_id(self) -> None:
        """The id may be left out; then it is empty."""
        self.assertEqual(Layout.parse("k=4;m=2;size=10"), Layout(4, 2, 10, ""))

    def test_refused(self) -> None:
        """Missing, misplaced, foreign or too large parts are Malformed."""
        wrong = (
            "", "k=4", "k=4; m=2", "m=2; k=4; size=1", "k=0; m=2; size=1",
            "k=4; m=2; size=-1", "k=100; m=2; size=1", "k=31; m=2; size=1",
            f"k=4; m=2; size={MAX_SIZE + 1}", f"k=4; m=2; size=1; id={ID[1:]}",
            f"k=4; m=2; size=1; id={ID.upper()}", "k=4; m=2; size=1; id=",
            f"k=4; m=2; size=1; id={ID}; x=1", "k=\u0664; m=2; size=1",
            "k=4;\nm=2; size=1",
        )  # fmt: skip
        for text in wrong:
            self.assertRaises(Malformed, Layout.parse, text)

    def test_key(self) -> None:
        """What a node says of a shard names it."""
        facts = ShardFacts("ab", 3, Layout(4, 2, 1, ID), 9, 0.5)
        self.assertEqual(facts.key, ShardKey("ab", 3, ID))
