"""The truth about single names: read in real time, changed by compare-and-set."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs

from ostore.backends.metadata.elastic_bulk import Address, Documents, Position
from ostore.backends.metadata.elastic_documents import archived_in, head_id, head_of
from ostore.model import heads
from ostore.model.errors import MetadataUnavailable
from ostore.model.heads import Archive, Head
from ostore.model.versions import Version

T = TypeVar("T")

_READS = 8
_KNOWN = 128


class Gone(Exception):
    """An archive was replaced after its head was read: read the head again."""


@attrs.frozen
class Seen:
    """A head and where its document stands; None for a document that is absent."""

    head: Head
    position: Position | None


class Names:
    """Reads heads and archives; each answer is one state that the name was in.

    Remembers which put_ids the archives used last hold, so that a repeated write is
    found without reading them again.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._put_ids: OrderedDict[str, frozenset[int]] = OrderedDict()

    async def seen(self, bucket: str, name: str) -> Seen:
        """The head as it is now."""
        found = await self._documents.read(Address(head_id(bucket, name)))
        if found is None:
            return Seen(Head(bucket, name), None)
        return Seen(head_of(found.source), found.position)

    async def archived(self, head: Head, archive: Archive) -> tuple[Version, ...]:
        """What an archive holds. Raises Gone."""
        routing = head_id(head.bucket, head.name)
        found = await self._documents.read(Address(archive.id, routing))
        if found is None:
            raise Gone
        versions = archived_in(found.source)
        self._put_ids[archive.id] = frozenset(hash(one.put_id) for one in versions)
        self._put_ids.move_to_end(archive.id)
        while len(self._put_ids) > _KNOWN:
            self._put_ids.popitem(last=False)
        return versions

    async def consistently(
        self, bucket: str, name: str, ask: Callable[[Seen], Awaitable[T]]
    ) -> T:
        """What `ask` makes of the head as it is now, archives and all."""
        for _ in range(_READS):
            seen = await self.seen(bucket, name)
            try:
                return await ask(seen)
            except Gone:
                continue
        raise MetadataUnavailable("the name changes faster than it can be read")

    async def version_in(self, head: Head, number: int) -> Version | None:
        """That version of a head, inline or archived. Raises Gone."""
        archive = head.archive_of(number)
        if archive is None:
            return head.version(number)
        return _numbered(await self.archived(head, archive), number)

    async def by_put_id_in(self, head: Head, put_id: str) -> Version | None:
        """The version that this put_id made, inline or archived. Raises Gone."""
        found = head.by_put_id(put_id)
        for archive in reversed(head.archives):
            if found is not None:
                break
            known = self._put_ids.get(archive.id)
            if known is None or hash(put_id) in known:
                held = await self.archived(head, archive)
                found = next((one for one in held if one.put_id == put_id), None)
        return found

    async def versions_in(self, head: Head, after: int, limit: int) -> list[Version]:
        """Versions of a head numbered above `after`, ascending. Raises Gone."""
        found: list[Version] = []
        for archive in head.archives:
            if len(found) >= limit:
                break
            if archive.last > after:
                found += _above(await self.archived(head, archive), after)
        return [*found, *_above(head.versions, after)][:limit]

    async def referring(self, head: Head, content: str) -> Version | None:
        """Any version of a head that has this content. Raises Gone."""
        found = _holding(head.versions, content)
        for archive in reversed(head.archives):
            if found is not None:
                break
            found = _holding(await self.archived(head, archive), content)
        return found


def weight_of(head: Head) -> int:
    """About the bytes of a head's document."""
    slashes = head.name.count("/")
    return (
        heads.weight(head.versions)
        + 100 * len(head.archives)
        + (1 + slashes) * len(head.name)
    )


def _numbered(versions: Sequence[Version], number: int) -> Version | None:
    return next((one for one in versions if one.number == number), None)


def _above(versions: Sequence[Version], after: int) -> list[Version]:
    return [one for one in versions if one.number > after]


def _holding(versions: Sequence[Version], content: str) -> Version | None:
    return next(
        (one for one in versions if one.hash == content and not one.deleted), None
    )
