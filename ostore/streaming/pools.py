"""Bounded worker threads for what would block the reactor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, ParamSpec, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that the stop waits for work under way."""
SOON = 0.001
"""Seconds in line after which work gets a thread of its own, if there may be one."""


class Workers(Protocol):
    """Runs blocking functions; a constructor argument wherever disks are touched."""

    def start(self) -> None:
        """Make ready."""

    def stop(self) -> None:
        """Finish what is queued, then end; blocks, but not for work that hangs."""

    def run(
        self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """What `work` returns or raises."""
        ...


@attrs.frozen(eq=False)
class _Work:
    """One call, who waits for it, and since when it waits itself."""

    call: Callable[[], object]
    result: Deferred[Any]
    since: float


class ThreadWorkers:
    """At most `size` threads; work waits in line for one of them.

    With a `few`, no more are at work as long as the line moves on: leaving short work
    to a thread that is awake costs less than waking another. When the first in line has
    waited for SOON seconds each gets a thread. What several threads have done comes
    back in one turn of the reactor. Work that hangs is left behind at the stop, and
    ends with the process.
    """

    def __init__(
        self, reactor: Any, size: int, name: str, *, few: int | None = None
    ) -> None:
        """`reactor` is an IReactorFromThreads and an IReactorTime."""
        self._reactor = reactor
        self._size = size
        self._few = size if few is None else few
        self._name = name
        self._line: deque[_Work] = deque()
        self._lock = Lock()
        self._awake = 0
        self._asleep: SimpleQueue[bool] = SimpleQueue()
        self._threads: list[Thread] = []
        self._look_at: IDelayedCall | None = None
        self._done: deque[tuple[Deferred[Any], object]] = deque()
        self._told = False
        self._stopped = True

    def start(self) -> None:
        """Make ready."""
        self._stopped = False
        for _ in range(min(self._few, len(self._line))):
            self._wake()

    def stop(self) -> None:
        """Finish what is queued, then end; blocks for PATIENCE at most."""
        self._stopped = True
        if self._look_at is not None:
            self._look_at.cancel()
            self._look_at = None
        threads, self._threads = self._threads, []
        for _ in threads:
            self._asleep.put(False)
        deadline = time.monotonic() + PATIENCE
        for each in threads:
            each.join(max(0.0, deadline - time.monotonic()))

    def run(
        self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """What `work` returns or raises; it goes on when the caller is cancelled.

        It waits for start() if need be, and for ever behind stop().
        """
        result: Deferred[T] = Deferred()
        self._line.append(
            _Work(partial(work, *args, **kwargs), result, time.monotonic())
        )
        if not self._stopped:
            self._wake()
            if self._few < self._size and self._look_at is None:
                self._look_at = self._reactor.callLater(SOON, self._look)
        return result

    def _wake(self, most: int | None = None) -> None:
        """Have one more at work, unless so many are."""
        with self._lock:
            if self._awake >= (self._few if most is None else most):
                return
            self._awake += 1
            missing = self._awake > len(self._threads)
        self._asleep.put(True)
        if missing:
            name = f"{self._name}-{len(self._threads)}"
            # one that hangs in the kernel does not keep the process
            each = Thread(target=self._work, name=name, daemon=True)
            self._threads.append(each)
            each.start()

    def _look(self) -> None:
        """See whether the line moves on, as long as there is one."""
        self._look_at = None
        with self._lock:
            waiting = len(self._line)
            since = self._line[0].since if waiting else 0.0
        if not waiting:
            return
        if time.monotonic() - since >= SOON:
            for _ in range(waiting):
                self._wake(self._size)
        self._look_at = self._reactor.callLater(SOON, self._look)

    def _work(self) -> None:
        while self._asleep.get():
            while (each := self._next()) is not None:
                outcome: object
                try:
                    outcome = each.call()
                except BaseException:  # noqa: BLE001 - handed to who waits
                    outcome = Failure()  # type: ignore[no-untyped-call]  # Twisted's
                self._done.append((each.result, outcome))
                del each, outcome
                if not self._told:
                    self._told = True
                    self._reactor.callFromThread(self._deliver)

    def _next(self) -> _Work | None:
        """The first in line; None, and one less is at work, when there is none."""
        with self._lock:
            if self._line:
                return self._line.popleft()
            self._awake -= 1
            return None

    def _deliver(self) -> None:
        self._told = False
        while self._done:
            result, outcome = self._done.popleft()
            result.callback(outcome)  # a Failure takes the way of an error


class InlineWorkers:
    """Runs everything at once in the caller: tests and the simulator."""

    def start(self) -> None:
        """Nothing to make ready."""

    def stop(self) -> None:
        """Nothing to end."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises."""
        return work(*args, **kwargs)
