"""Work that goes on when its caller is cancelled, one piece at a time for each key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ostore.streaming.tasks import shielded, start

T = TypeVar("T")


async def handed_over(work: Awaitable[T], undo: Callable[[T], object]) -> T:
    """What `work` gives; it goes to `undo` when the caller was cancelled meanwhile.

    For what somebody has to close: a worker thread opens it whoever still wants it.
    """
    waiting: Deferred[T] = Deferred()

    def done(result: T) -> None:
        if waiting.called:
            undo(result)
        else:
            waiting.callback(result)

    def failed(failure: Failure) -> None:
        if not waiting.called:
            waiting.errback(failure)

    _ = start(work).addCallbacks(done, failed)
    return await waiting


class Serial:
    """Lets work on one key wait for the work on it before; keys do not wait for others.

    Owned by a store. What has begun is finished even when its caller is cancelled.
    """

    def __init__(self) -> None:
        self._last: dict[str, Deferred[None]] = {}
        self._idle: list[Deferred[None]] = []

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work()` gives or raises, called when it is its turn."""
        return await shielded(self._in_turn(key, work))

    def begin(self, key: str) -> Deferred[None] | None:
        """Take the turn now, until end() of what this gives; None: it is another's."""
        if key in self._last:
            return None
        mine = self._last[key] = Deferred[None]()
        return mine

    def end(self, key: str, mine: Deferred[None]) -> None:
        """The turn that began is over: whoever waits goes on."""
        if self._last[key] is mine:
            del self._last[key]
        mine.callback(None)
        if not self._last:
            waiting, self._idle = self._idle, []
            for each in waiting:
                each.callback(None)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        if self._last:
            waiting: Deferred[None] = Deferred()
            self._idle.append(waiting)
            await waiting

    async def _in_turn(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        before, mine = self._last.get(key), Deferred[None]()
        self._last[key] = mine
        try:
            if before is not None:
                await before
            return await work()
        finally:
            self.end(key, mine)
