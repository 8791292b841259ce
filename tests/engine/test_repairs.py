"""The repair queue: distinct, bounded, worst first."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.repairs import Repairs
from tests.model.test_census import LAYOUT, OTHER


class RepairsTests(SynchronousTestCase):
    """What reads and writes put in, and what mending takes out."""

    def test_one_entry_a_layout(self) -> None:
        """Findings about one content and layout gather in one repair."""
        queue = Repairs()
        queue.found("a", LAYOUT, {1: ""})
        queue.found("a", LAYOUT, {2: "n"}, marks=frozenset([("", "x", 1)]))
        queue.found("a", LAYOUT, {1: "m"})
        queue.found("a", OTHER, {1: ""})
        self.assertEqual(len(queue), 2)
        first = queue.take(0.0, 1)[0]
        self.assertEqual(first.spots, {1: "m", 2: "n"})
        self.assertEqual(first.marks, {("", "x", 1)})

    def test_worst_first(self) -> None:
        """The content with the fewest shards left goes first."""
        queue = Repairs()
        queue.found("a", LAYOUT, {1: ""})
        queue.found("b", LAYOUT, {1: "", 2: ""})
        self.assertEqual(queue.worst, 4)
        self.assertEqual([r.hash for r in queue.take(0.0, 2)], ["b", "a"])
        self.assertIsNone(queue.worst)

    def test_limit(self) -> None:
        """Beyond the limit findings are counted and forgotten, never kept."""
        queue = Repairs(limit=1)
        queue.found("a", LAYOUT, {1: ""})
        queue.found("b", LAYOUT, {1: ""})
        self.assertEqual((len(queue), queue.forgotten), (1, 1))

    def test_back_off(self) -> None:
        """What could not be mended waits, and blocks nothing behind it."""
        queue = Repairs()
        queue.found("a", LAYOUT, {1: "", 2: ""})
        (stuck,) = queue.take(0.0, 1)
        queue.again(stuck, 10.0)
        queue.found("b", LAYOUT, {1: ""})
        self.assertEqual([r.hash for r in queue.take(0.0, 9)], ["b"])
        self.assertEqual(queue.next_due(), 10.0)
        self.assertEqual([r.hash for r in queue.take(10.0, 9)], ["a"])

    def test_news_end_the_wait(self) -> None:
        """A new finding about a waiting content makes it due at once; a repeat not."""
        queue = Repairs()
        queue.found("a", LAYOUT, {1: ""})
        (stuck,) = queue.take(0.0, 1)
        queue.again(stuck, 10.0)
        queue.found("a", LAYOUT, {1: ""})
        self.assertEqual(queue.take(0.0, 1), [])
        queue.found("a", LAYOUT, {2: ""})
        self.assertEqual([r.spots for r in queue.take(0.0, 1)], [{1: "", 2: ""}])

    def test_found_again_while_under_way(self) -> None:
        """A repair put back merges with what was found meanwhile."""
        queue = Repairs()
        queue.found("a", LAYOUT, {1: ""}, marks=frozenset([("", "x", 1)]))
        (running,) = queue.take(0.0, 1)
        queue.found("a", LAYOUT, {3: "n"})
        queue.again(running, 5.0)
        (merged,) = queue.take(5.0, 1)
        self.assertEqual(merged.spots, {1: "", 3: "n"})
        self.assertEqual(merged.marks, {("", "x", 1)})
        self.assertEqual(merged.tries, 1)

    def test_one_at_a_time(self) -> None:
        """What is being mended is not given again, nor sooner for what itself found."""
        queue = Repairs()
        queue.found("a", LAYOUT, {1: ""})
        (running,) = queue.take(0.0, 1)
        queue.found("a", LAYOUT, {2: "n"}, rotten=True)
        self.assertEqual((queue.take(0.0, 9), queue.next_due()), ([], None))
        queue.again(running, 5.0)
        self.assertEqual((queue.take(4.0, 9), queue.next_due()), ([], 5.0))
        (running,) = queue.take(5.0, 1)
        queue.found("a", LAYOUT, {3: "n"})
        queue.done(running)
        self.assertEqual(len(queue.take(5.0, 9)), 1)

    def test_wake(self) -> None:
        """Whoever drains the queue hears of each finding."""
        queue = Repairs()
        calls: list[int] = []
        queue.wake = lambda: calls.append(1)
        queue.found("a", LAYOUT, {1: ""})
        self.assertEqual(calls, [1])
