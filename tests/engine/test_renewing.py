"""Renewals: shared by those who may share them, and by nobody else."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from ostore.model.errors import NodeUnreachable
from tests.support.engine import EngineCase, fails, hangs, sha256, some_bytes

SMALL = some_bytes(70_000)
HASH = sha256(SMALL)


class RenewingTests(EngineCase):
    """Six nodes that take their time, and one content."""

    def setUp(self) -> None:
        """Store it."""
        super().setUp()
        self.rise()
        self.run_(self.put(SMALL))
        census = self.run_(self.engine.cluster.locate(HASH))
        (self.standing,) = census.standings()

    def renew(self) -> Deferred[dict[int, str]]:
        """Ask for a renewal."""
        return self.begin(self.engine.putting.renewing.renew(HASH, self.standing))

    def slow(self) -> None:
        """Every look at a disk takes a while."""
        for rig in self.rigs:
            rig.workers.delay = 0.05

    def renewals(self) -> set[int]:
        """How often each node was asked for one."""
        return {rig.calls["renew"] for rig in self.rigs}

    def test_shared(self) -> None:
        """All who come while one is under way share the next, which begins after it."""
        self.slow()
        first = self.renew()
        self.pass_(0.01)
        later = [self.renew() for _ in range(20)]
        self.pass_(0.01)
        self.assertEqual(self.renewals(), {1})
        for each in (first, *later):
            self.assertNoResult(each)
        for each in (first, *later):
            self.assertEqual(len(self.finish(each)), 6)
        self.assertEqual(self.renewals(), {2})
        self.assertEqual(self.engine.putting.renewing._waiting, {})

    def test_what_began_before_proves_nothing(self) -> None:
        """Shards that go between two questions are absent for the second."""
        self.slow()
        first = self.renew()
        self.pass_(0.01)
        for rig in self.rigs[:2]:
            rig.rules["renew"] = fails(NodeUnreachable("gone"))
        second = self.renew()
        self.assertEqual(len(self.finish(first)), 6)
        self.assertEqual(len(self.finish(second)), 4)

    def test_cancelled(self) -> None:
        """Who leaves takes it from nobody."""
        self.slow()
        callers = [self.renew() for _ in range(4)]
        self.pass_(0.01)
        for each in (callers[0], callers[2]):
            each.cancel()
            self.failureResultOf(each, CancelledError)
        for each in (callers[1], callers[3]):
            self.assertEqual(len(self.finish(each)), 6)

    def test_other_holders(self) -> None:
        """Another picture of who holds what is another renewal."""
        self.slow()
        before = self.renew()
        self.lose(SMALL, 0)
        census = self.run_(self.engine.cluster.locate(HASH))
        (self.standing,) = census.standings()
        self.assertEqual(len(self.finish(self.renew())), 5)
        self.finish(before)

    def test_a_node_that_hangs(self) -> None:
        """It holds up those who came first and those who share the next, not for ever."""
        self.rigs[0].rules["renew"] = hangs
        first, second = self.renew(), self.renew()
        self.assertEqual(len(self.finish(first, 1.1)), 5)
        self.assertEqual(len(self.finish(second, 1.1)), 5)

    def test_a_defect(self) -> None:
        """An error that nobody foresaw reaches all, and the next are not hurt."""
        self.slow()
        first = self.renew()
        self.pass_(0.01)
        self.rigs[3].rules["renew"] = fails(ZeroDivisionError("a defect"))
        later = [self.renew(), self.renew()]
        self.finish(first)
        self.pass_(1)
        for each in later:
            self.failureResultOf(each, ZeroDivisionError)
        self.rigs[3].come_back()
        self.assertEqual(len(self.finish(self.renew())), 6)

    def test_many_writers_of_one_content(self) -> None:
        """They cost the nodes little more than one, and each gets its version."""
        self.slow()
        writers = [self.begin(self.put(SMALL)) for _ in range(16)]
        for each in writers:
            self.finish(each)
        self.assertEqual(self.versions(), list(range(1, 18)))
        self.assertLess(max(self.renewals()), 8)
