"""Doubt about the metadata, the nodes or the time never leads to a deletion."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.braking import too_doubtful, too_many, whose_metadata
from ostore.model.errors import Refused
from ostore.model.nodes import Boot, Heartbeat
from ostore.model.versions import ClusterFacts
from tests.support.engine import BEGIN, some_bytes
from tests.support.maintenance import CLUSTER, MaintenanceCase

ONE, OTHER = some_bytes(5000), some_bytes(777, 2)
BEAT = Heartbeat(
    node="n",
    boot=Boot(1, "0" * 16),
    seq=1,
    url="",
    zone="",
    free=1,
    total=1,
    shards=0,
    state="up",
    time=BEGIN,
    cluster=CLUSTER,
    epoch=5,
)


class DecisionTests(SynchronousTestCase):
    """Facts in, sentences out."""

    def test_whose(self) -> None:
        """Own metadata, none, another's, an older one."""
        for known, clear in (
            (ClusterFacts(CLUSTER, 5), True),
            (ClusterFacts(CLUSTER, 6), True),
            (ClusterFacts(CLUSTER, 4), False),
            (ClusterFacts("d" * 32, 5), False),
            (None, False),
        ):
            found = whose_metadata(known, [(BEAT, 0.0)])
            self.assertEqual(found == [], clear, found)
        self.assertTrue(whose_metadata(None, []))

    def test_clocks(self) -> None:
        """Sixty seconds between any two services are too many."""
        late = attrs.evolve(BEAT, time=BEGIN - 40)
        early = attrs.evolve(BEAT, time=BEGIN + 40)
        self.assertEqual(too_doubtful([(BEAT, 0.0), (late, 0.0)], BEGIN), [])
        self.assertEqual(too_doubtful([(BEAT, 30.0)], BEGIN + 30), [])
        self.assertTrue(too_doubtful([(late, 0.0), (early, 0.0)], BEGIN))
        self.assertTrue(too_doubtful([(BEAT, 0.0)], BEGIN + 61))

    def test_scanning(self) -> None:
        """A node that still counts holds everything up."""
        counting = attrs.evolve(BEAT, state="scanning")
        self.assertTrue(too_doubtful([(counting, 0.0)], BEGIN))

    def test_too_many(self) -> None:
        """A hundred, or the twentieth part, where that is more."""
        self.assertFalse(too_many(100, 100))
        self.assertTrue(too_many(101, 2000))
        self.assertFalse(too_many(101, 2021))


class BrakeTests(MaintenanceCase):
    """With everything set up for a deletion, but for one doubt."""

    def setUp(self) -> None:
        """An old orphan; garbage that has expired."""
        self.skipped = 0.0
        super().setUp()
        self.rise()
        for content, name in ((ONE, "one"), (OTHER, "other")):
            self.run_(self.put(content, name))
            self.purge(name)
            self.pass_(25)
            if content is ONE:
                self.counts("orphans")
        self.pass_(61)

    def wall(self) -> float:
        """Seconds since 1970, and what the clock was put forward."""
        return super().wall() + self.skipped

    def assert_nothing_goes(self, why: str) -> None:
        """Neither job touches anything, and both say why."""
        for job in ("orphans", "garbage"):
            run = self.job(job)
            self.assertEqual(run.state, "failed")
            self.assertIn(why, run.why)
        self.assertEqual((self.standing(OTHER), len(self.in_garbage(ONE))), (6, 6))

    def assert_all_goes(self) -> None:
        """Once the doubt is gone both jobs do their work."""
        self.assertEqual(self.counts("orphans")["shards"], 6)
        self.assertEqual(self.counts("garbage")["shards"], 6)

    def known(self, facts: ClusterFacts | None) -> None:
        """What the metadata says from now on."""

        async def cluster() -> Any:
            return facts

        self.metadata.inner.cluster = cluster

    def test_no_doubt(self) -> None:
        """Without one both go: the others prove something."""
        self.assert_all_goes()

    def test_empty_metadata(self) -> None:
        """Metadata that lost its memory removes nothing."""
        self.known(None)
        self.assert_nothing_goes("knows of no cluster")

    def test_other_cluster(self) -> None:
        """Nor does that of another cluster."""
        self.known(ClusterFacts("d" * 32, 99))
        self.assert_nothing_goes("another cluster")

    def test_older_copy(self) -> None:
        """Nor an older copy; and it does not catch up by taking the lease."""
        self.run_(self.rigs[4].node.adopt(CLUSTER, 1000))
        self.pass_(6)
        before = self.run_(self.metadata.cluster())
        self.run_(self.repeated.stop())
        self.run_(self.runner.stop())
        self.runner = self.make_runner(9)
        self.repeated = self.repeat(self.runner)
        self.assert_nothing_goes("older copy")
        self.pass_(100)
        self.assertEqual(self.run_(self.metadata.cluster()), before)

    def test_adopted(self) -> None:
        """An older copy that was adopted is right; nothing goes for one expiry."""
        for rig in self.rigs:
            self.run_(rig.node.adopt(CLUSTER, 100))
        self.pass_(6)
        told = self.run_(self.store.adopt())
        self.assertEqual(told, {"epoch": 101, "nothing_removed_for": 60.0})
        self.assertEqual({rig.node.epoch for rig in self.rigs}, {101})
        self.pass_(6)
        self.assertEqual(self.job("census").state, "done")
        run = self.job("orphans")
        self.assertEqual(run.state, "failed")
        self.assertIn("nothing is removed before", run.why)
        self.assertEqual((self.standing(OTHER), len(self.in_garbage(ONE))), (6, 6))
        self.pass_(60)
        self.assert_all_goes()

    def test_not_adopted(self) -> None:
        """What belongs to another cluster is not adopted, nor while jobs run."""
        self.refused(Refused, self.store.adopt())
        self.known(ClusterFacts("d" * 32, 99))
        self.refused(Refused, self.store.adopt())
        self.known(None)
        self.refused(Refused, self.store.adopt())

    def test_runs_leave_a_trace(self) -> None:
        """Every run over orphans tells all nodes a new epoch.

        So a copy of the metadata that was made before it is known to be older.
        """
        before = self.run_(self.metadata.cluster()).epoch
        self.counts("orphans")
        after = self.run_(self.metadata.cluster()).epoch
        self.assertGreater(after, before)
        self.assertEqual({rig.node.epoch for rig in self.rigs}, {after})

    def test_clocks_apart(self) -> None:
        """A node whose clock is minutes off stops both."""
        clock = self.rigs[2].member._clock
        self.rigs[2].member._clock = attrs.evolve(clock, wall=lambda: self.wall() + 90)
        self.pass_(6)
        self.assert_nothing_goes("clocks")
        self.rigs[2].member._clock = clock
        self.pass_(6)
        self.assert_all_goes()

    def test_counting(self) -> None:
        """So does a node that still counts its shards."""
        scan = self.rigs[2].node.store._filed.scan
        scan._waiting.add("ff")
        self.pass_(6)
        self.assert_nothing_goes("still counts")
        scan._waiting.clear()
        self.pass_(6)
        self.assert_all_goes()

    def test_doubt_in_the_middle(self) -> None:
        """A doubt that comes up while a run waits ends it before anything moves."""
        run = self.ask("orphans")
        self.pass_(10)
        self.run_(self.rigs[4].node.adopt(CLUSTER, 1000))
        self.assertEqual(self.wait_for(run).state, "failed")
        self.assertEqual(self.standing(OTHER), 6)

    def test_dry_run(self) -> None:
        """A dry run says what it would do, whatever the clocks."""
        clock = self.rigs[2].member._clock
        self.rigs[2].member._clock = attrs.evolve(clock, wall=lambda: self.wall() + 90)
        self.pass_(6)
        self.assertEqual(self.counts("orphans", dry_run=True)["orphans"], 1)


class JumpTests(MaintenanceCase):
    """The wall clock is put forward by a year."""

    def wall(self) -> float:
        """Seconds since 1970, and what the clock was put forward."""
        return super().wall() + getattr(self, "skipped", 0.0)

    def test_jump(self) -> None:
        """What looks a year old is left alone until it was known for ten minutes."""
        self.rise(orphan_grace=3600.0, garbage_expiry=7 * 24 * 3600.0)
        self.run_(self.put(ONE, "one"))
        self.purge("one")
        self.pass_(700)
        self.skipped = 365 * 24 * 3600.0
        self.pass_(6)
        run = self.ask("orphans")
        self.pass_(590)
        self.assertEqual(self.standing(ONE), 6)
        self.assertEqual(self.wait_for(run).state, "done")

    def test_jump_while_it_waits(self) -> None:
        """A jump within the ten minutes: the nodes themselves refuse."""
        self.rise(orphan_grace=3600.0)
        self.run_(self.put(ONE, "one"))
        self.purge("one")
        self.pass_(3700)
        run = self.ask("orphans")
        self.pass_(300)
        self.skipped = 365 * 24 * 3600.0
        for rig in self.rigs:
            self.run_(rig.member._announcer.announce())
        self.pass_(6)
        for rig in self.rigs:
            self.run_(rig.node.store.list("", 10))
        found = self.wait_for(run)
        self.assertEqual(found.counts.get("collected", 0), 0, found)
        self.assertEqual(self.standing(ONE), 6)

    def test_expiry(self) -> None:
        """Garbage that looks a year old is kept as long."""
        self.rise(garbage_expiry=7 * 24 * 3600.0)
        self.run_(self.put(ONE, "one"))
        self.purge("one")
        self.pass_(25)
        self.counts("orphans")
        self.skipped = 365 * 24 * 3600.0
        self.pass_(6)
        run = self.ask("garbage")
        self.pass_(590)
        self.assertEqual(len(self.in_garbage(ONE)), 6)
        self.wait_for(run)


class TooManyTests(MaintenanceCase):
    """A run that would move far more than is usual."""

    def test_asked_twice(self) -> None:
        """More than a hundred and the twentieth part: only with force."""
        self.rise()
        for number in range(104):
            self.run_(self.put(b"%d" % number, f"{number}"))
        for number in range(101):
            self.purge(f"{number}")
        self.pass_(25)
        run = self.job("orphans")
        self.assertEqual(run.state, "failed")
        self.assertIn("101 of 104 contents would go", run.why)
        self.assertEqual(self.standing(b"0"), 6)
        self.assertEqual(self.counts("orphans", dry_run=True)["orphans"], 101)
        self.assertEqual(self.counts("orphans", force=True)["collected"], 101)
        self.assertEqual((self.standing(b"0"), self.standing(b"103")), (0, 6))
