"""How fast maintenance goes, alone and beside requests."""

from __future__ import annotations

from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from ostore.maintenance.pace import SLOWEST, TOGETHER, Foreground, Pace
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start


class PaceTests(SynchronousTestCase):
    """A bucket of tokens."""

    def setUp(self) -> None:
        """A thousand steps a second, a hundred beside requests."""
        self.time = task.Clock()
        clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.foreground = Foreground(clock)
        self.pace = Pace(clock, self.foreground, 1000.0, 100.0)

    def seconds_for(
        self, times: int, steps: float, request: float = 0.0, *, urgent: bool = False
    ) -> float:
        """How long so many takes take; with a request of that time each 10 ms."""
        done: list[None] = []

        async def work() -> None:
            for _ in range(times):
                await self.pace.take(steps, urgent=urgent)
            done.append(None)

        begun = self.time.seconds()
        _ = start(work())
        while not done:
            self.time.advance(0.01)
            if request:
                self.foreground.took(request)
        return self.time.seconds() - begun

    def assert_near(self, found: float, expected: float, off: float) -> None:
        """It is no more than that off."""
        self.assertLess(abs(found - expected), off, found)

    def test_rate(self) -> None:
        """So many steps a second, and no more after a pause than in a tenth of one."""
        self.assert_near(self.seconds_for(1000, 2), 2.0, 0.15)
        self.time.advance(1000)
        self.assert_near(self.seconds_for(100, 10), 0.9, 0.15)

    def test_beside_requests(self) -> None:
        """Requests slow it down, and slow ones even more."""
        self.foreground.took(0.01)
        self.assert_near(self.seconds_for(100, 2, 0.01), 2.0, 0.2)
        self.assertGreater(self.seconds_for(100, 2, 0.05), 4.0)
        self.assertLess(self.foreground.slowness(), SLOWEST + 0.1)
        self.assertEqual(self.pace.together, 1)
        self.time.advance(5)
        self.assertEqual(self.pace.together, TOGETHER)
        self.assertEqual(self.foreground.slowness(), 1.0)
        self.assert_near(self.seconds_for(1000, 2), 2.0, 0.15)

    def test_urgent(self) -> None:
        """What is urgent goes on at full speed beside slow requests too."""
        self.foreground.took(0.01)
        self.assert_near(self.seconds_for(1000, 2, 0.05, urgent=True), 2.0, 0.15)

    def test_large_steps_are_paid_off(self) -> None:
        """A step larger than the bucket is waited for afterwards."""
        self.assert_near(self.seconds_for(2, 500), 1.0, 0.1)
