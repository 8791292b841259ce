"""Every shard is read once in a period, and every content counted."""

from __future__ import annotations

from collections.abc import Sequence

from ostore.engine.tending import Tending
from ostore.maintenance.counting import Counting
from ostore.maintenance.course import Course
from ostore.model.scrubbing import SLICES, Progress, in_rows, span

LEAST = 1.0
"""Seconds between two runs by plan, at least."""


class Scrub:
    """Reads a slice of all contents after the other, those first that wait longest.

    By plan as many as fit the time since the last run; asked for, all of them. The
    cursor lists the rows of slices that are left.
    """

    name = "scrub"
    fresh_epoch = False
    removes = False

    def __init__(self, tending: Tending, period: float) -> None:
        self.interval = max(LEAST, period / SLICES)
        self._period = period
        self._counting = Counting(tending, reading=True)

    def news(self) -> None:
        """Nothing hurries it."""

    async def run(self, course: Course) -> None:
        """Read the slices that are due."""
        now = course.clock.wall()
        progress = Progress.from_json(course.memory) or Progress.begin(now)
        if course.cursor is None:
            due: Sequence[int] = range(SLICES)
            if not course.asked:
                progress, due = progress.plan(now, self._period)
                await course.remember(progress.to_json())
            course.cursor = in_rows(due)
        while course.cursor:
            first, last = course.cursor[0]
            await self._counting.go(course, span(first)[0], span(last)[1])
            course.cursor = course.cursor[1:]
            course.counts["slices"] += last - first + 1
            progress = progress.done(range(first, last + 1), course.clock.wall())
            if not course.dry_run:
                await course.remember(progress.to_json())
