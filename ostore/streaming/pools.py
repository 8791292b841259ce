"""Bounded worker threads for what would block the reactor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 1.0
"""Seconds that the stop waits for work under way."""


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
    """One call, and who waits for it."""

    call: Callable[[], object]
    result: Deferred[Any]


class ThreadWorkers:
    """At most `size` threads; work waits in line for one of them.

    A thread is begun when work comes and none is free. What several threads have done
    comes back in one turn of the reactor. Work that hangs is left behind at the stop,
    and ends with the process.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int, name: str) -> None:
        self._reactor = reactor
        self._size = size
        self._name = name
        self._line: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._under_way = 0
        self._done: deque[tuple[Deferred[Any], object]] = deque()
        self._told = False
        self._stopped = True

    def start(self) -> None:
        """Make ready."""
        self._stopped = False
        self._hire()

    def stop(self) -> None:
        """Finish what is queued, then end; blocks for PATIENCE at most."""
        self._stopped = True
        threads, self._threads = self._threads, []
        for _ in threads:
            self._line.put(None)
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
        self._under_way += 1
        self._line.put(_Work(partial(work, *args, **kwargs), result))
        if not self._stopped:
            self._hire()
        return result

    def _hire(self) -> None:
        while len(self._threads) < min(self._size, self._under_way):
            name = f"{self._name}-{len(self._threads)}"
            # one that hangs in the kernel does not keep the process
            each = Thread(target=self._work, name=name, daemon=True)
            self._threads.append(each)
            each.start()

    def _work(self) -> None:
        while (each := self._line.get()) is not None:
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

    def _deliver(self) -> None:
        self._told = False
        while self._done:
            result, outcome = self._done.popleft()
            self._under_way -= 1
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
