"""The way down of a service: in order, and never for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as FakeTime
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ostore.service.falling import LEAST, undo_all
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start


@implementer(ILogObserver)
class Said:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        """Keep it."""
        self.lines.append(str(event))


class FallingTests(SynchronousTestCase):
    """Steps that end, fail and hang."""

    def setUp(self) -> None:
        """A clock that moves by hand."""
        self.time = FakeTime()
        self.clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.done: list[str] = []
        self.said = Said()

    def fall(self, *steps: Callable[[], Any], seconds: float = 30) -> Deferred[None]:
        """Undo them."""
        return start(
            undo_all(list(steps), self.clock, Logger(observer=self.said), seconds)
        )

    def test_order(self) -> None:
        """The last first, each when the one before has ended."""
        waiting: Deferred[None] = Deferred()

        async def slow() -> None:
            await waiting
            self.done.append("slow")

        falling = self.fall(lambda: self.done.append("first"), slow)
        self.assertEqual(self.done, [])
        waiting.callback(None)
        self.successResultOf(falling)
        self.assertEqual(self.done, ["slow", "first"])

    def test_a_failure(self) -> None:
        """It is logged, and the others go on."""

        def broken() -> None:
            raise OSError("broken")

        self.successResultOf(self.fall(lambda: self.done.append("first"), broken))
        self.assertEqual(self.done, ["first"])
        self.assertIn("broken", self.said.lines[0])

    def test_hanging(self) -> None:
        """What hangs has the time of all; later ones that hang a moment each."""

        async def hangs() -> None:
            await Deferred()

        falling = self.fall(lambda: self.done.append("first"), hangs, hangs, hangs)
        self.time.advance(29.9)
        self.assertNoResult(falling)
        for _ in range(2):
            self.time.advance(LEAST)
            self.assertNoResult(falling)
        self.time.advance(LEAST)
        self.successResultOf(falling)
        self.assertEqual(self.done, ["first"])
        self.assertEqual(len(self.said.lines), 3)
        self.assertEqual(self.time.getDelayedCalls(), [])
