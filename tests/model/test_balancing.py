"""Balancing: who gives, who takes, and that no more is moved than has to be."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.balancing import TOLERANCE, Balance, Bearer, shares

SIZE = 100


class World:
    """Contents of six shards on nodes, moved as a balance says."""

    def __init__(self, nodes: int, contents: int, zones: int, seed: int) -> None:
        rng = Random(seed)
        self.zone = {f"n{i}": f"z{i % zones}" for i in range(nodes)}
        names = sorted(self.zone)
        self.contents = [
            dict.fromkeys(rng.sample(names, 6), SIZE) for _ in range(contents)
        ]
        self.leaving: set[str] = set()
        self.moved = 0

    def add(self, *names: str) -> None:
        """More nodes, each a zone of its own."""
        self.zone |= {name: name for name in names}

    def used(self, node: str) -> int:
        """Bytes on a node."""
        return sum(holders.get(node, 0) for holders in self.contents)

    def balance(self) -> Balance:
        """Weigh everything."""
        bearers = {
            node: Bearer(
                node, zone, self.used(node), 10**9, leaving=node in self.leaving
            )
            for node, zone in self.zone.items()
        }
        return Balance.of(bearers, 6)

    def run(self) -> float:
        """One pass over all contents; gives what had to move before it."""
        balance = self.balance()
        excess = balance.excess
        for holders in self.contents:
            for source, target in balance.moves(holders):
                assert target not in holders
                assert target not in self.leaving
                holders[target] = holders.pop(source)
                self.moved += SIZE
        for node in self.zone:
            assert abs(self.used(node) - balance.used[node]) < 1
        return excess


class ShareTests(SynchronousTestCase):
    """How much each node shall hold."""

    @given(
        st.lists(
            st.builds(
                Bearer,
                st.uuids().map(str),
                st.just("z"),
                st.integers(0, 10**6),
                st.integers(0, 10**6),
                st.just(True),
                st.booleans(),
            ),
            min_size=1,
            max_size=12,
            unique_by=lambda each: each.id,
        ),
        st.integers(1, 8),
    )
    @settings(deadline=None, max_examples=200)
    def test_shares(self, bearers: list[Bearer], width: int) -> None:
        """None above the width-th part, leaving ones nothing, and all is given out."""
        found = shares(bearers, width)
        total = sum(each.used for each in bearers)
        staying = [each for each in bearers if not each.leaving]
        for each in bearers:
            self.assertLessEqual(found[each.id], total / width + 1e-3)
            if each.leaving:
                self.assertEqual(found[each.id], 0)
        if len(staying) >= width:
            self.assertLess(abs(sum(found.values()) - total), 1)

    def test_by_room(self) -> None:
        """A node with twice the room gets twice as much."""
        found = shares(
            [Bearer(f"n{i}", "z", 100, 900 if i else 1900) for i in range(8)], 2
        )
        self.assertLess(abs(found["n0"] / found["n1"] - 2), 0.01)


class MoveTests(SynchronousTestCase):
    """Whole passes."""

    @given(st.integers(0, 10**6), st.integers(1, 4))
    @settings(deadline=None, max_examples=20)
    def test_new_nodes(self, seed: int, new: int) -> None:
        """New nodes fill up, and what is moved is what has to be."""
        world = World(6, 400, 6, seed)
        world.add(*(f"x{i}" for i in range(new)))
        excess = world.run()
        self.assertLess(world.moved, excess * 1.2)
        after = world.balance()
        for node in world.zone:
            off = abs(world.used(node) - after.share[node])
            self.assertLess(off, after.share[node] * TOLERANCE + 2 * SIZE, node)
        before = world.moved
        world.run()
        self.assertEqual(world.moved, before)

    @given(st.integers(0, 10**6))
    @settings(deadline=None, max_examples=20)
    def test_drain(self, seed: int) -> None:
        """A leaving node ends up empty, and only its shards need to move."""
        world = World(8, 300, 8, seed)
        world.run()
        world.moved = 0
        world.leaving = {"n3"}
        had = world.used("n3")
        world.run()
        self.assertEqual(world.used("n3"), 0)
        self.assertLess(world.moved, had * 1.2)

    def test_nowhere_to_go(self) -> None:
        """With six nodes a leaving one keeps what nobody else may hold."""
        world = World(6, 20, 6, 1)
        world.leaving = {"n3"}
        world.run()
        self.assertEqual(world.used("n3"), 20 * SIZE)

    def test_full(self) -> None:
        """A node without room is given nothing."""
        bearers = {
            f"n{i}": Bearer(f"n{i}", f"n{i}", 600, 10**6, leaving=i == 0)
            for i in range(7)
        } | {"x": Bearer("x", "x", 0, 50)}
        balance = Balance.of(bearers, 6)
        holders = dict.fromkeys([f"n{i}" for i in range(6)], 100)
        self.assertEqual(list(balance.moves(holders)), [("n0", "n6")])

    def test_zones_are_restored(self) -> None:
        """Three shards in one zone become two when a third zone comes."""
        zones = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "b3": "b"}
        zones |= {"c1": "c", "c2": "c", "c3": "c"}
        bearers = {n: Bearer(n, z, 600, 10**6) for n, z in zones.items()}
        balance = Balance.of(bearers, 6)
        holders = {node: SIZE for node in zones if zones[node] != "c"}
        found = balance.moves(holders)
        self.assertEqual(sorted(zones[source] for source, _ in found), ["a", "b"])
        self.assertEqual({zones[target] for _, target in found}, {"c"})

    @given(st.integers(0, 10**6))
    @settings(deadline=None, max_examples=20)
    def test_zones_stay_spread(self, seed: int) -> None:
        """Balancing never crowds a zone."""
        world = World(9, 200, 3, seed)
        for _ in range(2):
            world.run()
        for holders in world.contents:
            counts = [
                sum(world.zone[n] == z for n in holders) for z in ["z0", "z1", "z2"]
            ]
            self.assertEqual(max(counts), 2)
