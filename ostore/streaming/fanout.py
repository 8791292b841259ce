"""One writer, n sinks, and what to do about those that lag or die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ostore.model.errors import ShardError, Unavailable
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start, succeeded

S = TypeVar("S")


class Lagged(ShardError):
    """A sink fell behind the others for too long."""


class QuorumLost(Unavailable):
    """Too few sinks are left; `causes` has the error of each that was dropped."""

    def __init__(self, needed: int, causes: Mapping[int, Exception]) -> None:
        super().__init__(f"fewer than {needed} nodes took the write")
        self.causes = dict(causes)


class Fanout(Generic[S]):
    """Runs each operation on all standing sinks at once; keeps who failed and why.

    `dropped(index, sink, error)` is called once for each sink that is given up: for its
    own error, or Lagged when it is still pending `laggard` seconds after the quorum-th
    finished, or `stall` seconds after the start while there is no quorum. `failures`
    keeps those errors. Made by one writer, who calls `each` again when it has returned.
    """

    def __init__(
        self,
        clock: Clock,
        sinks: Mapping[int, S],
        quorum: int,
        laggard: float,
        stall: float,
        dropped: Callable[[int, S, Exception], None],
    ) -> None:
        self.failures: dict[int, Exception] = {}
        self._clock = clock
        self._sinks = dict(sinks)
        self._quorum = quorum
        self._laggard = laggard
        self._stall = stall
        self._dropped = dropped
        self._pending: dict[int, Deferred[object]] = {}
        self._done: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._finished = 0

    @property
    def standing(self) -> Sequence[int]:
        """Indices of the sinks that took everything so far, sorted."""
        return sorted(self._sinks)

    async def each(self, operation: Callable[[int, S], Awaitable[object]]) -> None:
        """Run `operation(index, sink)` on all that stand; returns with a quorum.

        One that raises at once fails like one that does so later. Raises QuorumLost as soon as no quorum can come; what was pending is cancelled
        then, as it is when the caller is cancelled.
        """
        self._finished = 0
        try:
            self._begin(operation)
            if self._pending and self._possible():
                if self._timer is None:
                    self._drop_after(self._stall)
                self._done = done = Deferred[None]()
                await done
            if not self._possible():
                raise QuorumLost(self._quorum, self.failures)
        finally:
            self._done = None
            self._stop_timer()
            pending, self._pending = self._pending, {}
            for running in pending.values():
                running.cancel()

    def _begin(self, operation: Callable[[int, S], Awaitable[object]]) -> None:
        for index, sink in self._sinks.items():
            running = _begun(operation, index, sink)
            if succeeded(running):
                self._finished += 1
            else:
                self._pending[index] = running
        if self._finished >= self._quorum and self._pending:
            self._drop_after(self._laggard)
        for index, each in list(self._pending.items()):
            _ = each.addCallbacks(
                self._succeeded,
                self._failed,
                callbackArgs=(index,),
                errbackArgs=(index,),
            )

    def _succeeded(self, _: object, index: int) -> None:
        if self._pending.pop(index, None) is None:
            return
        self._finished += 1
        if self._finished == self._quorum and self._pending:
            self._stop_timer()
            self._drop_after(self._laggard)
        self._settle()

    def _failed(self, failure: Failure, index: int) -> None:
        if self._pending.pop(index, None) is None:
            return
        error = failure.value
        self._drop(
            index, error if isinstance(error, Exception) else OSError(repr(error))
        )
        self._settle()

    def _drop_pending(self) -> None:
        pending, self._pending = self._pending, {}
        for index, running in pending.items():
            self._drop(index, Lagged("fell behind the other nodes"))
            running.cancel()
        self._settle()

    def _drop(self, index: int, error: Exception) -> None:
        self.failures[index] = error
        self._dropped(index, self._sinks.pop(index), error)

    def _possible(self) -> bool:
        return len(self._sinks) >= self._quorum

    def _settle(self) -> None:
        if self._pending and self._possible():
            return
        done, self._done = self._done, None
        if done is not None and not done.called:
            done.callback(None)

    def _drop_after(self, seconds: float) -> None:
        self._timer = self._clock.call_later(seconds, self._drop_pending)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _begun(
    operation: Callable[[int, S], Awaitable[object]], index: int, sink: S
) -> Deferred[object]:
    try:
        return start(operation(index, sink))
    except Exception:  # noqa: BLE001 - as if the coroutine had raised it
        return fail()
