"""Who runs the jobs, when, and what is left behind when it stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ostore.maintenance.course import Course, Stopped
from ostore.maintenance.pace import Foreground, Pace
from ostore.maintenance.runner import LEASE, Runner
from ostore.model.errors import MetadataUnavailable
from tests.support.engine import fails
from tests.support.maintenance import MaintenanceCase


class Scripted:
    """A job that does what a test says; it bears the name of a real one."""

    fresh_epoch = False
    removes = True

    def __init__(self, work: Callable[[Course], Awaitable[None]]) -> None:
        self.name = "retention"
        self.interval = 100.0
        self.told: Any = None
        self.courses: list[Course] = []
        self._work = work

    def news(self) -> Any:
        """What the test says."""
        return self.told

    async def run(self, course: Course) -> None:
        """Note it, and do it."""
        self.courses.append(course)
        await self._work(course)


class RunnerCase(MaintenanceCase):
    """Runners of one scripted job over the same metadata."""

    def begin_with(
        self, work: Callable[[Course], Awaitable[None]], *, planned: bool = True
    ) -> Scripted:
        """Replace the runner by one with that job alone."""
        self.rise()
        self.run_(self.repeated.stop())
        self.run_(self.runner.stop())
        job = Scripted(work)
        self.runner = self.runner_of(job, 11, planned=planned)
        self.repeated = self.repeat(self.runner)
        return job

    def runner_of(self, job: Scripted, seed: int, *, planned: bool = True) -> Runner:
        """A service's runner."""
        return Runner(
            [job],
            self.engine.jobs,
            self.engine.hands,
            self.metadata,  # type: ignore[arg-type]  # watched
            Pace(self.clock, Foreground(self.clock), 1000.0, 100.0),
            self.clock,
            Random(seed).randbytes,
            planned=planned,
        )

    def record(self) -> Any:
        """What is known of the job."""
        self.run_(self.engine.jobs.refresh())
        return self.engine.jobs.records["retention"]


async def nothing(course: Course) -> None:
    """A job that is done at once."""
    await course.go_on()


async def counts_to_ten(course: Course) -> None:
    """A job of ten steps, a second each, which goes on where it was."""
    while (course.cursor or 0) < 10:
        await course.wait(1.0)
        course.cursor = (course.cursor or 0) + 1
        course.counts["steps"] += 1


class PlanTests(RunnerCase):
    """When jobs run."""

    def test_interval(self) -> None:
        """A job runs once in each interval, give or take a tenth."""
        job = self.begin_with(nothing)
        self.pass_(1000)
        self.assertIn(len(job.courses), range(9, 13))
        record = self.record()
        self.assertEqual({run.state for run in record.runs}, {"done"})
        shown = self.engine.jobs.shown()["retention"]
        self.assertEqual(shown["state"], "done")
        self.assertGreater(shown["next"], shown["last"])

    def test_not_planned(self) -> None:
        """Without planned runs it runs only when it is asked to."""
        job = self.begin_with(nothing, planned=False)
        self.pass_(1000)
        self.assertEqual(job.courses, [])
        self.assertEqual(self.job("retention").state, "done")

    def test_news(self) -> None:
        """News make it due at once, the same news do not."""
        job = self.begin_with(nothing)
        job.interval = 1e6
        job.told = {"a": [1]}
        self.pass_(30)
        self.assertEqual(len(job.courses), 1)
        job.told = {"a": [2]}
        self.pass_(30)
        self.assertEqual(len(job.courses), 2)

    def test_clock_put_back(self) -> None:
        """A plan that was made by a clock far ahead is not waited for."""
        job = self.begin_with(nothing)
        self.pass_(150)
        ran = len(job.courses)

        def ahead(record: Any) -> Any:
            return type(record)(record.runs, record.due + 1e7)

        self.run_(self.engine.jobs.change("retention", ahead))
        self.pass_(10)
        self.assertGreater(len(job.courses), ran)

    def test_one_after_the_other(self) -> None:
        """Runs that are asked for while one is under way wait for it."""
        job = self.begin_with(counts_to_ten, planned=False)
        first, second = self.ask("retention"), self.ask("retention")
        self.pass_(6)
        self.assertEqual(len(job.courses), 1)
        self.assertEqual(self.wait_for(first).counts, {"steps": 10})
        self.assertEqual(self.wait_for(second).counts, {"steps": 10})

    def test_few_are_remembered(self) -> None:
        """Of runs by plan the last five are remembered, of asked ones more."""
        self.begin_with(nothing)
        asked = self.ask("retention")
        self.pass_(2000)
        self.assertEqual(self.find(asked).state, "done")
        self.assertEqual(len(self.record().runs), 6)


class FailureTests(RunnerCase):
    """Runs that fail."""

    def test_shown_and_tried_again(self) -> None:
        """A failed run is shown with its reason, and tried again before its time."""

        async def work(course: Course) -> None:
            if len(job.courses) < 3:
                raise Stopped("the moon is full")

        job = self.begin_with(work)
        job.interval = 1e5
        job.told = 1
        self.pass_(10)
        (run,) = self.record().runs
        self.assertEqual((run.state, run.why), ("failed", "the moon is full"))
        self.assertEqual(self.engine.jobs.shown()["retention"]["state"], "failed")
        self.pass_(70)
        self.assertEqual(len(job.courses), 2)
        self.pass_(70)
        self.assertEqual(len(job.courses), 2)
        self.pass_(70)
        self.assertEqual(len(job.courses), 3)
        self.assertEqual(self.record().last.state, "done")
        self.assertEqual(self.store.figures()["ostore_job_failures_total"], 2)

    def test_defect(self) -> None:
        """A defect is logged and says nothing of the inside."""

        async def work(_: Course) -> None:
            raise ZeroDivisionError("secret")

        self.begin_with(work, planned=False)
        run = self.job("retention")
        self.assertEqual(run.state, "failed")
        self.assertNotIn("secret", run.why)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_full_disk(self) -> None:
        """A run goes on when its progress cannot be saved."""

        async def work(course: Course) -> None:
            self.metadata.rules["set_note"] = fails(MetadataUnavailable("full"))
            await counts_to_ten(course)
            self.metadata.rules.clear()

        self.begin_with(work, planned=False)
        self.assertEqual(self.job("retention").counts, {"steps": 10})


class OwnerTests(RunnerCase):
    """One at a time."""

    def other(self, job: Scripted) -> Runner:
        """A second service, at work."""
        runner = self.runner_of(job, 12, planned=False)
        repeated = self.repeat(runner)
        self.addCleanup(lambda: self.run_(runner.stop()))
        self.addCleanup(lambda: self.run_(repeated.stop()))
        return runner

    def test_one_owner(self) -> None:
        """Of two services one has the lease, and runs what either was asked for."""
        job = self.begin_with(nothing, planned=False)
        idle = Scripted(nothing)
        runner = self.other(idle)
        self.pass_(100)
        self.assertEqual((self.runner.owner, runner.owner), (True, False))
        self.assertEqual(self.job("retention").state, "done")
        self.assertEqual((len(job.courses), len(idle.courses)), (1, 0))

    def test_taken_over(self) -> None:
        """When the owner vanishes, another goes on with its run where it was."""
        self.begin_with(counts_to_ten, planned=False)
        second = Scripted(counts_to_ten)
        self.other(second)
        run = self.ask("retention")
        self.pass_(5)
        before = self.find(run).cursor
        self.assertGreater(before, 2)
        self.run_(self.repeated.stop())
        self.runner._until = 0.0  # its process hangs: it neither renews nor releases
        self.pass_(LEASE + 5)
        found = self.wait_for(run)
        self.assertEqual(found.state, "done")
        self.assertGreaterEqual(second.courses[0].run.counts["steps"], before)
        self.assertLess(found.counts["steps"], 12)

    def test_stop_and_start(self) -> None:
        """A service that stops gives the lease back, and its run goes on elsewhere."""
        self.begin_with(counts_to_ten, planned=False)
        run = self.ask("retention")
        self.pass_(5)
        self.run_(self.repeated.stop())
        self.run_(self.runner.stop())
        self.assertEqual(self.find(run).state, "running")
        self.assertEqual(self.time.getDelayedCalls()[0].active(), True)
        self.runner = self.runner_of(Scripted(counts_to_ten), 13, planned=False)
        self.repeated = self.repeat(self.runner)
        found = self.wait_for(run, 12)
        self.assertEqual(found.counts, {"steps": 10})

    def test_lease_that_runs_out(self) -> None:
        """Without the metadata a run ends when the lease does."""
        job = self.begin_with(counts_to_ten, planned=False)
        self.ask("retention")
        self.pass_(3)
        self.metadata.rules["lease"] = fails(MetadataUnavailable("away"))
        job.courses[0].cursor = -1000
        self.pass_(LEASE + 2)
        at = job.courses[0].cursor
        self.pass_(20)
        self.assertEqual(job.courses[0].cursor, at)
        self.assertFalse(self.runner.owner)

    def test_metadata_away(self) -> None:
        """While the metadata is away nothing happens; afterwards all goes on."""
        job = self.begin_with(nothing)
        self.metadata.rules["note"] = fails(MetadataUnavailable("away"))
        self.pass_(300)
        self.assertEqual(job.courses, [])
        self.metadata.rules.clear()
        self.pass_(110)
        self.assertGreater(len(job.courses), 0)
