"""The metadata of a cluster, in Elasticsearch or OpenSearch.

Each (bucket, name) has one head document, changed by compare-and-set alone and read
in real time; its oldest versions lie in archives, which are never changed. Both are
documents of `ostore-heads`; an archive has its head's id as routing. In
`ostore-cluster` the document `cluster` holds id, epoch and lease, and each
`note-{key}` one note. Paths name aliases, except where an
index is made. Every call made here, ID and SEQ and TERM being what was read before:

    documents
    POST /ostore-heads/_mget?preference=ostore&_source_includes=a,b,...   idempotent
        {"docs": [{"_id": ID}, {"_id": ARCHIVE, "routing": ID}, ...]}
        -> 200 {"docs": [{"_id", "found", "_source", "_seq_no", "_primary_term"} |
                         {"_id", "found": false} | {"_id", "error": {"type", ...}}]}
    POST /ostore-heads/_bulk?require_alias=true&timeout=3s&wait_for_active_shards=N
        {"create": {"_id": ID}}, {document},                a head that was absent
        {"index": {"_id": ID, "if_seq_no": SEQ, "if_primary_term": TERM}}, {document},
        {"create": {"_id": ARCHIVE, "routing": ID}}, {document},
        {"delete": {"_id": ARCHIVE, "routing": ID}}
        -> 200 {"errors", "items": [{ACTION: {"_id", "status", "_seq_no",
                "_primary_term"}} | {ACTION: {"_id", "status", "error": {"type"}}}]}
    the same two on /ostore-cluster for its documents

    pages: POST /ostore-heads/_refresh and
    POST /ostore-heads/_search?preference=ostore&allow_partial_search_results=false
        {"size", "track_total_hits": false, "_source": [fields], "query": {"bool":
        {"filter": [{"term": {F: V}} | {"range": {F: {"gte", "lt"}}}, ...]}},
        "sort": [{F: "asc"}], "search_after": [V]}
        {"size": 0, "track_total_hits": false, "query": ..., "aggs": {"page":
        {"composite": {"size", "sources": [{F: {"terms": {"field": F}}}],
        "after": {F: V}}}}}                                 all idempotent
        -> 200 {"timed_out", "_shards": {"total", "successful", "failed"}, "hits":
        {"hits": [{"_id", "_source", "sort"}]}, "aggregations": {"page": {"buckets":
        [{"key": {F: V}, "doc_count"}]}}}

    set-up, all idempotent
    GET /_nodes/_local        GET /_cluster/health/ostore-heads,ostore-cluster?timeout=1s
    GET and PUT /_index_template/ostore-heads     GET /ostore-heads
    PUT /ostore-heads-v1 {"aliases": {"ostore-heads": {}}}    and for ostore-cluster
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from ostore.backends.metadata.elastic_archives import Archives
from ostore.backends.metadata.elastic_bulk import Documents
from ostore.backends.metadata.elastic_changes import Changes
from ostore.backends.metadata.elastic_client import Client, Search
from ostore.backends.metadata.elastic_contents import Contents, in_step
from ostore.backends.metadata.elastic_documents import HEAD_FIELDS
from ostore.backends.metadata.elastic_exchange import Exchange
from ostore.backends.metadata.elastic_hosts import parse_hosts
from ostore.backends.metadata.elastic_listing import Listing
from ostore.backends.metadata.elastic_names import Names, Seen
from ostore.backends.metadata.elastic_pages import Pages
from ostore.backends.metadata.elastic_setup import CLUSTER, HEADS, Setup
from ostore.backends.metadata.elastic_shared import SHARED_FIELDS, Shared
from ostore.backends.metadata.elastic_steps import Add, Mark, Purge, Unmark
from ostore.interfaces import IMetadataStore
from ostore.model.errors import MetadataUnavailable
from ostore.model.versions import (
    ClusterFacts,
    Degraded,
    Lease,
    NewVersion,
    Note,
    Page,
    Version,
)
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks

HEALTH = 2.0
"""Seconds that whoever asks for the health waits: a server may hang."""
ENDING = 10.0
"""Seconds that `stop` waits for what is under way."""

_log = Logger()


@implementer(IMetadataStore)
class ElasticStore:
    """Versions in a search engine that several processes share; `start` to `stop`.

    `where` names the servers for people. Until the set-up is through everything
    raises MetadataUnavailable; `refused` is called once, with a sentence, when it
    never will be. `close` ends the connections behind `search`.
    """

    def __init__(
        self,
        search: Search,
        where: str,
        clock: Clock,
        entropy: Callable[[int], bytes],
        refused: Callable[[str], None],
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        def chance() -> float:
            return int.from_bytes(entropy(4), "big") / 2**32

        self._where = where
        self._clock = clock
        self._close = close
        self._watching = Tasks(_log)
        self._tasks = Tasks(_log)
        self._setup = Setup(search, where, clock, chance, refused)

        def documents(alias: str, fields: Sequence[str]) -> Documents:
            return Documents(
                search, alias, fields, clock, self._tasks, lambda: self._setup.copies
            )

        self._documents = documents(HEADS, HEAD_FIELDS)
        facts = documents(CLUSTER, SHARED_FIELDS)
        self._shared = Shared(facts, clock)
        pages = Pages(search, HEADS)
        self._names = Names(self._documents)
        self._archives = Archives(
            self._documents, pages, self._names, clock, entropy, self._tasks
        )
        self._changes = Changes(
            self._names, self._documents, self._archives, clock, chance
        )
        self._listing = Listing(pages, self._names)
        self._contents = Contents(pages, self._names)

    async def start(self) -> None:
        """Begin to set up, and return; `health` says when it is through."""
        self._watching.spawn("setting up the search server", self._setup.run)

    async def stop(self) -> None:
        """Finish what was accepted, for 10 s at most. Idempotent."""
        await self._watching.stop()
        with suppress(TimedOut):
            await self._clock.within(ENDING, self._tasks.idle())
        self._documents.close()
        self._shared.close()
        await self._tasks.stop()
        if self._close is not None:
            await self._close()

    async def add_version(self, new: NewVersion) -> Version:
        """Write the next version of a name and return it."""
        self._check()
        step = Add(self._names, new, self._clock.wall, self._archives.new_id)
        return await self._changes.run(new.bucket, new.name, step)

    async def purge(self, bucket: str, name: str, number: int) -> bool:
        """Remove one version for good; False when there was none."""
        self._check()
        step = Purge(self._names, number, self._archives.new_id)
        return await self._changes.run(bucket, name, step)

    async def mark_degraded(
        self, marks: Sequence[tuple[str, str, int]], missing: Sequence[int]
    ) -> None:
        """Have exactly these (bucket, name, number) say that they lack these shards."""
        self._check()
        numbers = _by_name(marks)

        async def mark(each: tuple[str, str]) -> None:
            step = Mark(self._names, numbers[each], missing, self._archives.new_id)
            await self._changes.run(*each, step)

        await in_step(numbers, mark)

    async def clear_degraded(self, marks: Sequence[tuple[str, str, int]]) -> None:
        """Take the `degraded` mark from exactly these (bucket, name, number)."""
        self._check()
        numbers = _by_name(marks)

        async def clear(each: tuple[str, str]) -> None:
            step = Unmark(self._names, numbers[each], self._archives.new_id)
            if await self._changes.run(*each, step):
                self._archives.sweep(*each)  # an archive left behind may have shown it

        await in_step(numbers, clear)

    async def latest(self, bucket: str, name: str) -> Version | None:
        """The newest version, which may be a delete marker; None without any."""
        self._check()
        return (await self._names.seen(bucket, name)).head.latest

    async def version(self, bucket: str, name: str, number: int) -> Version | None:
        """That version, or None."""
        return await self._ask(
            bucket, name, lambda seen: self._names.version_in(seen.head, number)
        )

    async def by_put_id(self, bucket: str, name: str, put_id: str) -> Version | None:
        """The version that this put_id made, if it exists."""
        return await self._ask(
            bucket, name, lambda seen: self._names.by_put_id_in(seen.head, put_id)
        )

    async def versions_of(
        self, bucket: str, name: str, after: int, limit: int
    ) -> Sequence[Version]:
        """Versions with a number greater than `after`, ascending, at most `limit`."""
        self._check()
        return await self._listing.versions_of(bucket, name, after, max(0, limit))

    async def all_versions(
        self, bucket: str, after: tuple[str, int], limit: int
    ) -> Sequence[Version]:
        """Versions behind `after` = (name, number); those of other names may lag 1 s."""
        self._check()
        return await self._listing.all_versions(bucket, *after, limit)

    async def listing(
        self, bucket: str, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        """Live names and rolled-up prefixes greater than `after`; may lag 1 s.

        `next` is the last entry of the page. A prefix counts as the entry of its own
        text: after "a/", or any text that begins so, nothing in "a/" follows.
        """
        self._check()
        return await self._listing.listing(bucket, prefix, delimiter, after, limit)

    async def degraded(self, after: str, limit: int) -> Sequence[Degraded]:
        """Incomplete contents, by the fewest shards left that any version knows of.

        What its versions miss is united. Marks are capped (those of 1,000 names a
        content, about 10,000 in all): what is left out shows when those are cleared.
        A cursor stays good when its content was completed meanwhile, as long as it is
        among the last 4,096 shown here. May lag 1 s.
        """
        self._check()
        return await self._contents.degraded(after, limit)

    async def hashes(self, after: str, limit: int) -> Sequence[str]:
        """Distinct content hashes that versions refer to, ascending behind `after`."""
        self._check()
        return await self._contents.hashes(after, limit)

    async def content(self, hash: str) -> Version | None:
        """Any version that refers to this content, or None."""
        self._check()
        return await self._contents.content(hash)

    async def cluster(self) -> ClusterFacts | None:
        """The cluster's id and epoch; None before `create_cluster`."""
        self._check()
        return await self._shared.cluster()

    async def create_cluster(self, facts: ClusterFacts) -> ClusterFacts:
        """Set id and epoch unless they are set; returns what is set now."""
        self._check()
        return await self._shared.create(facts)

    async def lease(self, owner: str, seconds: float) -> Lease | None:
        """Take or renew the right to run maintenance; None while another has it."""
        self._check()
        return await self._shared.lease(owner, seconds)

    async def release(self, owner: str) -> None:
        """Give the lease back, if it is that owner's."""
        self._check()
        await self._shared.release(owner)

    async def note(self, key: str) -> Note | None:
        """A small document, or None."""
        self._check()
        return await self._shared.note(key)

    async def set_note(self, key: str, value: Mapping[str, Any], mark: str) -> bool:
        """Replace the note that bears `mark`; an empty mark creates it."""
        self._check()
        return await self._shared.set_note(key, value, mark)

    async def health(self) -> str | None:
        """None when it works, else one sentence that says why not; in HEALTH at most."""
        try:
            return await self._clock.within(HEALTH, self._setup.look())
        except TimedOut:
            return f"no answer from {self._where} within {HEALTH:g} s"

    async def _ask(
        self, bucket: str, name: str, ask: Callable[[Seen], Awaitable[Version | None]]
    ) -> Version | None:
        self._check()
        return await self._names.consistently(bucket, name, ask)

    def _check(self) -> None:
        if not self._setup.ready:
            raise MetadataUnavailable("the metadata store is not ready")


def _by_name(
    marks: Sequence[tuple[str, str, int]],
) -> Mapping[tuple[str, str], Set[int]]:
    """The numbers of each (bucket, name)."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for bucket, name, number in marks:
        numbers.setdefault((bucket, name), set()).add(number)
    return numbers


def make_store(
    addresses: Sequence[str],
    reactor: Any,
    clock: Clock,
    entropy: Callable[[int], bytes],
    refused: Callable[[str], None],
    *,
    authorities: bytes | None = None,
    api_key: str | None = None,
) -> ElasticStore:
    """The store behind these servers: host:port or URL each, https with `authorities`.

    `authorities` are PEM certificates, the system's when None. Raises Malformed.
    """
    hosts = parse_hosts(addresses, api_key)
    exchange = Exchange(reactor, authorities)

    def chance() -> float:
        return int.from_bytes(entropy(4), "big") / 2**32

    client = Client(hosts, exchange, clock, chance)
    return ElasticStore(client, str(client), clock, entropy, refused, client.close)
