"""Group commit: what waits shares the next call, within bounds."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.elastic_batches import Batches
from ostore.backends.metadata.elastic_client import MaybeApplied
from ostore.model.errors import MetadataUnavailable
from ostore.streaming.tasks import Tasks, start


class BatchTests(SynchronousTestCase):
    """Items are numbers; the test answers each batch itself."""

    def setUp(self) -> None:
        """Nothing sent."""
        self.sent: list[list[int]] = []
        self.answers: list[Deferred[Sequence[str | Exception]]] = []
        self.tasks = Tasks(Logger())
        self.batches = self.make()

    def make(self, lanes: int = 1, beside: int = 1) -> Batches[int, str]:
        """Batches of three items or 100 bytes; ten items may wait."""
        return Batches(
            self.send,
            self.tasks,
            most=3,
            heaviest=100,
            lanes=lanes,
            beside=beside,
            waiting=10,
        )

    async def send(self, items: Sequence[int]) -> Sequence[str | Exception]:
        """Note them, and wait for the answer."""
        self.sent.append(list(items))
        self.answers.append(Deferred())
        return await self.answers[-1]

    def submit(self, *items: int, weight: int = 0) -> list[Deferred[str]]:
        """Their outcomes, in time."""
        return [start(self.batches.submit(item, weight)) for item in items]

    def answer(self, *outcomes: str | Exception) -> None:
        """For the oldest batch that has none."""
        next(one for one in self.answers if not one.called).callback(outcomes)

    def test_one_alone_goes_at_once(self) -> None:
        """The others wait for its answer and go together, in order."""
        works = self.submit(1, 2, 3, 4, 5)
        self.assertEqual(self.sent, [[1]])
        self.answer("a")
        self.assertEqual(self.sent, [[1], [2, 3, 4]])
        self.answer("b", "c", "d")
        self.answer("e")
        self.assertEqual([self.successResultOf(one) for one in works], [*"abcde"])
        self.assertEqual(self.sent[2:], [[5]])
        self.assertEqual(len(self.tasks), 0)

    def test_lanes(self) -> None:
        """So many batches are under way at once."""
        self.batches = self.make(lanes=2)
        self.submit(1, 2, 3, 4)
        self.assertEqual(self.sent, [[1], [2]])
        self.answer("a")
        self.assertEqual(self.sent[2:], [[3, 4]])

    def test_a_lane_opens_when_the_line_is_long(self) -> None:
        """A batch goes beside another when it is no smaller, and never waits for none."""
        self.batches = self.make(lanes=2)
        self.submit(1, 2, 3, 4)
        self.answer("a")
        self.submit(5)
        self.answer("b")
        self.assertEqual(self.sent, [[1], [2], [3, 4]])  # 5 waits beside two
        self.submit(6)
        self.assertEqual(self.sent[3:], [[5, 6]])
        self.submit(7)
        self.answer("c", "d")
        self.assertEqual(self.sent[4:], [])
        self.answer("e", "f")
        self.assertEqual(self.sent[4:], [[7]])

    def test_a_second_lane_only_for_a_long_line(self) -> None:
        """So many wait before a batch goes beside another, however small that is."""
        self.batches = self.make(lanes=2, beside=3)
        self.submit(1, 2, 3)
        self.assertEqual(self.sent, [[1]])
        self.submit(4)
        self.assertEqual(self.sent, [[1], [2, 3, 4]])
        self.submit(5)
        self.answer("a")
        self.answer("b", "c", "d")
        self.assertEqual(self.sent[2:], [[5]])

    def test_heavy_items(self) -> None:
        """A batch stays below its weight, but never empty."""
        self.submit(1)
        self.submit(2, 3, weight=60)
        self.submit(4, weight=1000)
        for outcome in "abcd":
            self.answer(outcome)
        self.assertEqual(self.sent, [[1], [2], [3], [4]])

    def test_errors(self) -> None:
        """An item's own error is its own; the call's is everyone's."""
        works = self.submit(1, 2, 3)
        self.answer(KeyError("own"))
        self.failureResultOf(works[0], KeyError)
        self.answers[-1].errback(ValueError("all"))
        for one in works[1:]:
            self.failureResultOf(one, ValueError)
        (after,) = self.submit(4)
        self.answer("d")
        self.assertEqual(self.successResultOf(after), "d")

    def test_who_leaves_stops_nobody(self) -> None:
        """A cancelled caller's item goes on, and so do the others'."""
        works = self.submit(1, 2, 3)
        works[1].cancel()
        self.failureResultOf(works[1], CancelledError)
        self.answer("a")
        self.answer("b", "c")
        self.assertEqual(self.sent, [[1], [2, 3]])
        self.assertEqual(self.successResultOf(works[2]), "c")

    def test_bounds(self) -> None:
        """Too many are refused, and so are all after the end."""
        works = self.submit(*range(12))
        self.failureResultOf(works[11], MetadataUnavailable)
        self.batches.close()
        (late,) = self.submit(99)
        self.failureResultOf(late, MetadataUnavailable)

    def test_the_end(self) -> None:
        """What is under way when all stops may have been applied."""
        works = self.submit(1, 2)
        self.successResultOf(start(self.tasks.stop()))
        for one in works:
            self.failureResultOf(one, MaybeApplied)
