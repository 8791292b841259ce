"""One at a time for each key, in the order they came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import DeferredLock

T = TypeVar("T")


class Turns:
    """Lets work on one key wait for the work on it before; owned by `Putting`.

    A caller that is cancelled gives up its place, or ends its work.
    """

    def __init__(self) -> None:
        self._locks: dict[str, tuple[DeferredLock, int]] = {}

    def __len__(self) -> int:
        """Keys that somebody works on or waits for."""
        return len(self._locks)

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work()` gives or raises, called when it is its turn."""
        lock, users = self._locks.get(key) or (DeferredLock(), 0)
        self._locks[key] = lock, users + 1
        try:
            await lock.acquire()
            try:
                return await work()
            finally:
                lock.release()
        finally:
            users = self._locks[key][1] - 1
            if users:
                self._locks[key] = lock, users
            else:
                del self._locks[key]
