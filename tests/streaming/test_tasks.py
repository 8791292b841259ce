"""Background work, clocks and workers."""

from __future__ import annotations

import threading

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ostore.streaming import pools
from ostore.streaming.clock import TimedOut
from ostore.streaming.pools import InlineWorkers, ThreadWorkers
from ostore.streaming.tasks import Tasks, gather, start, succeeded
from tests.streaming.wire import REAL, fake_clock, reactor


class StartTests(SynchronousTestCase):
    """Coroutines as Deferreds."""

    def test_at_once(self) -> None:
        """What need not wait has its result, or its error, when start() returns."""

        async def works() -> int:
            return 3

        async def fails() -> None:
            raise OSError("x")

        self.assertEqual(self.successResultOf(start(works())), 3)
        self.failureResultOf(start(fails()), OSError)

    def test_later(self) -> None:
        """Results and errors that are awaited reach the coroutine, and what it gives us."""
        waits: list[Deferred[int]] = [Deferred(), Deferred(), Deferred()]

        async def work() -> list[int]:
            found = [await waits[0]]
            try:
                await waits[1]
            except OSError:
                found.append(-1)
            return [*found, await waits[2]]

        running = start(work())
        waits[0].callback(1)
        waits[1].errback(OSError("x"))
        self.assertNoResult(running)
        waits[2].callback(2)
        self.assertEqual(self.successResultOf(running), [1, -1, 2])

    def test_error_later(self) -> None:
        """An error behind a wait is the Deferred's."""
        wait: Deferred[None] = Deferred()

        async def work() -> None:
            await wait
            raise OSError("x")

        running = start(work())
        wait.callback(None)
        self.failureResultOf(running, OSError)

    def test_cancelled(self) -> None:
        """Cancelling cancels what is waited for; the coroutine may clean up and wait."""
        last: Deferred[None] = Deferred()
        cancelled: list[Deferred[None]] = []

        async def work() -> str:
            try:
                await Deferred(cancelled.append)
            except CancelledError:
                await last
                return "clean"
            return "never"

        running = start(work())
        running.cancel()
        self.assertEqual(len(cancelled), 1)
        self.assertNoResult(running)
        last.callback(None)
        self.assertEqual(self.successResultOf(running), "clean")

    def test_cancelled_for_good(self) -> None:
        """One that does not mind being cancelled ends with that."""

        async def work() -> None:
            await Deferred[None]()

        running = start(work())
        running.cancel()
        self.failureResultOf(running, CancelledError)

    def test_succeeded(self) -> None:
        """Neither an error nor what is still awaited is a success."""
        wait: Deferred[None] = Deferred()
        failed: Deferred[None] = Deferred()
        failed.errback(OSError("x"))
        chained: Deferred[None] = succeed(None)
        _ = chained.addCallback(lambda _: wait)
        self.assertTrue(succeeded(succeed(None)))
        for each in (wait, failed, chained):
            self.assertFalse(succeeded(each))
        wait.callback(None)
        self.assertTrue(succeeded(chained))
        self.failureResultOf(failed, OSError)


class GatherTests(SynchronousTestCase):
    """Many at once."""

    def test_results_and_errors_in_order(self) -> None:
        """An error takes the place of its result and disturbs no other."""
        one: Deferred[int] = Deferred()
        two: Deferred[int] = Deferred()
        gathering = start(gather([one, two]))
        two.callback(2)
        self.assertNoResult(gathering)
        error = OSError("x")
        one.errback(error)
        self.assertEqual(self.successResultOf(gathering), [error, 2])

    def test_cancel_reaches_all(self) -> None:
        """Cancelling cancels everything under way and leaves no unhandled error."""
        cancelled: list[int] = []

        def work(index: int) -> Deferred[None]:
            return Deferred(lambda _: cancelled.append(index))

        works = [work(index) for index in range(3)]
        gathering = start(gather(works))
        gathering.cancel()
        self.failureResultOf(gathering, CancelledError)
        self.assertEqual(cancelled, [0, 1, 2])


class TasksTests(SynchronousTestCase):
    """Tracked background work."""

    def setUp(self) -> None:
        """One owner of tasks."""
        self.tasks = Tasks(Logger())

    def test_idle_waits_for_all(self) -> None:
        """`idle` returns when the last one has ended."""
        works: list[Deferred[None]] = [Deferred(), Deferred()]
        self.tasks.spawn("work", lambda: works[0])
        self.tasks.spawn("work", lambda: works[1])
        idle = start(self.tasks.idle())
        self.assertEqual(len(self.tasks), 2)
        works[0].callback(None)
        self.assertNoResult(idle)
        works[1].callback(None)
        self.successResultOf(idle)
        self.assertEqual(len(self.tasks), 0)

    def test_failure_is_logged_and_counted(self) -> None:
        """A failing task, also one that fails at once, harms nobody."""

        def work() -> Deferred[None]:
            raise OSError("x")

        self.tasks.spawn("work", work)
        self.assertEqual(self.tasks.failed, 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_stop_cancels_and_refuses(self) -> None:
        """`stop` cancels, waits for the clean-up, and nothing starts afterwards."""
        cleaning: Deferred[None] = Deferred()

        async def work() -> None:
            try:
                await Deferred()
            finally:
                await cleaning

        self.tasks.spawn("work", work)
        stopping = start(self.tasks.stop())
        self.assertNoResult(stopping)
        cleaning.callback(None)
        self.successResultOf(stopping)
        self.tasks.spawn("late", lambda: self.fail("started after stop"))
        self.assertEqual((len(self.tasks), self.tasks.failed), (0, 0))


class ClockTests(SynchronousTestCase):
    """Waiting and giving up."""

    def test_sleep(self) -> None:
        """It ends on time, and when cancelled leaves no timer."""
        time, clock = fake_clock()
        sleeping = start(clock.sleep(5))
        time.advance(4)
        self.assertNoResult(sleeping)
        time.advance(1)
        self.assertIsNone(self.successResultOf(sleeping))
        sleeping = start(clock.sleep(5))
        sleeping.cancel()
        self.failureResultOf(sleeping, CancelledError)
        self.assertEqual(time.getDelayedCalls(), [])

    def test_over_already(self) -> None:
        """What was to be over before is over in the next turn."""
        time, clock = fake_clock()
        sleeping = start(clock.sleep(-1))
        never: Deferred[None] = Deferred()
        waiting = start(clock.within(-0.1, never))
        self.assertNoResult(sleeping)
        time.advance(0)
        self.assertIsNone(self.successResultOf(sleeping))
        self.failureResultOf(waiting, TimedOut)

    def test_within(self) -> None:
        """The result in time, TimedOut and a cancelled work otherwise."""
        time, clock = fake_clock()
        work: Deferred[int] = Deferred()
        waiting = start(clock.within(5, work))
        work.callback(7)
        self.assertEqual(self.successResultOf(waiting), 7)
        self.assertEqual(time.getDelayedCalls(), [])
        cancelled: list[object] = []
        waiting = start(clock.within(5, Deferred(cancelled.append)))
        time.advance(5)
        self.failureResultOf(waiting, TimedOut)
        self.assertEqual(len(cancelled), 1)

    def test_within_passes_on_errors(self) -> None:
        """The work's own error, and the caller's own cancelling, stay what they are."""
        time, clock = fake_clock()
        work: Deferred[int] = Deferred()
        waiting = start(clock.within(5, work))
        work.errback(OSError("x"))
        self.failureResultOf(waiting, OSError)
        waiting = start(clock.within(5, Deferred()))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(time.getDelayedCalls(), [])


class WorkersTests(TestCase):
    """Blocking work off the reactor."""

    async def test_threads(self) -> None:
        """Work runs in another thread; results and errors come back."""
        workers = ThreadWorkers(reactor, 2, "test")
        workers.start()
        self.addCleanup(workers.stop)
        there = await workers.run(threading.get_ident)
        self.assertNotEqual(there, threading.get_ident())
        self.assertEqual(await workers.run(int, "ff", base=16), 255)
        with self.assertRaises(ValueError):
            await workers.run(int, "no")

    async def test_few(self) -> None:
        """Few threads do all of it; one that hangs keeps nobody waiting."""
        workers = ThreadWorkers(reactor, 3, "test", few=1)
        workers.start()
        self.addCleanup(workers.stop)
        go = threading.Event()
        self.addCleanup(go.set)
        hanging = start(workers.run(go.wait, 60))
        others = [start(workers.run(pow, 2, n)) for n in range(50)]
        for number, other in enumerate(others):
            self.assertEqual(await other, 2**number)
        self.assertFalse(hanging.called)
        go.set()
        self.assertTrue(await hanging)

    async def test_before_the_start(self) -> None:
        """Work waits for the start, whatever number of threads there may be."""
        for few in (None, 1):
            workers = ThreadWorkers(reactor, 2, "test", few=few)
            waiting = [start(workers.run(int, "7")) for _ in range(5)]
            await REAL.sleep(0.01)
            self.assertFalse(any(each.called for each in waiting))
            workers.start()
            self.addCleanup(workers.stop)
            self.assertEqual([await each for each in waiting], [7] * 5)

    async def test_a_thread_that_hangs(self) -> None:
        """The stop leaves it behind, and the process does not wait for it."""
        self.patch(pools, "PATIENCE", 0.05)
        workers = ThreadWorkers(reactor, 2, "test")
        workers.start()
        begun, go, ended = threading.Event(), threading.Event(), threading.Event()
        self.addCleanup(go.set)
        hanging: list[threading.Thread] = []

        def hang() -> None:
            hanging.append(threading.current_thread())
            begun.set()
            go.wait(20)
            ended.set()

        _ = start(workers.run(hang))
        while not begun.is_set():
            await REAL.sleep(0)
        workers.stop()
        self.assertFalse(ended.is_set())
        self.assertTrue(all(thread.daemon for thread in hanging))
        go.set()
        while not ended.is_set():
            await REAL.sleep(0)

    async def test_inline(self) -> None:
        """The test double runs it here and now."""
        workers = InlineWorkers()
        workers.start()
        self.assertEqual(await workers.run(threading.get_ident), threading.get_ident())
        workers.stop()
