"""New packed shards of contents of which a node has nothing: one turn, one Deferred."""

from __future__ import annotations

from random import Random

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.node import ShardNode
from ostore.model.errors import (
    Malformed,
    NodeFull,
    NodeUnreachable,
    ShardRefused,
)
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.contracts.shards import Sample, sample
from tests.support.disk import SimulatedDisk
from tests.support.engine import PacedWorkers

PACKED = 1 << 20


class AddingTests(SynchronousTestCase):
    """ShardStore.put_small(), lacks() and glance() while the disk takes its time."""

    def setUp(self) -> None:
        """A node that packs, on a disk that can hang."""
        self.time = task.Clock()
        self.disk = SimulatedDisk(self.time.seconds)
        self.workers = PacedWorkers(self.time)
        clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.node = ShardNode(
            "/data",
            self.disk,
            self.workers,
            clock,
            Random(1).randbytes,
            pack_limit=PACKED,
        )
        self.successResultOf(start(self.node.start()))
        self.store = self.node.store
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Let all end."""
        self.workers.release()
        self.successResultOf(start(self.node.stop()))

    def put(self, one: Sample, deadline: float | None = None) -> Deferred[None]:
        """Begin a put."""
        return start(
            self.store.put_small(one.key, one.layout, one.frames, deadline, 0.0)
        )

    def state(self, one: Sample) -> str:
        """What the node says of its content."""
        return self.successResultOf(start(self.store.find(one.key.hash))).state

    def test_durable_before_the_answer(self) -> None:
        """It is answered when it is synced, and seen from then on."""
        one = sample()
        self.assertTrue(self.store.lacks(one.key.hash))
        self.workers.hanging = True
        putting = self.put(one)
        self.assertNoResult(putting)
        self.assertIsNone(self.store.glance(one.key))
        self.workers.release()
        self.assertIsNone(self.successResultOf(putting))
        self.assertFalse(self.store.lacks(one.key.hash))
        self.assertEqual(self.state(one), "have")

    def test_twice_at_once(self) -> None:
        """The second of two equal ones waits for the first, and renews it."""
        one = sample()
        self.workers.hanging = True
        first, second = self.put(one), self.put(one)
        self.workers.release()
        self.successResultOf(first)
        self.successResultOf(second)
        held = self.successResultOf(start(self.store.find(one.key.hash)))
        self.assertEqual([facts.key for facts in held.shards], [one.key])

    def test_cancelled(self) -> None:
        """The caller goes; the write goes on, and so does who waits for its turn."""
        one = sample()
        self.workers.hanging = True
        first, second = self.put(one), self.put(one)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.workers.release()
        self.successResultOf(second)
        self.assertEqual(self.state(one), "have")

    def test_failing(self) -> None:
        """A sync that fails is told to all who wait, and the turn is given back."""
        one, two = sample(1), sample(2)
        self.workers.hanging = True
        waiting = [self.put(one), self.put(two)]

        def fail(operation: object) -> None:
            if getattr(operation, "name", "") == "fdatasync":
                raise OSError(5, "no")

        self.disk.fault = fail
        self.workers.release()
        for each in waiting:
            self.failureResultOf(each, NodeUnreachable)
        self.disk.fault = None
        self.successResultOf(self.put(one))
        self.assertEqual((self.state(one), self.state(two)), ("have", "none"))

    def test_late(self) -> None:
        """Behind its deadline nothing is written."""
        one = sample()
        self.workers.hanging = True
        putting = self.put(one, deadline=1.0)
        self.time.advance(2)
        self.workers.release()
        self.failureResultOf(putting, ShardRefused)
        self.assertTrue(self.store.lacks(one.key.hash))
        self.successResultOf(self.put(one))

    def test_refused(self) -> None:
        """What cannot be a shard, or has no room, is refused without being raised."""
        one, other = sample(1), sample(2, size=77)
        wrong = ShardKey("A" * 64, 0, one.layout.id)
        for key, layout in ((wrong, one.layout), (one.key, other.layout)):
            putting = start(self.store.put_small(key, layout, one.frames, None, 0.0))
            self.failureResultOf(putting, Malformed, ShardRefused)
        self.node._root.full = True
        self.failureResultOf(self.put(one), NodeFull)
        self.node._root.full = False
        self.successResultOf(self.put(one))

    def test_root_deleted_meanwhile(self) -> None:
        """The root vanished before the write: it is mended, and written there."""
        one = sample()
        self.workers.hanging = True
        putting = self.put(one)
        self.disk.delete("/data")
        outcome: list[object] = []
        _ = putting.addBoth(outcome.append)
        self.workers.release()
        self.assertEqual(len(outcome), 1)
        if isinstance(outcome[0], Failure):
            self.assertIsInstance(outcome[0].value, NodeUnreachable)
            self.successResultOf(self.put(one))
        self.assertEqual((self.state(one), self.node.boot.counter), ("have", 2))
