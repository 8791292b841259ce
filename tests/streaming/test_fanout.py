"""One writer, n sinks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock as FakeTime
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.errors import NodeUnreachable
from ostore.streaming.fanout import Fanout, Lagged, QuorumLost
from ostore.streaming.tasks import start
from tests.streaming.wire import fake_clock

LAGGARD, STALL = 1.0, 30.0


class Scene:
    """A fanout over sinks named by letters, each operation's end in our hands."""

    def __init__(self, count: int = 6, quorum: int = 5) -> None:
        self.time, clock = fake_clock()
        self.dropped: dict[int, Exception] = {}
        self.cancelled: list[int] = []
        self.operations: dict[int, Deferred[None]] = {}
        self.fanout = Fanout(
            clock,
            dict(enumerate("abcdefgh"[:count])),
            quorum,
            LAGGARD,
            STALL,
            self.drop,
        )

    def drop(self, index: int, sink: str, error: Exception) -> None:
        """Note who was dropped, and that it happens once."""
        assert sink == "abcdefgh"[index]
        assert index not in self.dropped
        self.dropped[index] = error

    def each(self) -> Deferred[None]:
        """Begin an operation on every standing sink."""

        def operation(index: int, sink: str) -> Deferred[None]:
            one: Deferred[None] = Deferred(lambda _: self.cancelled.append(index))
            self.operations[index] = one
            return one

        self.operations = {}
        return start(self.fanout.each(operation))

    def succeed(self, *indices: int) -> None:
        """End these operations well."""
        for index in indices:
            self.operations[index].callback(None)

    def fail(self, *indices: int) -> None:
        """End these operations badly."""
        for index in indices:
            self.operations[index].errback(NodeUnreachable("no"))


class FanoutTests(SynchronousTestCase):
    """The laggard rule, the quorum, the stall."""

    def test_all_in_time(self) -> None:
        """When all finish within the laggard time none is dropped."""
        scene = Scene()
        each = scene.each()
        scene.succeed(0, 1, 2, 3, 4)
        scene.time.advance(LAGGARD - 0.01)
        self.assertNoResult(each)
        scene.succeed(5)
        self.assertIsNone(self.successResultOf(each))
        self.assertEqual(list(scene.fanout.standing), [0, 1, 2, 3, 4, 5])
        self.assertEqual(scene.time.getDelayedCalls(), [])

    def test_laggard_is_dropped(self) -> None:
        """One that is late by the laggard time behind the quorum is cancelled."""
        scene = Scene()
        each = scene.each()
        scene.time.advance(5)
        scene.succeed(5, 4, 3, 2, 1)
        scene.time.advance(LAGGARD)
        self.successResultOf(each)
        self.assertEqual(list(scene.fanout.standing), [1, 2, 3, 4, 5])
        self.assertIsInstance(scene.dropped[0], Lagged)
        self.assertEqual(scene.cancelled, [0])

    def test_laggards_are_measured_from_the_quorum(self) -> None:
        """One more that finishes does not give the others more time."""
        scene = Scene(count=4, quorum=2)
        each = scene.each()
        scene.succeed(0, 1)
        scene.time.advance(LAGGARD * 0.6)
        scene.succeed(2)
        scene.time.advance(LAGGARD * 0.4)
        self.successResultOf(each)
        self.assertEqual(list(scene.dropped), [3])

    def test_dropped_sink_is_left_out(self) -> None:
        """A sink that failed is not asked again."""
        scene = Scene()
        each = scene.each()
        scene.fail(2)
        self.assertEqual(list(scene.dropped), [2])
        scene.succeed(0, 1, 3, 4, 5)
        self.successResultOf(each)
        again = scene.each()
        self.assertEqual(sorted(scene.operations), [0, 1, 3, 4, 5])
        scene.succeed(0, 1, 3, 4, 5)
        self.successResultOf(again)
        self.assertIsInstance(scene.fanout.failures[2], NodeUnreachable)

    def test_quorum_lost_at_once(self) -> None:
        """The failure that makes the quorum impossible ends it and cancels the rest."""
        scene = Scene()
        each = scene.each()
        scene.succeed(0)
        scene.fail(1)
        self.assertNoResult(each)
        scene.fail(2)
        error = self.failureResultOf(each, QuorumLost).value
        self.assertEqual(sorted(error.causes), [1, 2])
        self.assertEqual(sorted(scene.cancelled), [3, 4, 5])
        self.assertEqual(scene.time.getDelayedCalls(), [])

    def test_stall(self) -> None:
        """Without a quorum within the stall time it is lost; before that it waits."""
        scene = Scene()
        each = scene.each()
        scene.succeed(0, 1, 2, 3)
        scene.time.advance(STALL - 1)
        self.assertNoResult(each)
        scene.time.advance(1)
        self.failureResultOf(each, QuorumLost)
        self.assertEqual(sorted(scene.cancelled), [4, 5])

    def test_cancelled_caller(self) -> None:
        """Cancelling the writer cancels what is pending and drops nobody."""
        scene = Scene()
        each = scene.each()
        scene.succeed(0)
        each.cancel()
        self.failureResultOf(each, CancelledError)
        self.assertEqual(sorted(scene.cancelled), [1, 2, 3, 4, 5])
        self.assertEqual(scene.dropped, {})
        self.assertEqual(scene.time.getDelayedCalls(), [])

    def test_operation_that_raises_at_once(self) -> None:
        """An operation that fails before it waits drops its sink alone."""
        scene = Scene(count=3, quorum=2)

        async def operation(index: int, sink: str) -> None:
            if index == 1:
                raise NodeUnreachable("no")

        self.successResultOf(start(scene.fanout.each(operation)))
        self.assertEqual(list(scene.fanout.standing), [0, 2])

    def test_all_fail_at_once(self) -> None:
        """Nothing is left pending when every operation fails before it waits."""
        scene = Scene(count=3, quorum=2)

        async def operation(index: int, sink: str) -> None:
            raise NodeUnreachable("no")

        self.failureResultOf(start(scene.fanout.each(operation)), QuorumLost)
        self.assertEqual(scene.time.getDelayedCalls(), [])

    @settings(deadline=None, max_examples=120)
    @given(
        st.lists(
            st.tuples(st.booleans(), st.floats(0, 60, allow_nan=False)),
            min_size=1,
            max_size=8,
        ),
        st.data(),
    )
    def test_rule(self, fates: list[tuple[bool, float]], data: st.DataObject) -> None:
        """Against the rule written as arithmetic over finishing times."""
        quorum = data.draw(st.integers(1, len(fates)))
        scene = Scene(len(fates), quorum)
        each = scene.each()
        outcome: list[object] = []
        _ = each.addBoth(outcome.append)
        for index in sorted(range(len(fates)), key=lambda i: fates[i][1]):
            good, when = fates[index]
            move_to(scene.time, when)
            if not scene.operations[index].called:
                (scene.succeed if good else scene.fail)(index)
        move_to(scene.time, 200)
        good_times = sorted(when for good, when in fates if good)
        reached = len(good_times) >= quorum and good_times[quorum - 1] < STALL
        [result] = outcome
        if not reached:
            self.assertIsInstance(getattr(result, "value", None), QuorumLost)
            return
        self.assertIsNone(result)
        limit = good_times[quorum - 1] + LAGGARD
        expected = [i for i, (good, when) in enumerate(fates) if good and when < limit]
        self.assertEqual(list(scene.fanout.standing), expected)
        self.assertEqual(sorted(scene.dropped), sorted(scene.fanout.failures))
        self.assertEqual(scene.time.getDelayedCalls(), [])


def move_to(time: FakeTime, when: float) -> None:
    """Advance to an absolute time."""
    if when > time.seconds():
        time.advance(when - time.seconds())
