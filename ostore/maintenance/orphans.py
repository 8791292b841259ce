"""Contents that no version refers to move to garbage."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ostore.engine.collecting import Collecting
from ostore.maintenance.course import Course, Stopped
from ostore.model.ages import known_for
from ostore.model.braking import FEW, SHARE, too_many
from ostore.model.collecting import Held, orphans, standing

MOST = 5000
"""Contents that are remembered between the look and the move."""


@attrs.define
class _Look:
    """What a walk found: contents in all, orphans in all, and those to be moved."""

    contents: int = 0
    orphans: int = 0
    due: dict[str, Sequence[Held]] = attrs.field(factory=dict)


class Orphans:
    """Looks, waits, moves: what is moved was known as an orphan all that time.

    A run that another service takes over begins anew: it knows nothing yet.
    """

    name = "orphans"
    fresh_epoch = True
    removes = True

    def __init__(self, hands: Collecting, grace: float, interval: float) -> None:
        self.interval = interval
        self._hands = hands
        self._grace = grace

    def news(self) -> None:
        """Nothing hurries it."""

    async def run(self, course: Course) -> None:
        """Collect, in several rounds when there is much."""
        course.counts.clear()
        first = True
        while True:
            look = await self._look(course)
            if first:
                course.counts.update(contents=look.contents, orphans=look.orphans)
                if course.dry_run:
                    return
                if too_many(look.orphans, look.contents) and not course.force:
                    raise Stopped(
                        f"{look.orphans} of {look.contents} contents would go, more "
                        f"than {SHARE:.0%} and more than {FEW}: nothing was moved; "
                        "repeat with force=1 if that is right"
                    )
            if not look.due:
                return
            await course.wait(known_for(self._grace))
            moved = await self._move(course, look.due)
            if not moved or look.orphans <= len(look.due):
                return
            first = False

    async def _look(self, course: Course) -> _Look:
        look, walk = _Look(), self._hands.walk()
        while True:
            await course.go_on()
            stretch = await walk.next()
            if stretch is None:
                course.counts["unlisted_nodes"] = len(walk.unlisted)
                return look
            await course.go_on(sum(map(len, stretch.held.values())) / 20)
            look.contents += sum(bool(standing(each)) for each in stretch.held.values())
            for hash, shards in orphans(stretch, self._grace).items():
                look.orphans += 1
                if len(look.due) < MOST:
                    look.due[hash] = shards

    async def _move(self, course: Course, due: dict[str, Sequence[Held]]) -> bool:
        """Whether anything could be moved."""
        before = course.counts["shards"]

        async def move(one: tuple[str, Sequence[Held]]) -> None:
            done = await self._hands.collect(*one, self._grace, course.epoch)
            course.counts["collected"] += bool(done.gone)
            course.counts["shards"] += done.gone
            course.counts["bytes"] += done.bytes
            course.counts["kept"] += done.kept

        await course.each(due.items(), move, lambda one: len(one[1]))
        return course.counts["shards"] > before
