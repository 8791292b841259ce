"""Which node takes which shard."""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.errors import NoSpace, TooFewNodes
from ostore.model.nodes import Boot, Heartbeat, Members
from ostore.model.placement import Candidate, candidates, place, rank

GIB = 1 << 30
KEYS = st.text("0123456789abcdef", min_size=1, max_size=8)


def node(
    number: int,
    zone: str = "z",
    state: str = "up",
    free: int = GIB,
    suspect: bool = False,
) -> Candidate:
    """A candidate."""
    return Candidate(f"n{number}", zone, free, 2 * GIB, state, suspect)


CLUSTERS = st.lists(
    st.builds(
        Candidate,
        id=st.integers(0, 20).map("n{}".format),
        zone=st.sampled_from("abc"),
        free=st.sampled_from([0, 1, GIB, 1 << 60]),
        total=st.just(GIB),
        state=st.sampled_from(
            ["up", "up", "up", "scanning", "full", "draining", "readonly", "conflict"]
        ),
        suspect=st.booleans(),
    ),
    max_size=15,
    unique_by=lambda each: each.id,
)


class PlaceTests(SynchronousTestCase):
    """New shards."""

    @settings(deadline=None, max_examples=200)
    @given(KEYS, CLUSTERS, st.integers(1, 8), st.data())
    def test_rules(
        self, key: str, cluster: list[Candidate], shards: int, data: st.DataObject
    ) -> None:
        """Of any cluster: distinct able nodes, even zones, suspects last, or an error."""
        quorum = data.draw(st.integers(1, shards))
        order = data.draw(st.permutations(cluster))
        able = {n.id: n for n in cluster if n.state in ("up", "scanning")}
        trusted = {n for n in able if not able[n].suspect}
        try:
            placed = place(key, shards, quorum, cluster)
        except NoSpace:
            self.assertLess(len(able), quorum)
            full = sum(n.state == "full" for n in cluster)
            self.assertGreaterEqual(len(able) + full, quorum)
            return
        except TooFewNodes as error:
            self.assertLess(len(able), quorum)
            self.assertIn(f"{quorum} nodes", str(error))
            self.assertIn(f"{len(able)} can", str(error))
            return
        self.assertEqual(placed, place(key, shards, quorum, order), "order matters")
        pool = trusted if len(trusted) >= quorum else set(able)
        self.assertEqual(len(placed), min(shards, len(pool)))
        self.assertEqual(list(placed), list(range(len(placed))))
        self.assertEqual(len(set(placed.values())), len(placed))
        self.assertLessEqual(set(placed.values()), pool)
        if pool != trusted:
            self.assertLessEqual(trusted, set(placed.values()))
            return
        taken = Counter(able[n].zone for n in placed.values())
        room = Counter(able[n].zone for n in pool)
        for zone in room:
            if taken[zone] < room[zone]:
                self.assertLessEqual(max(taken.values()) - taken[zone], 1)

    def test_too_few(self) -> None:
        """The error names what is needed and what is there."""
        error = self.assertRaises(
            TooFewNodes,
            place,
            "k",
            6,
            5,
            [node(1), node(2), node(3), node(4, state="down")],
        )
        self.assertEqual(
            str(error), "5 nodes are needed for a write, 3 can take shards"
        )

    def test_full(self) -> None:
        """When only space is lacking, the error says so."""
        cluster = [node(i, state="full" if i < 2 else "up") for i in range(6)]
        self.assertRaises(NoSpace, place, "k", 6, 5, cluster)
        self.assertRaises(TooFewNodes, place, "k", 6, 5, cluster[:4])

    def test_fewer_nodes(self) -> None:
        """With five nodes for six shards the last parity shard is left out."""
        placed = place("k", 6, 5, [node(i) for i in range(5)])
        self.assertEqual(list(placed), [0, 1, 2, 3, 4])

    def test_suspects(self) -> None:
        """Suspects are left out while there is a quorum without them."""
        cluster = [node(i, suspect=i == 0) for i in range(6)]
        self.assertNotIn("n0", place("k", 6, 5, cluster).values())
        self.assertIn("n0", place("k", 6, 6, cluster).values())

    def test_excluded(self) -> None:
        """Excluded nodes are as good as gone."""
        cluster = [node(i) for i in range(7)]
        placed = place("k", 6, 5, cluster, frozenset({"n3"}))
        self.assertEqual(set(placed.values()), {f"n{i}" for i in range(7)} - {"n3"})

    def test_free_space_weighs(self) -> None:
        """A node with three times the room takes about three times the shards."""
        cluster = [node(0, free=3 * GIB), *(node(i) for i in range(1, 10))]
        drawn = Counter(place(str(i), 1, 1, cluster)[0] for i in range(2400))
        self.assertTrue(500 < drawn["n0"] < 700, drawn)
        for i in range(1, 10):
            self.assertTrue(130 < drawn[f"n{i}"] < 270, drawn)


class RankTests(SynchronousTestCase):
    """Rendezvous."""

    @settings(deadline=None)
    @given(KEYS, CLUSTERS, st.data())
    def test_same_for_all(
        self, key: str, cluster: list[Candidate], data: st.DataObject
    ) -> None:
        """Two observers with other views of space and suspicion rank alike."""
        other = [
            attrs.evolve(n, free=7, suspect=not n.suspect, state="full")
            for n in data.draw(st.permutations(cluster))
        ]
        self.assertEqual(rank(key, cluster), rank(key, other))
        self.assertEqual(set(rank(key, cluster)), {n.id for n in cluster})

    @settings(deadline=None)
    @given(KEYS, CLUSTERS)
    def test_joining_moves_nothing_else(
        self, key: str, cluster: list[Candidate]
    ) -> None:
        """A node that joins does not change the order of the others."""
        ranked = rank(key, [*cluster, node(99)])
        ranked.remove("n99")
        self.assertEqual(ranked, rank(key, cluster))

    def test_even(self) -> None:
        """Every node is first for its share of the keys."""
        cluster = [node(i, free=10**i) for i in range(6)]
        first = Counter(rank(str(i), cluster)[0] for i in range(1200))
        for i in range(6):
            self.assertTrue(150 < first[f"n{i}"] < 250, first)


class CandidatesTests(SynchronousTestCase):
    """From members to candidates."""

    def test_states(self) -> None:
        """Suspicion is a flag beside the state; who is down or in conflict says so."""
        beat = Heartbeat("a", Boot(1, "0" * 16), 1, "", "z", 3, 9, 0, "full", 0.0)
        members = Members(10.0).heard(attrs.evolve(beat, node="gone"), 0.0)
        for name in ("a", "b"):
            members = members.heard(attrs.evolve(beat, node=name), 5.0)
        members = members.suspect("b", 6.0)
        found = {each.id: each for each in candidates(members, 11.0)}
        self.assertEqual(found["a"], Candidate("a", "z", 3, 9, "full", False))
        self.assertEqual(found["b"], Candidate("b", "z", 3, 9, "full", True))
        self.assertEqual(found["gone"].state, "down")
        self.assertFalse(found["gone"].writable)
