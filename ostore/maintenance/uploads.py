"""Uploads that nobody goes on with expire, and so do temporaries that were left."""

from __future__ import annotations

from ostore.engine.collecting import Collecting
from ostore.maintenance.course import Course


class Uploads:
    """Nodes do it by themselves every minute; this does it now, everywhere."""

    name = "uploads"
    fresh_epoch = False
    removes = False

    def __init__(self, hands: Collecting, interval: float) -> None:
        self.interval = interval
        self._hands = hands

    def news(self) -> None:
        """Nothing hurries it."""

    async def run(self, course: Course) -> None:
        """Sweep all nodes, or have them count what a sweep would remove."""
        await course.go_on()
        expired, nodes = await self._hands.sweep(dry_run=course.dry_run)
        course.counts.update(expired=expired, nodes=nodes)
        if not course.dry_run:
            course.counts["removed"] += expired
