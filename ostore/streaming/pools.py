"""Bounded worker threads for what would block the reactor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

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

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises."""
        ...


class _DaemonPool(ThreadPool):
    """Its threads do not keep the process when one of them hangs in the kernel."""

    threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # noqa: N815 - Twisted's hook; any maker of threads will do


class ThreadWorkers:
    """At most `size` threads; work waits in line for one of them.

    Work that hangs is left behind at the stop, and ends with the process.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int, name: str) -> None:
        self._reactor = reactor
        self._pool = _DaemonPool(0, size, name)

    def start(self) -> None:
        """Make ready."""
        self._pool.start()

    def stop(self) -> None:
        """Finish what is queued, then end; blocks for PATIENCE at most."""
        ending = Thread(target=self._pool.stop, daemon=True)
        ending.start()
        ending.join(PATIENCE)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises; it goes on when the caller is cancelled."""
        pool: Deferred[T] = deferToThreadPool(
            self._reactor, self._pool, work, *args, **kwargs
        )
        return await pool


class InlineWorkers:
    """Runs everything at once in the caller: tests and the simulator."""

    def start(self) -> None:
        """Nothing to make ready."""

    def stop(self) -> None:
        """Nothing to end."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises."""
        return work(*args, **kwargs)
