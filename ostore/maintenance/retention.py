"""Old versions go: the newest few of each name stay."""

from __future__ import annotations

from ostore.interfaces import IMetadataStore
from ostore.maintenance.course import Course
from ostore.model.retention import Counting, surplus

PAGE = 500
_BEHIND = 2**63 - 1
"""Greater than every version's number."""


class Retention:
    """Goes over the listing of all versions; its cursor is a name.

    The listing may be behind: it only says which names are worth a look.
    """

    name = "retention"
    fresh_epoch = False
    removes = True

    def __init__(
        self, metadata: IMetadataStore, keep: int, interval: float, bucket: str = ""
    ) -> None:
        self.interval = interval
        self._metadata = metadata
        self._keep = keep
        self._bucket = bucket

    def news(self) -> None:
        """Nothing hurries it."""

    async def run(self, course: Course) -> None:
        """Purge what is superfluous, oldest first."""
        if not self._keep:
            return
        counting = Counting(self._keep)
        after = ("", 0) if course.cursor is None else (course.cursor, _BEHIND)
        while True:
            await course.go_on(PAGE / 20)
            page = await self._metadata.all_versions(self._bucket, after, PAGE)
            for version in page:
                if counting.name not in (None, version.name):
                    course.cursor = counting.name
                course.counts["versions"] += 1
                if counting.exceeds(version.name):
                    await self._trim(course, version.name)
            if len(page) < PAGE:
                return
            after = (page[-1].name, page[-1].number)

    async def _trim(self, course: Course, name: str) -> None:
        """Count the versions of one name as they are now, and remove what is too old."""
        numbers: list[int] = []
        while len(numbers) % PAGE == 0:
            after = numbers[-1] if numbers else 0
            page = await self._metadata.versions_of(self._bucket, name, after, PAGE)
            if not page:
                break
            numbers += [version.number for version in page]
        for number in surplus(numbers, self._keep):
            course.counts["superfluous"] += 1
            if course.dry_run:
                continue
            await course.go_on()
            if await self._metadata.purge(self._bucket, name, number):
                course.counts["removed"] += 1
