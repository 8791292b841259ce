"""Questions about contents, asked of all shards or not answered at all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from ostore.backends.metadata.elastic_documents import (
    MARK_FIELDS,
    content_key,
    marks_of,
    rank_of,
)
from ostore.backends.metadata.elastic_names import Names, Seen
from ostore.backends.metadata.elastic_pages import Pages, term
from ostore.model.errors import MetadataUnavailable
from ostore.model.versions import Degraded, Version
from ostore.streaming.tasks import gather

T = TypeVar("T")
U = TypeVar("U")

MARKS = 10_000
"""About as many marks does one answer of `degraded` carry in all."""
MARKS_EACH = 1000
"""The most documents whose marks of one content are shown."""
TOGETHER = 16
"""So many names or contents are asked about at once."""

_PAGE = 1000
_VALUES = 10_000
_CURSORS = 4096


class Contents:
    """Which contents are referred to, and which lack shards.

    A search only names the candidates of `content`: their heads, read in real time,
    decide. So an archive that a crash left behind refers to nothing.
    """

    def __init__(self, pages: Pages, names: Names) -> None:
        self._pages = pages
        self._names = names
        self._shown: OrderedDict[str, str] = OrderedDict()

    async def hashes(self, after: str, limit: int) -> list[str]:
        """Distinct hashes behind `after`, ascending; also those of left archives."""
        found: list[str] = []
        await self._pages.refresh()
        while len(found) < limit:
            size = min(limit - len(found), _VALUES)
            page = await self._pages.values([], "hashes", after, size)
            found += page
            if len(page) < size:
                break
            after = page[-1]
        return found

    async def content(self, hash: str) -> Version | None:
        """Any version that refers to this content.

        One search sees each shard at one moment, and there a version in its head or
        in an archive. Two would not; so more candidates than one gives, none of them
        true, are no answer.
        """
        await self._pages.refresh()
        page = await self._pages.hits(
            [term("hashes", hash)], ["bucket", "name"], "id", None, _PAGE
        )
        for name in dict.fromkeys((hit["bucket"], hit["name"]) for hit in page):
            found = await self._referring(*name, hash)
            if found is not None:
                return found
        if len(page) == _PAGE:
            raise MetadataUnavailable("the content's versions change too fast")
        return None

    async def _referring(self, bucket: str, name: str, hash: str) -> Version | None:
        async def ask(seen: Seen) -> Version | None:
            return await self._names.referring(seen.head, hash)

        return await self._names.consistently(bucket, name, ask)

    async def degraded(self, after: str, limit: int) -> list[Degraded]:
        """Incomplete contents behind the cursor, by the fewest shards that one knows."""
        position = await self._position(after)
        each = max(10, min(MARKS // max(limit, 1), MARKS_EACH))
        found: list[Degraded] = []
        while len(found) < limit:
            size = min(limit - len(found), _PAGE)
            values = await self._pages.values([], "degraded", position, size)

            async def united(value: str) -> Degraded | None:
                return await self._united(value, each)

            outcomes = await in_step(values, united)
            found += [one for one in outcomes if one is not None]
            if len(values) < size:
                break
            position = values[-1]
        return found

    async def _position(self, after: str) -> str:
        """The value of `degraded` where the cursor stands; empty for a fresh start."""
        if not after or after in self._shown:
            return self._shown.get(after, "")
        ranks, _ = await self._marked(after, MARKS_EACH)
        return min(ranks) + after if ranks else ""

    async def _united(self, value: str, limit: int) -> Degraded | None:
        """The content whose worst version this value stands for."""
        _, _, content = value.partition("/")
        ranks, marked = await self._marked(content, limit)
        if not marked or min(ranks) + content != value:
            return None  # shown in another place, or whole by now
        self._shown[content] = value
        self._shown.move_to_end(content)
        while len(self._shown) > _CURSORS:
            self._shown.popitem(last=False)
        missing = {index for one in marked for index in one.missing}
        marks = tuple(mark for one in marked for mark in one.marks)
        first = marked[0]
        return Degraded(first.hash, first.layout, tuple(sorted(missing)), marks)

    async def _marked(
        self, content: str, limit: int
    ) -> tuple[set[str], list[Degraded]]:
        hits = await self._pages.hits(
            [term("marks", content)], MARK_FIELDS, "id", None, limit
        )
        marked = [
            one
            for hit in hits
            for one in marks_of(hit)
            if content_key(one.hash, one.layout) == content
        ]
        return {rank_of(one.layout, one.missing) for one in marked}, marked


async def in_step(items: Iterable[T], work: Callable[[T], Awaitable[U]]) -> Sequence[U]:
    """What `work` gives for each item, TOGETHER at once; raises the first error."""
    outcomes: list[U] = []
    left: Iterator[T] = iter(items)
    while some := list(islice(left, TOGETHER)):
        for outcome in await gather([work(item) for item in some]):
            if isinstance(outcome, Exception):
                raise outcome
            outcomes.append(outcome)
    return outcomes
