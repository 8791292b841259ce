"""One short question to many nodes at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import attrs

from ostore.model.errors import NodeUnreachable, ShardError
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather

K = TypeVar("K")
T = TypeVar("T")

PATIENCE = 3.0
"""Seconds that a node has for a short question about an upload."""


@attrs.frozen
class Poll(Generic[K, T]):
    """Who answered what, and why others did not."""

    answers: dict[K, T]
    failures: dict[K, ShardError]


async def in_time(clock: Clock, work: Awaitable[T]) -> T:
    """What `work` gives. Raises NodeUnreachable when that takes too long."""
    try:
        return await clock.within(PATIENCE, work)
    except TimedOut:
        raise NodeUnreachable("no answer in time") from None


async def poll(
    clock: Clock, asked: Iterable[K], ask: Callable[[K], Awaitable[T]]
) -> Poll[K, T]:
    """`ask(each)` for all at once; waits until all have answered, failed or lagged.

    What is no ShardError is raised.
    """

    async def one(each: K) -> T:
        return await in_time(clock, ask(each))

    everyone = list(asked)
    found: Poll[K, T] = Poll({}, {})
    outcomes = await gather(one(each) for each in everyone)
    for each, outcome in zip(everyone, outcomes, strict=True):
        if isinstance(outcome, ShardError):
            found.failures[each] = outcome
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            found.answers[each] = outcome
    return found
