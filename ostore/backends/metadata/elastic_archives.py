"""Archives: written before a head names them, removed when none does any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ostore.backends.metadata.elastic_bulk import Address, Busy, Documents, Write
from ostore.backends.metadata.elastic_client import MaybeApplied
from ostore.backends.metadata.elastic_documents import archive_document, head_id
from ostore.backends.metadata.elastic_names import Names
from ostore.backends.metadata.elastic_pages import Pages, term
from ostore.model import heads
from ostore.model.errors import MetadataUnavailable
from ostore.model.heads import Archive, Head
from ostore.model.versions import Version
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import Tasks

ORPHANED = 3600.0
"""Seconds after which an archive that its head does not name was left by a crash."""

_PAGE = 500


class Archives:
    """Writes and removes archives; removal runs in `tasks`, nobody waits for it.

    An id belongs to one attempt to change a head. So an archive may go at once when a
    later head has dropped it; what an attempt in vain has left goes in a sweep.
    """

    def __init__(
        self,
        documents: Documents,
        pages: Pages,
        names: Names,
        clock: Clock,
        entropy: Callable[[int], bytes],
        tasks: Tasks,
    ) -> None:
        self._documents = documents
        self._pages = pages
        self._names = names
        self._clock = clock
        self._entropy = entropy
        self._tasks = tasks

    def new_id(self) -> str:
        """An id that nobody else uses."""
        return self._entropy(32).hex()

    async def write(
        self, head: Head, archive: Archive, versions: Sequence[Version]
    ) -> None:
        """Create one. Raises SearchFailed, never MaybeApplied: no head names it yet."""
        where = Address(archive.id, head_id(head.bucket, head.name))
        document = archive_document(
            archive.id,
            head.bucket,
            head.name,
            versions,
            int(self._clock.wall() * 1000),
        )
        try:
            made = await self._documents.write(
                Write(where, document), heads.weight(versions)
            )
        except MaybeApplied as error:
            raise Busy(error.seen) from error
        if made is None:
            raise Busy("an archive's id is taken")

    def drop(self, head: Head, archives: Iterable[Archive]) -> None:
        """Remove archives that no head names nor ever will."""
        for archive in archives:
            self._remove(head_id(head.bucket, head.name), archive.id)

    def sweep(self, bucket: str, name: str) -> None:
        """Look for archives that a crash left behind, and remove them."""
        self._tasks.spawn("a sweep", lambda: self._sweep(bucket, name))

    async def _sweep(self, bucket: str, name: str) -> None:
        key, after = head_id(bucket, name), None
        try:
            while True:
                page = await self._pages.hits(
                    [term("head", key)], ["id", "written"], "id", after, _PAGE
                )
                # Read behind the search: what was found and is named shows in it.
                head = (await self._names.seen(bucket, name)).head
                named = {archive.id for archive in head.archives}
                old = (self._clock.wall() - ORPHANED) * 1000
                for one in page:
                    if one["id"] not in named and one["written"] < old:
                        self._remove(key, one["id"])
                if len(page) < _PAGE:
                    return
                after = page[-1]["id"]
        except MetadataUnavailable:
            return  # the next one finds them

    def _remove(self, key: str, id: str) -> None:
        async def remove() -> None:
            with suppress(MetadataUnavailable):  # a sweep finds it then
                await self._documents.write(Write(Address(id, key), None))

        self._tasks.spawn("the removal of an archive", remove)
