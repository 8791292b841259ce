"""Who holds what: counting distinct shards, knowing when an answer is final."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.census import Census, distinct
from ostore.model.layouts import Holding, Layout, ShardFacts

LAYOUT = Layout(4, 2, 100, "a" * 32)
OTHER = Layout(4, 2, 100, "b" * 32)


def have(*indices: int, layout: Layout = LAYOUT) -> Holding:
    """A node's answer that it holds these."""
    return Holding(
        "have", tuple(ShardFacts("f" * 64, i, layout, 10, 5.0) for i in indices)
    )


pairs = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from("abcde")), max_size=12, unique=True
)


class DistinctTests(SynchronousTestCase):
    """Indices that can stand on different nodes at once."""

    @given(pairs)
    def test_most(self, found: list[tuple[int, str]]) -> None:
        """No other choice has more, and the choice is made of what was found."""
        chosen = distinct(found)
        self.assertTrue(set(chosen.items()) <= set(found))
        self.assertEqual(len(set(chosen.values())), len(chosen))
        nodes = sorted({node for _, node in found})
        places: list[str | None] = [*nodes, *[None] * 5]
        indices = sorted({index for index, _ in found})
        best = max(
            sum(pair in found for pair in zip(indices, order, strict=True))
            for order in permutations(places, len(indices))
        )
        self.assertEqual(len(chosen), best)

    def test_two_on_one_node(self) -> None:
        """A node with two shards counts once: it fails as a whole."""
        self.assertEqual(len(distinct([(0, "a"), (1, "a")])), 1)


class CensusTests(SynchronousTestCase):
    """Answers in, a picture out."""

    def test_layouts_are_never_mixed(self) -> None:
        """Three shards of each of two layouts are not readable."""
        census = Census(frozenset("abcdef"))
        for index, node in enumerate("abcdef"):
            census.answer(node, have(index, layout=LAYOUT if index < 3 else OTHER))
        self.assertFalse(census.readable())
        self.assertEqual([len(s.places) for s in census.standings()], [3, 3])

    def test_whole_ends_it(self) -> None:
        """All k+m shards known: nobody else is waited for."""
        census = Census(frozenset("abcdefg"))
        for index, node in enumerate("abcdef"):
            self.assertFalse(census.done())
            census.answer(node, have(index))
        self.assertTrue(census.done())
        self.assertFalse(census.certain)

    def test_suspects_are_not_waited_for(self) -> None:
        """A writer is done when everyone but the suspects has answered."""
        census = Census(frozenset("ab"), suspects=frozenset("b"))
        census.answer("a", Holding("none"))
        self.assertTrue(census.done())
        self.assertFalse(census.certain)

    def test_unsure_is_not_none(self) -> None:
        """A node that could not say leaves the census uncertain."""
        census = Census(frozenset("ab"))
        census.answer("a", Holding("none"))
        census.answer("b", Holding("unsure"))
        self.assertFalse(census.certain)
        self.assertEqual(census.unsure, frozenset("b"))

    def test_missing(self) -> None:
        """What no node holds is missing; spare copies change nothing."""
        census = Census(frozenset("abc"))
        census.answer("a", have(0, 1))
        census.answer("b", have(1))
        census.answer("c", Holding("none"))
        (standing,) = census.standings()
        self.assertEqual(standing.missing, (2, 3, 4, 5))
        self.assertEqual(standing.places[1], ("a", "b"))
        self.assertEqual(standing.spread, {0: "a", 1: "b"})
        self.assertEqual(standing.oldest, 5.0)
        self.assertIsNone(census.standing("c" * 32))
