"""When a client that owes us something has been waited for long enough."""

from __future__ import annotations

from typing import Protocol


class Limits(Protocol):
    """What a site allows its clients; seconds, seconds and bytes."""

    idle: float
    head_time: float
    least_progress: int


class Patience:
    """Judges one connection, at each look at it; owned by its channel.

    It ends when less than `least_progress` bytes moved in `idle` seconds while something
    was owed, or when a head needs more than `head_time`.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._since = now
        self._mark = (0, 0)
        self._slow_head: tuple[int, float] | None = None

    def ends(
        self, now: float, turns: int, moved: int, *, owed: bool, head: int | None
    ) -> bool:
        """Whether it is over; if so it begins anew.

        `turns` (heads and answers that are whole) are progress, whatever `moved`.
        `head` is the number of the one that is not whole yet, None without.
        """
        if (
            turns != self._mark[0]
            or moved - self._mark[1] >= self._limits.least_progress
            or not owed
        ):
            self._since, self._mark = now, (turns, moved)
        over = now - self._since >= self._limits.idle or self._is_late(now, head)
        if over:
            self._since = now
        return over

    def _is_late(self, now: float, head: int | None) -> bool:
        if head is None:
            self._slow_head = None
            return False
        if self._slow_head is None or self._slow_head[0] != head:
            self._slow_head = (head, now)
        return now - self._slow_head[1] >= self._limits.head_time
