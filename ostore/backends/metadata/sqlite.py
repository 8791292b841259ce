"""The metadata of one machine: a SQLite file that one process owns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from ostore.backends.metadata import changes, queries
from ostore.backends.metadata.place import Place
from ostore.backends.metadata.readers import Readers
from ostore.backends.metadata.rows import GREATEST
from ostore.backends.metadata.schema import (
    connect,
    make_room,
    prepare,
    translate,
    unusable,
)
from ostore.backends.metadata.writer import Writer
from ostore.interfaces import IMetadataStore
from ostore.model.errors import MetadataUnavailable, OstoreError
from ostore.model.versions import (
    ClusterFacts,
    Degraded,
    Lease,
    NewVersion,
    Note,
    Page,
    Version,
)
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers

P = ParamSpec("P")
T = TypeVar("T")
Query = Callable[Concatenate[sqlite3.Connection, P], T]

_CURSORS = 4096
_log = Logger()


@implementer(IMetadataStore)
class SqliteStore:
    """Versions in one SQLite file, from `start` to `stop`; called in the reactor.

    Changes go through `writer`. Point reads run inline (microseconds, from the page
    cache), pages on `workers`; each sees every change that was acknowledged. `start`
    raises Refused, in one line, for a file that is in use, damaged, foreign or newer.
    `workers` belong to the caller, who stops them after the store. Without `durable` a
    power cut may take the last writes.
    """

    def __init__(
        self,
        path: str,
        clock: Clock,
        workers: Workers,
        writer: Writer,
        *,
        durable: bool = True,
    ) -> None:
        self._place = Place(path)
        self._clock = clock
        self._workers = workers
        self._writer = writer
        self._connect = partial(connect, path, durable=durable)
        self._readers = Readers(self._connect)
        self._open: list[sqlite3.Connection] = []
        self._point: sqlite3.Connection | None = None
        self._shown: dict[str, int] = {}

    async def start(self) -> None:
        """Open the file, making it when it is missing.

        Whoever had the lease is dead: the file was nobody's.
        """
        self._place.take()
        try:
            self._prepare()
        except BaseException:
            self._close()
            raise

    def _prepare(self) -> None:
        path = self._place.path
        try:
            written = self._connect()
            self._open.append(written)
            prepare(written, path)
            make_room(written)
            with suppress(sqlite3.OperationalError):  # no room: it runs out by itself
                changes.release(written, None)
            point = self._connect()
            self._open.append(point)
        except sqlite3.Error as error:
            raise unusable(error, path) from error
        self._place.remember()
        self._readers = Readers(self._connect)
        self._writer.start(written, self._place.check)
        self._point = point

    async def stop(self) -> None:
        """Finish what was accepted, then close. Idempotent."""
        if self._point is not None:
            self._point = None
            await self._writer.stop()
            self._close()

    def _close(self) -> None:
        self._readers.close()
        for connection in reversed(self._open):
            connection.close()
        self._open.clear()
        self._place.leave()

    async def add_version(self, new: NewVersion) -> Version:
        """Write the next version of a name and return it."""
        wall = self._clock.wall
        return await self._writer.submit(lambda db: changes.add_version(db, new, wall))

    async def purge(self, bucket: str, name: str, number: int) -> bool:
        """Remove one version for good; False when there was none."""
        if not 0 < number <= GREATEST:
            return False
        return await self._writer.submit(
            lambda db: changes.purge(db, bucket, name, number)
        )

    async def mark_degraded(
        self, marks: Sequence[tuple[str, str, int]], missing: Sequence[int]
    ) -> None:
        """Have exactly these (bucket, name, number) say that they lack these shards."""
        await self._writer.submit(lambda db: changes.mark_degraded(db, marks, missing))

    async def clear_degraded(self, marks: Sequence[tuple[str, str, int]]) -> None:
        """Take the `degraded` mark from exactly these (bucket, name, number)."""
        await self._writer.submit(lambda db: changes.clear_degraded(db, marks))

    async def create_cluster(self, facts: ClusterFacts) -> ClusterFacts:
        """Set id and epoch unless they are set; returns what is set now."""
        return await self._writer.submit(lambda db: changes.create_cluster(db, facts))

    async def lease(self, owner: str, seconds: float) -> Lease | None:
        """Take or renew the right to run maintenance; None while another has it."""
        wall = self._clock.wall
        return await self._writer.submit(
            lambda db: changes.lease(db, owner, seconds, wall)
        )

    async def release(self, owner: str) -> None:
        """Give the lease back, if it is that owner's."""
        await self._writer.submit(lambda db: changes.release(db, owner))

    async def note(self, key: str) -> Note | None:
        """A small document, or None."""
        return self._look(queries.note, key)

    async def set_note(self, key: str, value: Mapping[str, Any], mark: str) -> bool:
        """Replace the note that bears `mark`; an empty mark creates it."""
        return await self._writer.submit(
            lambda db: changes.set_note(db, key, value, mark)
        )

    async def latest(self, bucket: str, name: str) -> Version | None:
        """The newest version, which may be a delete marker; None without any."""
        return self._look(queries.latest, bucket, name)

    async def version(self, bucket: str, name: str, number: int) -> Version | None:
        """That version, or None."""
        return self._look(queries.version, bucket, name, _integer(number))

    async def by_put_id(self, bucket: str, name: str, put_id: str) -> Version | None:
        """The version that this put_id made, if it exists.

        It settles the fate of a write, so removed files do not answer for it.
        """
        found = self._look(queries.by_put_id, bucket, name, put_id)
        if found is not None:
            self._place.check()
        return found

    async def content(self, hash: str) -> Version | None:
        """Any version that refers to this content, or None."""
        return self._look(queries.content, hash)

    async def cluster(self) -> ClusterFacts | None:
        """The cluster's id and epoch; None before `create_cluster`."""
        return self._look(queries.cluster)

    async def versions_of(
        self, bucket: str, name: str, after: int, limit: int
    ) -> Sequence[Version]:
        """Versions with a number greater than `after`, ascending, at most `limit`."""
        return await self._page(
            queries.versions_of, bucket, name, _integer(after), _limit(limit)
        )

    async def all_versions(
        self, bucket: str, after: tuple[str, int], limit: int
    ) -> Sequence[Version]:
        """Versions behind `after` = (name, number), by name then number."""
        name, number = after
        return await self._page(
            queries.all_versions, bucket, name, _integer(number), _limit(limit)
        )

    async def listing(
        self, bucket: str, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        """Live names and rolled-up prefixes greater than `after`.

        `next` is the last entry of the page. A prefix counts as the entry of its own
        text: after "a/", or any text that begins so, nothing in "a/" follows.
        """
        return await self._page(
            queries.listing, bucket, prefix, delimiter, after, _limit(limit)
        )

    async def hashes(self, after: str, limit: int) -> Sequence[str]:
        """Distinct content hashes that versions refer to, ascending behind `after`."""
        return await self._page(queries.hashes, after, _limit(limit))

    async def degraded(self, after: str, limit: int) -> Sequence[Degraded]:
        """Incomplete contents, worst first; several marks' missing shards united.

        Marks are capped (1,000 a content, about 10,000 in all): what is left out
        shows when those are cleared. A cursor stays good when its content was
        completed meanwhile, as long as it is among the last 4,096 shown here.
        """
        found = await self._page(
            queries.degraded, after, self._shown.get(after), _limit(limit)
        )
        for each in found:
            cursor = f"{each.hash}/{each.layout.id}"
            self._shown.pop(cursor, None)
            self._shown[cursor] = each.layout.shards - len(each.missing)
        while len(self._shown) > _CURSORS:
            del self._shown[next(iter(self._shown))]
        return found

    async def health(self) -> str | None:
        """None when it works, else one sentence that says why not."""
        try:
            self._look(queries.cluster)
            await self._writer.submit(lambda _: None)
        except OstoreError as error:
            return str(error)
        return None

    def _look(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A point read, here and now."""
        if self._point is None:
            raise MetadataUnavailable("the metadata store is closed")
        try:
            return query(self._point, *args, **kwargs)
        except sqlite3.Error as error:
            _fail(error)

    async def _page(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A read of many rows, on a worker."""
        if self._point is None:
            raise MetadataUnavailable("the metadata store is closed")
        try:
            return await self._workers.run(
                lambda: self._readers.run(query, *args, **kwargs)
            )
        except sqlite3.Error as error:
            _fail(error)


def _fail(error: sqlite3.Error) -> NoReturn:
    _log.error("reading metadata failed: {error}", error=error)
    raise translate(error) from error


def _integer(value: int) -> int:
    """The nearest that SQLite can compare."""
    return max(-GREATEST, min(value, GREATEST))


def _limit(value: int) -> int:
    """At least 0: SQLite takes a negative limit for none."""
    return max(0, min(value, GREATEST - 1))
