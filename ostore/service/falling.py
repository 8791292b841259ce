"""The way down: what was begun is undone, the last first, whatever hangs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather

GRACE = 30.0
"""Seconds that a service has for its end, requests under way included."""
LEAST = 1.0
"""Seconds that each step has even when the time of all is over."""


async def undo_all(
    steps: list[Callable[[], Any]], clock: Clock, log: Logger, seconds: float
) -> None:
    """Call them from the last to the first, and wait for each that is asynchronous.

    One that fails, or is not done when the `seconds` of all are over, is logged and
    left behind: what it waits for is a disk that hangs, and ends with the process.
    """
    deadline = clock.monotonic() + seconds
    while steps:
        left = max(LEAST, deadline - clock.monotonic())
        (outcome,) = await gather([clock.within(left, _call(steps.pop()))])
        if isinstance(outcome, TimedOut):
            log.error("while stopping: something hangs and is left behind")
        elif isinstance(outcome, Exception):
            log.error("while stopping: {error}", error=outcome)


async def _call(step: Callable[[], Any]) -> None:
    outcome = step()
    if outcome is not None:
        await outcome
