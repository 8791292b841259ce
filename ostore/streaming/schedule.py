"""A repeated job that survives its failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.model.errors import OstoreError
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start

JITTER = 0.1
"""Largest part of the interval by which a pause differs from it, either way."""


class Repeated:
    """Runs `work` every `interval` seconds, counted from the end of the run before.

    Owned by a service that calls `start` and `stop`. A failing run is counted and
    logged, with a traceback where it is a defect. Runs never overlap. `last_started`,
    `last_ended` and `next_due` are seconds since 1970, None where there is nothing to
    say.
    """

    def __init__(
        self,
        clock: Clock,
        interval: float,
        work: Callable[[], Awaitable[object]],
        entropy: Callable[[int], bytes],
        log: Logger,
        *,
        what: str = "a repeated job",
    ) -> None:
        self.runs = 0
        self.failures = 0
        self.last_started: float | None = None
        self.last_ended: float | None = None
        self.next_due: float | None = None
        self.running = False
        self._clock = clock
        self._interval = interval
        self._work = work
        self._entropy = entropy
        self._log = log
        self._what = what
        self._active = False
        self._timer: IDelayedCall | None = None
        self._run: Deferred[None] | None = None

    def start(self) -> None:
        """Plan the first run, one interval from now."""
        if not self._active:
            self._active = True
            self._plan()

    def now(self) -> bool:
        """Run at once; False when a run is under way or the job is stopped."""
        if self.running or not self._active:
            return False
        self._begin()
        return True

    async def stop(self) -> None:
        """Plan no more; cancel the run under way and wait until it has ended."""
        self._active = False
        self._unplan()
        if self.running and self._run is not None:
            self._run.cancel()
            await self._run

    def _plan(self) -> None:
        chance = int.from_bytes(self._entropy(4), "big") / 2**31 - 1
        pause = self._interval * (1 + JITTER * chance)
        self.next_due = self._clock.wall() + pause
        self._timer = self._clock.call_later(pause, self._begin)

    def _unplan(self) -> None:
        self.next_due = None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _begin(self) -> None:
        self._unplan()
        self.running = True
        self.last_started = self._clock.wall()
        self._run = start(self._once())

    async def _once(self) -> None:
        try:
            await self._work()
        except CancelledError:
            if self._active:
                self.failures += 1
        except OstoreError as error:
            self.failures += 1
            self._log.warn("{what}: {error}", what=self._what, error=error)
        except Exception:  # noqa: BLE001 - the next run may do better
            self.failures += 1
            failure = Failure()  # type: ignore[no-untyped-call]  # Twisted's
            self._log.failure("{what} failed", failure, what=self._what)
        finally:
            self.runs += 1
            self.running = False
            self.last_ended = self._clock.wall()
            if self._active:
                self._plan()
