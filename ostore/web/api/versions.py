"""`/versions/` and `/versions/{name}`: versions as lines of JSON, however many."""

from __future__ import annotations

from collections.abc import Sequence

from ostore.engine.store import ObjectStore
from ostore.model.versions import Version
from ostore.streaming.resource import Call, Resource
from ostore.web.api import parameters
from ostore.web.api.answers import encode

PAGE = 500
"""Versions that are asked of the store at a time."""

BLOCK = 64 * 1024
"""Bytes after which lines are sent."""


class _Lines(Resource):
    """Streams pages of versions; a page shorter than was asked for is the last."""

    allowed = ("GET", "HEAD")

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    async def head(self, call: Call) -> None:
        """The head alone: nothing is read."""
        parameters.limit(call)
        self.check(call)
        self._begin(call)
        await call.reply.write(b"")
        await call.reply.finish()

    async def get(self, call: Call) -> None:
        """The lines; the first page comes before the head, so its errors stay clean."""
        left = parameters.limit(call)
        self.check(call)
        last: Version | None = None
        while True:
            asked = PAGE if left is None else min(PAGE, left)
            page = await self.page(call, last, asked)
            if last is None:
                self._begin(call)
            await _send(call, page)
            if len(page) < asked:
                break
            last = page[-1]
            if left is not None:
                left -= len(page)
                if not left:
                    await self.complete(call, last)
                    break
        await call.reply.finish()

    def check(self, call: Call) -> None:
        """Raise Malformed for parameters that are wrong."""
        raise NotImplementedError

    async def page(
        self, call: Call, last: Version | None, limit: int
    ) -> Sequence[Version]:
        """The versions behind `last`, or from where the request says."""
        raise NotImplementedError

    async def complete(self, call: Call, last: Version) -> None:
        """The limit is reached: send what must not be parted from `last`."""

    def _begin(self, call: Call) -> None:
        call.reply.headers["Content-Type"] = "application/x-ndjson"


class VersionsOfAll(_Lines):
    """All versions of all names, by name then number; `after` is a name.

    A page ends with the last version of a name, and may exceed its limit for that: who
    goes on after that name misses nothing.
    """

    def check(self, call: Call) -> None:
        """Raise Malformed for parameters that are wrong."""
        parameters.text(call, "after")

    async def page(
        self, call: Call, last: Version | None, limit: int
    ) -> Sequence[Version]:
        """The versions behind `last`, or of the names behind `after`."""
        if last is not None:
            return await self.store.all_versions((last.name, last.number), limit)
        name = parameters.text(call, "after")
        number = parameters.MAX_NUMBER if name else 0
        return await self.store.all_versions((name, number), limit)

    async def complete(self, call: Call, last: Version) -> None:
        """The rest of that name's versions."""
        page: Sequence[Version] = (last,) * PAGE
        while len(page) == PAGE:
            page = await self.store.versions_of(last.name, page[-1].number, PAGE)
            await _send(call, page)


class VersionsOfOne(_Lines):
    """The versions of one name; `after` is a number. An unknown name has none."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        super().__init__(store)
        self._name = name

    def check(self, call: Call) -> None:
        """Raise Malformed for parameters that are wrong."""
        parameters.after_number(call)

    async def page(
        self, call: Call, last: Version | None, limit: int
    ) -> Sequence[Version]:
        """The versions behind `last`, or behind `after`."""
        after = parameters.after_number(call) if last is None else last.number
        return await self.store.versions_of(self._name, after, limit)


async def _send(call: Call, page: Sequence[Version]) -> None:
    block = bytearray()
    for version in page:
        block += encode(version.to_json())
        if len(block) >= BLOCK:
            await call.reply.write(bytes(block))
            block.clear()
    if block:
        await call.reply.write(bytes(block))
