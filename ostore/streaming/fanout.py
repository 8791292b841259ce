"""One writer, n sinks, and what to do about those that lag or die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from ostore.model.errors import ShardError, Unavailable
from ostore.streaming.clock import Clock

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
    own error, or Lagged when it is pending `laggard` seconds after the quorum-th
    finished. Without a quorum after `stall` seconds it is lost.
    """

    failures: dict[int, Exception]

    def __init__(
        self,
        clock: Clock,
        sinks: Mapping[int, S],
        quorum: int,
        laggard: float,
        stall: float,
        dropped: Callable[[int, S, Exception], None],
    ) -> None:
        raise NotImplementedError

    @property
    def standing(self) -> Sequence[int]:
        """Indices of the sinks that took everything so far, sorted."""
        raise NotImplementedError

    async def each(self, operation: Callable[[int, S], Awaitable[object]]) -> None:
        """Run `operation(index, sink)` on all that stand; returns with a quorum.

        Raises QuorumLost; what was pending is cancelled then.
        """
        raise NotImplementedError
