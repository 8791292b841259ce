"""What a repair does, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.census import Census
from ostore.model.healing import plan
from ostore.model.layouts import Holding
from tests.model.test_census import LAYOUT, have

NODES = "abcdefg"


def census(held: Mapping[str, tuple[int, ...]], unsure: str = "") -> Census:
    """Every node answers: with what it holds, with none, or unsure."""
    found = Census(frozenset(NODES))
    for node in NODES:
        if node in unsure:
            found.answer(node, Holding("unsure"))
        else:
            indices = held.get(node, ())
            found.answer(node, have(*indices) if indices else Holding("none"))
    return found


class PlanTests(SynchronousTestCase):
    """From a census to orders."""

    def test_whole(self) -> None:
        """Nothing is done where nothing is missing."""
        found = census({node: (i,) for i, node in enumerate("abcdef")})
        todo = plan(found, found.standing(LAYOUT.id), {}, NODES, nodes_away=False)
        self.assertTrue(todo.whole)
        self.assertEqual(todo.targets, {})

    def test_best_free_node(self) -> None:
        """A shard that is nowhere goes to the best node that holds none of them."""
        found = census({node: (i,) for i, node in enumerate("abcde")})
        todo = plan(found, found.standing(LAYOUT.id), {}, "agf", nodes_away=False)
        self.assertEqual(todo.targets, {5: "g"})

    def test_own_node_first(self) -> None:
        """A shard that rotted on a live node is rebuilt there, even with nodes away."""
        found = census({node: (i,) for i, node in enumerate("abcde")})
        todo = plan(found, found.standing(LAYOUT.id), {5: "f"}, "gf", nodes_away=True)
        self.assertEqual(todo.targets, {5: "f"})

    def test_wait_for_a_node_that_left(self) -> None:
        """While a node is away for a short time, its shards are not missing."""
        found = census({node: (i,) for i, node in enumerate("abcde")})
        todo = plan(found, found.standing(LAYOUT.id), {}, "gf", nodes_away=True)
        self.assertEqual((todo.targets, todo.later), ({}, (5,)))

    def test_unsure_forbids(self) -> None:
        """Unsure is not none: nothing is rebuilt while a node cannot say."""
        found = census({node: (i,) for i, node in enumerate("abcde")}, unsure="g")
        todo = plan(found, found.standing(LAYOUT.id), {}, "gf", nodes_away=False)
        self.assertEqual((todo.targets, todo.later), ({}, (5,)))

    def test_hopeless(self) -> None:
        """Fewer than k shards cannot be mended from themselves."""
        found = census({node: (i,) for i, node in enumerate("abc")})
        todo = plan(found, found.standing(LAYOUT.id), {}, NODES, nodes_away=False)
        self.assertTrue(todo.hopeless)

    def test_double(self) -> None:
        """A node whose shard stands elsewhere too takes one that has no other place."""
        held = {node: (i,) for i, node in enumerate("abcde")} | {"f": (4,)}
        found = census(held)
        standing = found.standing(LAYOUT.id)
        for ranked, target in (("abcdef", "f"), ("abcdefg", "g")):
            todo = plan(found, standing, {}, ranked, nodes_away=False)
            self.assertEqual(todo.targets, {5: target})

    def test_two_on_one_node(self) -> None:
        """A shard without a node of its own is built anew on another."""
        found = census({n: (i,) for i, n in enumerate("abcd")} | {"e": (4, 5)})
        todo = plan(found, found.standing(LAYOUT.id), {}, "abcdeg", nodes_away=False)
        self.assertEqual(todo.targets, {5: "g"})

    def test_no_room(self) -> None:
        """Two shards on one node with no free node: the second waits."""
        found = census({n: (i,) for i, n in enumerate("abcd")} | {"e": (4, 5)})
        todo = plan(found, found.standing(LAYOUT.id), {}, "abcde", nodes_away=False)
        self.assertEqual((todo.targets, todo.later, todo.whole), ({}, (5,), False))

    @given(
        st.dictionaries(
            st.sampled_from(NODES), st.tuples(st.integers(0, 5)), min_size=4
        ),
        st.dictionaries(st.integers(0, 5), st.sampled_from(NODES)),
        st.permutations(NODES),
        st.booleans(),
    )
    def test_never_two_on_one_node(
        self,
        held: dict[str, tuple[int, ...]],
        spots: dict[int, str],
        ranked: list[str],
        away: bool,
    ) -> None:
        """Targets are distinct nodes that nobody relies on, for shards that are absent."""
        found = census(held)
        standing = found.standing(LAYOUT.id)
        todo = plan(found, standing, spots, ranked, nodes_away=away)
        self.assertEqual(len(set(todo.targets.values())), len(todo.targets))
        if standing is not None:
            relied_on = set(standing.spread.values())
            self.assertFalse(set(todo.targets.values()) & relied_on)
            self.assertFalse(todo.targets.keys() & standing.spread.keys())
        self.assertFalse(todo.targets.keys() & set(todo.later))
