"""Pages over many names; they may lag a second behind the writes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ostore.backends.metadata.elastic_documents import (
    HEAD_FIELDS,
    LATEST_FIELDS,
    head_of,
    key_of,
    latest_of,
)
from ostore.backends.metadata.elastic_names import Gone, Names, Seen
from ostore.backends.metadata.elastic_pages import Filter, Pages, between, term
from ostore.backends.metadata.queries import first, rolled_up
from ostore.backends.metadata.rows import successor
from ostore.model.heads import Head
from ostore.model.versions import Page, Version
from ostore.streaming.tasks import start

MOST = 5000
"""The most entries of a page and one: what one search gives."""
_HEADS = 200
"""The most whole heads that one search gives."""


@attrs.frozen
class _Asked:
    bucket: str
    prefix: str
    delimiter: str

    def names(self, low: str) -> Filter:
        """Those behind the prefix, from `low` on."""
        end = successor(self.prefix)
        return between(
            "key",
            key_of(self.bucket, low),
            f"{self.bucket}\1" if end is None else key_of(self.bucket, end),
        )


class Listing:
    """Pages of what is live, and of all versions."""

    def __init__(self, pages: Pages, names: Names) -> None:
        self._pages = pages
        self._names = names

    async def listing(
        self, bucket: str, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        """The first `limit` entries that are greater than `after`."""
        limit = max(0, min(limit, MOST - 1))
        low = first(prefix, delimiter, after)
        if low is None:
            return Page(())
        asked = _Asked(bucket, prefix, delimiter)
        by_folders = self._folders if delimiter == "/" else self._skipping
        found = await by_folders(asked, low, limit + 1)
        items: list[Version] = []
        prefixes: list[str] = []
        for entry in found[:limit]:
            if isinstance(entry, str):
                prefixes.append(entry)
            else:
                items.append(entry)
        last = None
        if len(found) > limit:
            last = _text(found[limit - 1]) if limit else after
        return Page(tuple(items), tuple(prefixes), last)

    async def _folders(
        self, asked: _Asked, low: str, count: int
    ) -> list[Version | str]:
        """Entries from `low` on: names in this folder, and folders in it."""
        prefix = asked.prefix
        names = [term("live", True), asked.names(low)]
        folder = prefix[: prefix.rfind("/") + 1]
        depth = f"{prefix.count('/') + 1:04x}"
        values = start(self._pages.values(names, "parents", depth + low, count))
        try:
            items = await self._items([term("folder", folder), *names], count)
        except BaseException:
            _ = values.addErrback(lambda _: None)
            values.cancel()
            raise
        end = successor(depth + prefix)
        folders = [
            value[len(depth) :] for value in await values if end is None or value < end
        ]
        found: list[Version | str] = [*items, *folders]
        return sorted(found, key=_text)[:count]

    async def _skipping(
        self, asked: _Asked, low: str | None, count: int
    ) -> list[Version | str]:
        """Entries from `low` on; what a prefix holds is passed over in one step."""
        found: list[Version | str] = []
        passed: str | None = None
        while low is not None and len(found) < count:
            size = count - len(found)
            page = await self._items([term("live", True), asked.names(low)], size)
            for one in page:
                if passed is not None and one.name.startswith(passed):
                    continue
                passed = rolled_up(one.name, asked.prefix, asked.delimiter)
                found.append(one if passed is None else passed)
            if len(page) < size:
                break
            low = successor(passed) if passed is not None else page[-1].name + "\0"
        return found

    async def _items(self, filters: Sequence[Filter], size: int) -> list[Version]:
        hits = await self._pages.hits(filters, LATEST_FIELDS, "key", None, size)
        return [latest_of(hit) for hit in hits]

    async def all_versions(
        self, bucket: str, name: str, number: int, limit: int
    ) -> list[Version]:
        """Versions behind (name, number), by name then number."""
        found: list[Version] = []
        if name and limit > 0:
            found += await self.versions_of(bucket, name, number, limit)
        after = key_of(bucket, name)
        filters = [term("kept", True), between("key", f"{bucket}\0", f"{bucket}\1")]
        while len(found) < limit:
            size = min(limit - len(found), _HEADS)
            hits = await self._pages.hits(filters, HEAD_FIELDS, "key", after, size)
            for hit in hits:
                left = limit - len(found)
                if left <= 0:
                    break
                found += await self._versions_in(head_of(hit), left)
            if len(hits) < size:
                break
            after = key_of(bucket, hits[-1]["name"])
        return found

    async def versions_of(
        self, bucket: str, name: str, after: int, limit: int
    ) -> list[Version]:
        """Versions with a number greater than `after`: what is there now."""

        async def ask(seen: Seen) -> list[Version]:
            return await self._names.versions_in(seen.head, after, limit)

        return await self._names.consistently(bucket, name, ask)

    async def _versions_in(self, head: Head, limit: int) -> list[Version]:
        try:
            return await self._names.versions_in(head, 0, limit)
        except Gone:
            return await self.versions_of(head.bucket, head.name, 0, limit)


def _text(entry: Version | str) -> str:
    return entry if isinstance(entry, str) else entry.name
