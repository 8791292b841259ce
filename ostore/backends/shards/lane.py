"""Many small blocking calls on one worker thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from ostore.streaming.pools import Workers
from ostore.streaming.tasks import start

T = TypeVar("T")

BATCH = 64
"""Most calls that go to a worker at a time."""


class Lane(Generic[T]):
    """Hands calls to one worker thread, all that wait at a time.

    Owned by a store, for what is done often and takes a few system calls: threads
    that fight for the interpreter between those are slower than one of them alone.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._waiting: deque[tuple[Callable[[], T], Deferred[T]]] = deque()
        self._running = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; it goes on when the caller is cancelled."""
        result: Deferred[T] = Deferred()
        self._waiting.append((work, result))
        if not self._running:
            self._running = True
            _ = start(self._drain())
        return await result

    async def _drain(self) -> None:
        while self._waiting:
            count = min(BATCH, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(count)]
            works = [work for work, _ in taken]
            try:
                outcomes = await self._workers.run(_each, works)
            except BaseException as error:  # noqa: BLE001 - handed to all who wait
                for _, result in taken:
                    result.errback(error)
                continue
            for (_, result), outcome in zip(taken, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    result.errback(outcome)
                else:
                    result.callback(outcome)
        self._running = False


def _each(works: list[Callable[[], T]]) -> list[T | Exception]:
    outcomes: list[T | Exception] = []
    for work in works:
        try:
            outcomes.append(work())
        except Exception as error:  # noqa: BLE001 - handed to the one who waits
            outcomes.append(error)
    return outcomes
