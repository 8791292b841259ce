"""Every content is counted: what is missing is mended, what is too much goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostore.engine.tending import Tending
from ostore.engine.walking import LAST
from ostore.maintenance.course import Course, Stopped
from ostore.model.collecting import Held, standing
from ostore.model.examining import examine


class Counting:
    """Goes over a part of all contents; what Census and Scrub have in common.

    With `reading` every shard is read as well, by the node that has it.
    """

    def __init__(self, tending: Tending, *, reading: bool) -> None:
        self._tending = tending
        self._reading = reading

    async def go(self, course: Course, after: str = "", until: str = LAST) -> None:
        """Count everything in there. Raises Stopped when a node could not be listed."""
        walk = self._tending.hands.walk(after, until)
        while (stretch := await walk.next()) is not None:
            await course.go_on(len(stretch.referred) / 20)
            listed = not walk.unlisted

            async def count(hash: str, listed: bool = listed) -> None:
                shards = standing(stretch.held.get(hash, ()))
                await self._count(course, hash, shards, listed=listed)

            def steps(hash: str) -> float:
                return self._steps(stretch.held.get(hash, ()))

            await course.each(sorted(stretch.referred), count, steps)
            if not self._reading:
                course.cursor = walk.after
            while self._tending.enough and not course.dry_run:
                await course.wait(1.0)
        if walk.unlisted:
            names = ", ".join(sorted(walk.unlisted))
            raise Stopped(f"these nodes could not say what they hold: {names}")

    def _steps(self, shards: Sequence[Held]) -> float:
        """About how many files, and as many for each MiB that is read."""
        if not self._reading:
            return 0.05
        return len(shards) + sum(facts.bytes for _, facts in shards) / (1 << 20)

    async def _count(
        self, course: Course, hash: str, shards: Sequence[Held], *, listed: bool
    ) -> None:
        counts, tending = course.counts, self._tending
        if self._reading:
            before = sum(facts.state == "bad" for _, facts in shards)
            counts["shards"] += len(shards)
            shards, size = await tending.check(shards)
            counts["bytes"] += size
            counts["rotten"] += sum(f.state == "bad" for _, f in shards) - before
        finding = examine(shards)
        counts["contents"] += 1
        certain = listed and not tending.away
        if finding.layout is None or finding.left < finding.layout.data:
            counts["unreadable"] += certain
        if finding.spots or finding.layout is None:
            counts["missing"] += max(1, len(finding.spots))
            counts[f"left_{finding.left}"] += 1
            at_home = any(finding.spots.values())
            if not course.dry_run and (certain or at_home):
                await tending.report(hash, finding)
        elif finding.surplus:
            counts["surplus"] += finding.surplus
            if not course.dry_run and certain:
                done = await tending.prune(hash, course.epoch)
                counts["removed"] += done.gone


class Census:
    """Looks for what is missing or too much, without reading it.

    At once when a node came, was made anew, or was given up; and now and then.
    """

    name = "census"
    fresh_epoch = False
    removes = False

    def __init__(self, tending: Tending, interval: float) -> None:
        self.interval = interval
        self._tending = tending
        self._counting = Counting(tending, reading=False)

    def news(self) -> Any:
        """Who is there."""
        return self._tending.news()

    async def run(self, course: Course) -> None:
        """Count everything."""
        await self._counting.go(course, course.cursor or "")
