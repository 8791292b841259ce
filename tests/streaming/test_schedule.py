"""Repeated jobs."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from ostore.streaming.schedule import JITTER, Repeated
from ostore.streaming.tasks import start
from tests.streaming.wire import fake_clock

MIDDLE = b"\x80\x00\x00\x00"


class Job:
    """A job under test with its work in our hands."""

    def __init__(self, chance: bytes = MIDDLE) -> None:
        self.time, clock = fake_clock()
        self.under_way: list[Deferred[None]] = []
        self.cancelled = 0
        self.repeated = Repeated(
            clock, 10, self.work, lambda size: chance[:size], Logger(), what="the job"
        )

    def work(self) -> Deferred[None]:
        """Begin a run."""
        one: Deferred[None] = Deferred(self.cancel)
        self.under_way.append(one)
        return one

    def cancel(self, _: Deferred[None]) -> None:
        """Note that a run was cancelled."""
        self.cancelled += 1

    def end(self, error: Exception | None = None) -> None:
        """End the run."""
        one = self.under_way.pop()
        if error is None:
            one.callback(None)
        else:
            one.errback(error)


class RepeatedTests(SynchronousTestCase):
    """When it runs, and that it goes on."""

    def test_interval_counts_from_the_end(self) -> None:
        """The next run comes one interval behind the end of the last."""
        job = Job()
        job.repeated.start()
        self.assertEqual(job.repeated.next_due, 10)
        job.time.advance(10)
        self.assertTrue(job.repeated.running)
        self.assertEqual(job.repeated.last_started, 10)
        self.assertIsNone(job.repeated.next_due)
        job.time.advance(100)
        self.assertEqual(len(job.under_way), 1)
        job.end()
        self.assertEqual(job.repeated.last_ended, 110)
        self.assertEqual(job.repeated.next_due, 120)
        self.assertEqual((job.repeated.runs, job.repeated.failures), (1, 0))

    def test_failing_run_does_not_stop_it(self) -> None:
        """A failure is logged and counted, and the next run comes."""
        job = Job()
        job.repeated.start()
        for error in OSError("disk"), CancelledError():
            job.time.advance(10)
            job.end(error)
        self.assertEqual((job.repeated.runs, job.repeated.failures), (2, 2))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        job.time.advance(10)
        self.assertEqual(len(job.under_way), 1)

    def test_work_that_raises_at_once(self) -> None:
        """Failing before the first await is a failing run as well."""
        time, clock = fake_clock()

        def work() -> Deferred[None]:
            raise OSError("disk")

        repeated = Repeated(clock, 10, work, lambda _: MIDDLE, Logger())
        repeated.start()
        time.advance(10)
        self.assertEqual((repeated.failures, repeated.next_due), (1, 20))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_now(self) -> None:
        """`now` runs at once, never beside a run, and moves the plan."""
        job = Job()
        self.assertFalse(job.repeated.now())
        job.repeated.start()
        job.time.advance(3)
        self.assertTrue(job.repeated.now())
        self.assertFalse(job.repeated.now())
        job.end()
        self.assertEqual(job.repeated.next_due, 13)
        self.assertEqual(len(job.time.getDelayedCalls()), 1)

    def test_stop_cancels_and_waits(self) -> None:
        """After `stop` nothing is under way or planned."""
        job = Job()
        job.repeated.start()
        job.time.advance(10)
        self.assertIsNone(self.successResultOf(start(job.repeated.stop())))
        self.assertEqual(job.cancelled, 1)
        self.assertFalse(job.repeated.running)
        self.assertEqual(job.repeated.failures, 0)
        self.assertEqual(job.time.getDelayedCalls(), [])
        self.assertFalse(job.repeated.now())

    def test_stop_between_runs(self) -> None:
        """Stopping an idle job takes back the plan."""
        job = Job()
        job.repeated.start()
        self.successResultOf(start(job.repeated.stop()))
        self.assertEqual(job.time.getDelayedCalls(), [])
        self.assertIsNone(job.repeated.next_due)

    def test_jitter(self) -> None:
        """The pause differs by at most the jitter, either way."""
        for chance, expected in (
            (b"\x00" * 4, 10 * (1 - JITTER)),
            (b"\xff" * 4, 10 * (1 + JITTER)),
        ):
            job = Job(chance)
            job.repeated.start()
            self.assertAlmostEqual(job.repeated.next_due or 0, expected, 6)
