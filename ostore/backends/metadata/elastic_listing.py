"""Pages over many names; they may lag a second behind the writes."""

from __future__ import annotations

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
_FEW = 100
"""The most names of one search where some of them may be in vain."""
_HEADS = 200
"""The most whole heads that one search gives."""


_BOUND = 900
"""Bytes of a range's bounds: older servers fail over 1,000."""
_BEHIND_ALL = "\U0010ffff" * 257
"""More bytes than a name may have, none of them surpassed."""


@attrs.frozen
class _Asked:
    bucket: str
    prefix: str
    delimiter: str

    def near(self, low: str) -> Filter:
        """Names behind the prefix from `low` on, and perhaps some around these."""
        return between(
            "key",
            _cut(key_of(self.bucket, low)),
            successor(_cut(key_of(self.bucket, self.prefix))),
        )

    def before(self, low: str) -> str | None:
        """A key behind those of all names below `low`, and before that of `low`."""
        if not low:
            return None
        code = ord(low[-1])
        if code == 0:
            return key_of(self.bucket, low[:-1])
        below = 0xD7FF if code == 0xE000 else code - 1
        return key_of(self.bucket, low[:-1] + chr(below) + _BEHIND_ALL)


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
        folder = prefix[: prefix.rfind("/") + 1]
        depth = key_of(asked.bucket, f"{prefix.count('/') + 1:04x}")
        values = start(self._pages.values((), "parents", depth + low, count))
        try:
            inside = term("folder", folder)
            items, _ = await self._items(asked, low, count, inside)
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
        most = _FEW
        while low is not None and len(found) < count:
            size = min(most, count - len(found))
            page, ended = await self._items(asked, low, size)
            most = MOST
            for one in page:
                if passed is not None and one.name.startswith(passed):
                    most = _FEW
                    continue
                passed = rolled_up(one.name, asked.prefix, asked.delimiter)
                found.append(one if passed is None else passed)
            if ended:
                break
            low = successor(passed) if passed is not None else page[-1].name + "\0"
        return found

    async def _items(
        self, asked: _Asked, low: str, size: int, *filters: Filter
    ) -> tuple[list[Version], bool]:
        """Live names behind the prefix from `low` on; and whether these are the last."""
        hits = await self._pages.hits(
            [term("live", True), asked.near(low), *filters],
            LATEST_FIELDS,
            "key",
            asked.before(low),
            size,
        )
        names = [hit for hit in hits if hit["name"].startswith(asked.prefix)]
        return [latest_of(hit) for hit in names], len(names) < size

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


def _cut(key: str) -> str:
    """The key, or the beginning of a long one, which is not greater."""
    return key.encode()[:_BOUND].decode(errors="ignore")


def _text(entry: Version | str) -> str:
    return entry if isinstance(entry, str) else entry.name
