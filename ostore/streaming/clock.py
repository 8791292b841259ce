"""Time as everything else sees it: one monotonic clock, one on the wall, timers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ostore.streaming.tasks import start

T = TypeVar("T")


class TimedOut(Exception):
    """What was awaited did not come in time."""


@attrs.frozen
class Clock:
    """Reads the time and sets timers; made in `service/`, passed everywhere.

    `monotonic` and `wall` give seconds; only `wall` can jump. Timers run on
    `timers`, a reactor or a `task.Clock`.
    """

    timers: IReactorTime
    monotonic: Callable[[], float]
    wall: Callable[[], float]

    def call_later(
        self, delay: float, call: Callable[..., object], *args: Any
    ) -> IDelayedCall:
        """Run `call` after `delay` seconds, in the next turn when they are over."""
        return self.timers.callLater(max(0.0, delay), call, *args)

    async def sleep(self, seconds: float) -> None:
        """Wait; cancelling the Deferred that awaits it ends the timer."""
        waiting: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self.call_later(seconds, waiting.callback, None)
        await waiting

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """What `work` gives, or TimedOut after `seconds`; then it is cancelled."""
        late = False
        running = start(work)
        if running.called and not running.paused:
            return await running

        def give_up() -> None:
            nonlocal late
            late = True
            running.cancel()

        timer = self.call_later(seconds, give_up)
        try:
            return await running
        except CancelledError:
            if late:
                raise TimedOut(f"no answer within {seconds:g} s") from None
            raise
        finally:
            if timer.active():
                timer.cancel()
