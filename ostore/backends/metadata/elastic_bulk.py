"""Documents of one index: read in real time, written by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.logger import Logger

from ostore.backends.metadata.elastic_batches import Batches
from ostore.backends.metadata.elastic_client import (
    MaybeApplied,
    Reply,
    Search,
    SearchFailed,
    error_type,
)
from ostore.backends.metadata.elastic_documents import Document
from ostore.model import heads
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import Tasks

_READ_TRIES = 4
_READ_PAUSE = 0.2
_HEAD_WEIGHT = 64 * 1024
_ARCHIVE_WEIGHT = heads.ARCHIVE_WEIGHT
"""What is read counts as heavy as it may be, so that no answer is too long."""
_BESIDE = 32
"""Writes that wait before a second `_bulk` goes: one costs about as much as ten more
documents in it, and each syncs four translogs."""
_SILENCE = 10.0
"""Seconds between two lines in the log about refused writes."""
_log = Logger()


@attrs.frozen
class Address:
    """A document's id; an archive's routing is the id of its head."""

    id: str
    routing: str | None = None

    def json(self) -> dict[str, Any]:
        """As `_mget` and `_bulk` want it."""
        routing = {} if self.routing is None else {"routing": self.routing}
        return {"_id": self.id, **routing}


@attrs.frozen
class Position:
    """Where a document stands in its history: what the next write compares."""

    seq: int
    term: int


@attrs.frozen
class Found:
    """A document as it was read."""

    source: Document
    position: Position


@attrs.frozen
class Write:
    """What shall be written: created, put upon `over`, or (no document) deleted."""

    address: Address
    document: Document | None
    over: Position | None = None

    def lines(self) -> list[object]:
        """The lines of `_bulk`."""
        where = self.address.json()
        if self.document is None:
            return [{"delete": where}]
        if self.over is None:
            return [{"create": where}, self.document]
        compare = {"if_seq_no": self.over.seq, "if_primary_term": self.over.term}
        return [{"index": {**where, **compare}}, self.document]


class Busy(SearchFailed):
    """Nothing was written, and it makes sense to try again at once."""


class Documents:
    """Reads and writes documents behind one alias, in batches run in `tasks`.

    `copies` says on how many copies of a shard a write must be able to happen.
    """

    def __init__(
        self,
        search: Search,
        alias: str,
        fields: Sequence[str],
        clock: Clock,
        tasks: Tasks,
        copies: Callable[[], int],
    ) -> None:
        self._search = search
        self._alias = alias
        self._fields = ",".join(fields)
        self._clock = clock
        self._copies = copies
        self._silent_until = 0.0
        self._reads: Batches[Address, Found | None] = Batches(self._mget, tasks)
        self._writes: Batches[Write, Position | None] = Batches(
            self._bulk, tasks, beside=_BESIDE
        )

    def close(self) -> None:
        """Take nothing more."""
        self._reads.close()
        self._writes.close()

    async def read(self, address: Address) -> Found | None:
        """The document as it is now, None when there is none. Raises SearchFailed."""
        weight = _HEAD_WEIGHT if address.routing is None else _ARCHIVE_WEIGHT
        for attempt in range(1, _READ_TRIES):
            try:
                return await self._reads.submit(address, weight)
            except _Closed:
                await self._clock.sleep(_READ_PAUSE * attempt)
        return await self._reads.submit(address, weight)

    async def write(self, write: Write, weight: int = 0) -> Position | None:
        """Where the document stands then; None when another was there first.

        A deletion of what is absent is done. Raises SearchFailed (perhaps Busy) when
        nothing was written, MaybeApplied when something may have been.
        """
        return await self._writes.submit(write, weight)

    async def _mget(
        self, addresses: Sequence[Address]
    ) -> list[Found | Exception | None]:
        distinct = list(dict.fromkeys(addresses))
        reply = await self._search.call(
            "POST",
            f"/{self._alias}/_mget",
            query={"preference": "ostore", "_source_includes": self._fields},
            body={"docs": [each.json() for each in distinct]},
            idempotent=True,
        )
        docs = reply.body.get("docs")
        if reply.status != 200 or not isinstance(docs, list):
            raise _unexpected("_mget", reply)
        if len(docs) != len(distinct):
            raise SearchFailed("_mget gave another number of documents")
        found = {
            address: _found(address, doc)
            for address, doc in zip(distinct, docs, strict=True)
        }
        return [found[address] for address in addresses]

    async def _bulk(self, writes: Sequence[Write]) -> list[Position | Exception | None]:
        reply = await self._search.call(
            "POST",
            f"/{self._alias}/_bulk",
            query={
                "require_alias": "true",
                "timeout": "3s",
                "wait_for_active_shards": str(self._copies()),
            },
            lines=[line for write in writes for line in write.lines()],
        )
        items = reply.body.get("items")
        if reply.status >= 400:
            raise _unexpected("_bulk", reply)
        if not isinstance(items, list) or len(items) != len(writes):
            raise MaybeApplied("_bulk gave another number of items")
        outcomes = [_written(*each) for each in zip(writes, items, strict=True)]
        for outcome in outcomes:
            if isinstance(outcome, SearchFailed):
                self._tell(outcome)
        return outcomes

    def _tell(self, failed: SearchFailed) -> None:
        now = self._clock.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _SILENCE
            _log.warn("a write failed: {seen}", seen=failed.seen)


class _Closed(SearchFailed):
    """The document's shard is not open at present."""


def _found(address: Address, doc: Any) -> Found | Exception | None:
    try:
        if "error" in doc:
            return _Closed(f"_mget: {error_type(doc)}")
        if doc["_id"] != address.id:
            return SearchFailed("_mget gave another document")
        if doc["found"] is False:
            return None
        return Found(doc["_source"], Position(doc["_seq_no"], doc["_primary_term"]))
    except (KeyError, TypeError):
        return SearchFailed("_mget gave what is no document")


def _written(write: Write, item: Any) -> Position | Exception | None:
    try:
        (done,) = item.values()
        status = done["status"]
        if done["_id"] != write.address.id:
            return MaybeApplied("_bulk told of another document")
        if status == 409:
            return None
        if status < 300 or (status == 404 and write.document is None):
            return Position(done.get("_seq_no", -1), done.get("_primary_term", 0))
        kind = error_type(done)
    except (AttributeError, KeyError, TypeError, ValueError):
        return MaybeApplied("_bulk gave what is no item")
    # Also where a shard was waited for in vain: an earlier primary may have had it.
    if status >= 500:
        return MaybeApplied(f"_bulk: {status} {kind}")
    if status == 429:
        return Busy(f"_bulk: {kind}")
    return SearchFailed(f"_bulk: {status} {kind}")


def _unexpected(what: str, reply: Reply) -> SearchFailed:
    return SearchFailed(f"{what}: {reply.status} {error_type(reply.body)}".strip())
