"""When an age counts: over by the wall clock, and known by one that cannot jump.

The age of a thing on disk is the wall clock's word alone. A clock that jumped makes
what was written a second ago look a year old, so whoever would remove something for
its age must also have known it for a while by the monotonic clock.
"""

from __future__ import annotations

KNOWN = 600.0
"""The most seconds for which a thing must have been known, however old it has to be."""
JUMP = 1.0
"""Seconds by which the two clocks may drift apart between two looks."""


def known_for(age: float) -> float:
    """For how long something of that age must have been known (monotonic seconds)."""
    return min(age, KNOWN)


class WallWatch:
    """Notices that the wall clock jumped; one for each process that keeps files.

    `look` is called with both clocks, the more often the better: a drift between two
    looks is followed, more than JUMP is taken for a jump.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._since = 0.0

    def look(self, wall: float, monotonic: float) -> None:
        """Compare the clocks."""
        offset = wall - monotonic
        if self._offset is None or abs(offset - self._offset) > JUMP:
            self._since = monotonic
        self._offset = offset

    def counts(self, age: float, wall: float, monotonic: float) -> bool:
        """Whether the wall clock was right for so long that such an age can be told."""
        self.look(wall, monotonic)
        return monotonic - self._since >= known_for(age)
