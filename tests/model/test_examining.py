"""Counting one content from everything that is held of it."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.collecting import Held, Stretch, expired, orphans
from ostore.model.examining import examine, keepers
from ostore.model.layouts import Layout, ShardFacts
from ostore.model.scrubbing import ROW, SLICES, Progress, in_rows, span

ONE, OTHER = Layout(4, 2, 100, "1" * 32), Layout(4, 2, 100, "2" * 32)
HASH = "a" * 64

SHARDS = st.lists(
    st.builds(
        lambda node, index, layout, state: (
            f"n{node}",
            ShardFacts(HASH, index, layout, 10, 100.0, state),
        ),
        st.integers(0, 7),
        st.integers(0, 5),
        st.sampled_from([ONE, ONE, ONE, OTHER]),
        st.sampled_from(["whole", "whole", "whole", "bad", "garbage"]),
    ),
    max_size=24,
    unique_by=lambda held: (held[0], held[1].key),
)


def held(node: str, index: int, state: str = "whole", layout: Layout = ONE) -> Held:
    """One shard on a node."""
    return node, ShardFacts(HASH, index, layout, 10, 100.0, state)


class ExamineTests(SynchronousTestCase):
    """What is missing, what is too much."""

    def test_whole(self) -> None:
        """Six on six: nothing to do."""
        found = examine([held(f"n{i}", i) for i in range(6)])
        self.assertEqual((found.left, found.spots, found.surplus), (6, {}, 0))

    def test_missing(self) -> None:
        """Bad ones are missing, and known by the node that has them."""
        shards = [held(f"n{i}", i) for i in range(4)] + [held("n4", 4, "bad")]
        found = examine(shards)
        self.assertEqual((found.left, found.spots), (4, {4: "n4", 5: ""}))

    def test_unreadable_footer(self) -> None:
        """A file of which only the name is left is a bad shard of its layout."""
        gone = held("n4", 4, "bad", Layout(0, 0, 0, ONE.id))
        found = examine([*(held(f"n{i}", i) for i in range(4)), gone])
        self.assertEqual(found.spots, {4: "n4", 5: ""})

    def test_two_on_one_node(self) -> None:
        """Two shards on a node count for one: it fails as a whole."""
        shards = [held(f"n{i}", i) for i in range(5)] + [held("n0", 5)]
        self.assertEqual(examine(shards).left, 5)

    def test_nothing(self) -> None:
        """Nothing but garbage is nothing."""
        self.assertIsNone(examine([held("n0", 0, "garbage")]).layout)

    @given(SHARDS, st.permutations([f"n{i}" for i in range(8)]))
    @settings(deadline=None, max_examples=200)
    def test_keepers(self, shards: list[Held], preferred: list[str]) -> None:
        """Those that stay are all of one layout, whole, and each on another node."""
        stay = keepers(shards, preferred)
        found = examine(shards)
        if stay is None:
            self.assertTrue(found.layout is None or found.spots)
            return
        self.assertEqual(sorted(key.index for key in stay), list(range(6)))
        self.assertEqual(len({key.layout for key in stay}), 1)
        self.assertEqual(len(set(stay.values())), 6)
        whole = {(n, facts.key) for n, facts in shards if facts.state == "whole"}
        self.assertLessEqual({(n, key) for key, n in stay.items()}, whole)
        self.assertEqual(keepers(list(reversed(shards)), preferred), stay)

    def test_preference(self) -> None:
        """Of two alike the one on the node that comes first stays."""
        shards = [held(f"n{i}", i) for i in range(6)] + [held("n6", 2)]
        first = keepers(shards, ["n6"])
        last = keepers(shards, ["n2"])
        assert first is not None and last is not None
        self.assertIn("n6", first.values())
        self.assertNotIn("n6", last.values())


class CollectTests(SynchronousTestCase):
    """Suspicions."""

    @given(SHARDS, st.booleans(), st.floats(0, 200))
    @settings(deadline=None, max_examples=100)
    def test_orphans(self, shards: list[Held], referred: bool, grace: float) -> None:
        """Never what is referred to, never what has a young shard."""
        stretch = Stretch({HASH: shards}, {HASH} if referred else set())
        found = orphans(stretch, grace)
        if found:
            self.assertFalse(referred)
            self.assertLessEqual(grace, 100)
        for _, facts in found.get(HASH, []):
            self.assertNotEqual(facts.state, "garbage")

    @given(SHARDS, st.floats(0, 200))
    @settings(deadline=None, max_examples=100)
    def test_expired(self, shards: list[Held], expiry: float) -> None:
        """Only what lies in garbage, and long enough."""
        found = expired(Stretch({HASH: shards}, set()), expiry)
        garbage = [each for each in shards if each[1].state == "garbage"]
        old = garbage if expiry <= 100 else []
        self.assertEqual(found, {HASH: old} if old else {})


class ScrubbingTests(SynchronousTestCase):
    """Slices and periods."""

    def test_spans(self) -> None:
        """The slices hold every hash, each once."""
        before = ""
        for number in range(SLICES):
            after, until = span(number)
            self.assertEqual(after, before)
            before = until
        self.assertEqual(before, "f" * 64)

    @given(st.lists(st.floats(0.1, 400), min_size=1, max_size=30))
    @settings(deadline=None, max_examples=50)
    def test_oldest_first(self, pauses: list[float]) -> None:
        """However the runs come, what waits longest is read first."""
        now, period = 1e9, 1000.0
        progress = Progress.begin(now)
        for pause in pauses:
            now += pause
            progress, due = progress.plan(now, period)
            rest = [progress.read[n] for n in range(SLICES) if n not in due]
            for number in due:
                self.assertLessEqual(progress.read[number], min([now, *rest]))
            progress = progress.done(due, now)
            self.assertEqual(progress, Progress.from_json(progress.to_json()))

    @given(st.integers(0, 1000))
    @settings(deadline=None, max_examples=10)
    def test_all_in_a_period(self, seed: int) -> None:
        """Everything is read within the period, and not much more often."""
        now, period = 1e9, 2560.0
        progress, read = Progress.begin(now), 0
        chance = Random(seed)
        for _ in range(600):
            now += chance.uniform(5, 14)
            progress, due = progress.plan(now, period)
            progress = progress.done(due, now)
            read += len(due)
            self.assertLessEqual(progress.oldest(now), period)
        self.assertLess(read, SLICES * (now - 1e9) / period * 1.12)

    def test_pauses_and_clocks(self) -> None:
        """After a long pause all is due, and a clock that went back waits for nothing."""
        progress = Progress.begin(1e9)
        self.assertEqual(len(progress.plan(2e9, 1000.0)[1]), SLICES)
        progress, due = progress.plan(5e8, 1000.0)
        self.assertEqual((progress.at, list(due)), (5e8, []))

    @given(st.sets(st.integers(0, 255)))
    @settings(deadline=None, max_examples=50)
    def test_rows(self, numbers: set[int]) -> None:
        """Rows hold exactly the slices asked for."""
        rows = in_rows(sorted(numbers))
        found = [n for first, last in rows for n in range(first, last + 1)]
        self.assertEqual(found, sorted(numbers))
        self.assertTrue(all(last - first < ROW for first, last in rows))
