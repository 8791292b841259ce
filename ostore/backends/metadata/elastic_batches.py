"""Group commit: what waits while a call is under way shares the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ostore.backends.metadata.elastic_client import MaybeApplied
from ostore.model.errors import MetadataUnavailable
from ostore.streaming.tasks import Tasks

I = TypeVar("I")  # noqa: E741 - an item
O = TypeVar("O")  # noqa: E741 - its outcome


@attrs.define(eq=False)
class _Waiting(Generic[I, O]):
    item: I
    weight: int
    result: Deferred[O]


class Batches(Generic[I, O]):
    """Carries items to `send`, as many at once as wait; runs in `tasks`.

    A batch has at most `most` items and `heaviest` bytes. It goes at once when none is
    under way, and beside another when no fewer items wait than are under way, and at
    least `beside`; `lanes` are under way at most. `send` gives an outcome for each
    item, an exception for one that failed; what it raises is everyone's.
    """

    def __init__(
        self,
        send: Callable[[Sequence[I]], Awaitable[Sequence[O | Exception]]],
        tasks: Tasks,
        *,
        most: int = 128,
        heaviest: int = 8 * 1024 * 1024,
        lanes: int = 2,
        beside: int = 1,
        waiting: int = 10_000,
    ) -> None:
        self._send = send
        self._tasks = tasks
        self._most = most
        self._heaviest = heaviest
        self._lanes = lanes
        self._beside = beside
        self._limit = waiting
        self._queue: deque[_Waiting[I, O]] = deque()
        self._running = 0
        self._under_way = 0
        self._closed = False

    def close(self) -> None:
        """Take nothing more; what waits is still sent."""
        self._closed = True

    async def submit(self, item: I, weight: int = 0) -> O:
        """The outcome of `item`; it goes on when the caller is cancelled."""
        if self._closed:
            raise MetadataUnavailable("the metadata store is closed")
        if len(self._queue) >= self._limit:
            raise MetadataUnavailable("too many requests wait for the metadata store")
        result: Deferred[O] = Deferred()
        self._queue.append(_Waiting(item, weight, result))
        if self._running < self._lanes and self._ready():
            self._running += 1
            self._tasks.spawn("a batch for the search server", self._drain)
        return await result

    async def _drain(self) -> None:
        try:
            while self._ready():
                await self._one(self._take())
        finally:
            self._running -= 1

    def _ready(self) -> bool:
        wanted = max(self._beside, self._under_way) if self._under_way else 1
        return len(self._queue) >= wanted

    async def _one(self, batch: Sequence[_Waiting[I, O]]) -> None:
        outcomes: Sequence[O | Exception]
        self._under_way += len(batch)
        try:
            outcomes = await self._send([each.item for each in batch])
        except CancelledError:
            lost = MaybeApplied("the store was stopped meanwhile")
            _deliver([*batch, *self._queue], [lost] * (len(batch) + len(self._queue)))
            self._queue.clear()
            raise
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits
            outcomes = [error] * len(batch)
        finally:
            self._under_way -= len(batch)
        _deliver(batch, outcomes)

    def _take(self) -> list[_Waiting[I, O]]:
        batch = [self._queue.popleft()]
        weight = batch[0].weight
        while self._queue and len(batch) < self._most:
            weight += self._queue[0].weight
            if weight > self._heaviest:
                break
            batch.append(self._queue.popleft())
        return batch


def _deliver(
    batch: Sequence[_Waiting[I, O]], outcomes: Sequence[O | Exception]
) -> None:
    for each, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Exception):
            each.result.errback(Failure(outcome))  # type: ignore[no-untyped-call]  # as Twisted leaves it
        else:
            each.result.callback(outcome)
