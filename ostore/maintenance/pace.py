"""How fast maintenance may go: so many steps a second, fewer while requests are slow."""

from __future__ import annotations

from ostore.streaming.clock import Clock

SLOWEST = 8.0
"""By how much slow requests hold maintenance back at most."""
TOGETHER = 8
"""Contents that are worked on at once while nobody asks for anything."""
LULL = 1.0
"""Seconds without a request after which nobody is held up."""
_QUICK, _USUAL = 0.1, 0.002


class Foreground:
    """Whether requests take longer than they use to; told of each small one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: float | None = None
        self._now = 0.0
        self._usual = 0.0

    def took(self, seconds: float) -> None:
        """A small request was answered in that time."""
        first, self._last = self._last is None, self._clock.monotonic()
        if first:
            self._now = self._usual = seconds
        self._now += _QUICK * (seconds - self._now)
        rate = _QUICK if self._now < self._usual else _USUAL
        self._usual += rate * (self._now - self._usual)

    @property
    def busy(self) -> bool:
        """Whether there are requests at all."""
        return self._last is not None and self._clock.monotonic() - self._last < LULL

    def slowness(self) -> float:
        """1 when they take as long as ever, 2 when twice as long, SLOWEST at most."""
        if not self.busy or self._usual <= 0:
            return 1.0
        return max(1.0, min(SLOWEST, self._now / self._usual))


class Pace:
    """A token bucket that all jobs and repairs of a process share.

    A step is about one file, or 1 MiB that is read or written. Full speed is for the
    hours without requests: beside them it is `beside`, divided by how much slower than
    usual they are.
    """

    def __init__(
        self, clock: Clock, foreground: Foreground, rate: float, beside: float
    ) -> None:
        self.foreground = foreground
        self._clock = clock
        self._rate = rate
        self._beside = beside
        self._tokens = 0.0
        self._filled = clock.monotonic()

    @property
    def together(self) -> int:
        """Contents to be worked on at once: one beside requests, in no bursts."""
        return 1 if self.foreground.busy else TOGETHER

    def rate(self) -> float:
        """Steps a second, as of now."""
        if not self.foreground.busy:
            return self._rate
        return self._beside / self.foreground.slowness()

    async def take(self, steps: float, *, urgent: bool = False) -> None:
        """Wait until so many steps may be taken; what is large is paid off by the next.

        At full speed for what is `urgent`, whoever asks for something meanwhile.
        """
        now = self._clock.monotonic()
        rate = self._rate if urgent else self.rate()
        burst = rate / 10
        self._tokens = min(burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        self._tokens -= steps
        if self._tokens < 0:
            await self._clock.sleep(min(-self._tokens / rate, 60.0))
