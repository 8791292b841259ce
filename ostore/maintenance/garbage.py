"""What lay in garbage long enough is removed for good, or comes back."""

from __future__ import annotations

from collections.abc import Sequence

from ostore.engine.collecting import Collecting
from ostore.maintenance.course import Course
from ostore.model.ages import known_for
from ostore.model.collecting import Held, expired

MOST = 5000
"""Contents that are remembered between the look and the removal."""


class Garbage:
    """Looks, waits, then asks the metadata for each content.

    Nothing else removes what once was a shard.
    """

    name = "garbage"
    fresh_epoch = False
    removes = True

    def __init__(self, hands: Collecting, expiry: float, interval: float) -> None:
        self.interval = interval
        self._hands = hands
        self._expiry = expiry

    def news(self) -> None:
        """Nothing hurries it."""

    async def run(self, course: Course) -> None:
        """Remove, in several rounds when there is much."""
        course.counts.clear()
        while True:
            due, more = await self._look(course)
            if course.dry_run or not due:
                return
            await course.wait(known_for(self._expiry))
            if not (await self._remove(course, due) and more):
                return

    async def _look(self, course: Course) -> tuple[dict[str, Sequence[Held]], bool]:
        """What has expired, and whether there is more of it than is remembered."""
        due: dict[str, Sequence[Held]] = {}
        seen = 0
        walk = self._hands.walk()
        while len(due) < MOST:
            await course.go_on()
            stretch = await walk.next()
            if stretch is None:
                break
            await course.go_on(sum(map(len, stretch.held.values())) / 20)
            for shards in stretch.held.values():
                seen += sum(facts.state == "garbage" for _, facts in shards)
            due.update(expired(stretch, self._expiry))
        course.counts["garbage"] = seen
        course.counts["expired"] = sum(map(len, due.values()))
        course.counts["unlisted_nodes"] = len(walk.unlisted)
        return due, len(due) >= MOST

    async def _remove(self, course: Course, due: dict[str, Sequence[Held]]) -> bool:
        """Whether anything was removed or brought back."""

        def done() -> int:
            return course.counts["shards"] + course.counts["restored"]

        before = done()

        async def remove(one: tuple[str, Sequence[Held]]) -> None:
            made = await self._hands.expire(*one, self._expiry, course.epoch)
            course.counts["shards"] += made.gone
            course.counts["bytes"] += made.bytes
            course.counts["restored"] += made.restored
            course.counts["kept"] += made.kept

        await course.each(due.items(), remove, lambda one: len(one[1]))
        return done() > before
