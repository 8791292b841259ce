"""ObjectStore: the one name that the rooms above import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from ostore.engine.cluster import Cluster
from ostore.engine.collecting import Collecting
from ostore.engine.getting import ByteStream, Getting
from ostore.engine.intake import Body
from ostore.engine.jobbook import JobBook
from ostore.engine.mending import Mending
from ostore.engine.moving import Moving
from ostore.engine.putting import Putting
from ostore.engine.recording import Recording
from ostore.engine.referring import PutRequest
from ostore.engine.repairs import Repairs
from ostore.engine.resuming import Begun, Resuming
from ostore.interfaces import IMetadataStore, INodes
from ostore.model.conditions import WriteCondition
from ostore.model.errors import (
    Deleted,
    DigestMismatch,
    Malformed,
    NotFound,
    Refused,
    TooFewShards,
)
from ostore.model.scrubbing import Progress
from ostore.model.versions import NewVersion, Page, Version, bounded

__all__ = [
    "Authorize",
    "Begun",
    "ByteStream",
    "ObjectStore",
    "OpenObject",
    "PutRequest",
]

V = TypeVar("V", Version, Version | None)

Authorize = Callable[[str, str, str, str], None]
"""`authorize(principal, verb, bucket, name)`: raises to refuse."""


def allow_all(principal: str, verb: str, bucket: str, name: str) -> None:
    """Everybody may do everything: this store has no accounts."""


@attrs.frozen
class OpenObject:
    """One version, ready to be read."""

    version: Version
    getting: Getting

    async def read(self, start: int, stop: int) -> ByteStream:
        """The bytes start <= i < stop, the first of them at hand.

        Raises TooFewShards before any byte. The caller closes the stream.
        """
        return await self.getting.read(self.version, start, stop)

    async def reach(self) -> None:
        """Return once it is known that a read can succeed. Raises TooFewShards."""
        await self.getting.reach(self.version)


class ObjectStore:
    """The verbs of an object store over any bus, metadata and nodes."""

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        metadata: IMetadataStore,
        recording: Recording,
        putting: Putting,
        getting: Getting,
        mending: Mending,
        repairs: Repairs,
        jobs: JobBook,
        hands: Collecting,
        moving: Moving,
        brakes: Callable[[], list[str]],
        codec: str,
        version: str,
        faults: Callable[[], list[str]] = list,
        resuming: Resuming | None = None,
        adopted: Callable[[], None] = lambda: None,
        hold: float = 0.0,
        authorize: Authorize = allow_all,
        bucket: str = "",
        principal: str = "",
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._metadata = metadata
        self._recording = recording
        self._putting = putting
        self._getting = getting
        self._mending = mending
        self._repairs = repairs
        self.jobs = jobs
        self._hands = hands
        self._moving = moving
        self._brakes = brakes
        self._faults = faults
        self._resuming = resuming
        self._adopted = adopted
        self._hold = hold
        self._codec = codec
        self._version = version
        self._authorize = authorize
        self._bucket = bucket
        self._principal = principal

    async def put(self, request: PutRequest, body: Body) -> Version:
        """Store the body as the next version of its name.

        Raises Refused when the put_id is that of a deletion.
        """
        self._ask("put", request.name)
        if request.put_id is not None:
            made = await self._metadata.by_put_id(
                request.bucket, request.name, request.put_id
            )
            _same_kind(made, deletion=False)
        return _same_kind(await self._putting.put(request, body), deletion=False)

    async def instant(self, request: PutRequest) -> Version | None:
        """A version of the content that digest and size name, if it is there.

        Raises what put() raises.
        """
        self._ask("put", request.name)
        if request.digest is None or request.size is None:
            return None
        made = await self._putting.refer(request, request.digest, request.size)
        return None if made is None else _same_kind(made, deletion=False)

    async def begin_upload(self, request: PutRequest, size: int) -> Begun | Version:
        """A resumable upload of so many bytes; a Version if it needs no more.

        Raises what put() raises before the body.
        """
        self._ask("put", request.name)
        return await self.uploads.begin(request, size)

    @property
    def uploads(self) -> Resuming:
        """Resumable uploads that were begun, by their tokens. Raises Malformed."""
        if self._resuming is None:
            raise Malformed(
                "Size: resumable uploads are not available here; leave it out and send "
                "the whole object"
            )
        return self._resuming

    async def copy(
        self, request: PutRequest, source: str, number: int | None
    ) -> Version:
        """A version with the content of another name's, and its kept headers.

        Headers of the request stand before those of the source; a digest has to be
        that of the content. Raises NotFound, DigestMismatch, HeadersTooLarge, and what
        put() raises.
        """
        opened = await self.open(source, number)
        content = opened.version
        if request.digest not in (None, content.hash):
            raise DigestMismatch("the source's SHA-256 differs from the Digest given")
        request = attrs.evolve(
            request,
            digest=content.hash,
            size=content.size,
            headers=bounded({**content.headers, **request.headers}),
        )
        made = await self.instant(request)
        if made is not None:
            return made
        stream = await opened.read(0, content.size)
        try:
            return await self.put(request, stream)
        finally:
            await stream.close()

    async def open(self, name: str, number: int | None = None) -> OpenObject:
        """The newest version or that number. Raises NotFound, Deleted."""
        self._ask("get", name)
        version = (
            await self._metadata.latest(self._bucket, name)
            if number is None
            else await self._metadata.version(self._bucket, name, number)
        )
        if version is None:
            what = "object" if number is None else "version of the object"
            raise NotFound(f"there is no such {what}")
        if version.deleted:
            raise Deleted("the object is deleted", version.number)
        return OpenObject(version, self._getting)

    async def delete(
        self,
        name: str,
        put_id: str | None = None,
        condition: WriteCondition = WriteCondition(),  # noqa: B008 - a frozen value
    ) -> Version:
        """Add a delete marker. Raises NotFound when there is nothing to delete.

        Raises Refused when the put_id is that of a PUT.
        """
        self._ask("delete", name)
        made = await self._recording.add(
            NewVersion(
                name=name,
                bucket=self._bucket,
                put_id=put_id or self._recording.put_id(),
                deleted=True,
                condition=condition,
            )
        )
        return _same_kind(made, deletion=True)

    async def purge(self, name: str, number: int) -> None:
        """Remove one version for good. Raises NotFound."""
        self._ask("purge", name)
        if not await self._metadata.purge(self._bucket, name, number):
            raise NotFound("there is no such version of the object")

    async def objects(
        self, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        """A page of the newest versions that are not deleted."""
        self._ask("list", prefix)
        return await self._metadata.listing(
            self._bucket, prefix, delimiter, after, limit
        )

    async def versions_of(self, name: str, after: int, limit: int) -> Sequence[Version]:
        """Versions of one name with numbers above `after`."""
        self._ask("list", name)
        return await self._metadata.versions_of(self._bucket, name, after, limit)

    async def all_versions(
        self, after: tuple[str, int], limit: int
    ) -> Sequence[Version]:
        """Versions of all names behind (name, number)."""
        self._ask("list", "")
        return await self._metadata.all_versions(self._bucket, after, limit)

    async def locate(self, hash: str) -> Mapping[int, str]:
        """Index -> place of a content's shards. Raises NotFound, TooFewShards.

        Of several layouts the one with most shards is shown. Silence is no answer:
        NotFound needs every node to have said that it holds none.
        """
        self._ask("locate", hash)
        census = await self._cluster.locate(hash)
        standings = census.standings()
        if not standings:
            if not census.asked or not (census.certain and self._cluster.settled):
                raise TooFewShards("not every node has said what it holds")
            raise NotFound("no node holds a shard of that content")
        return {
            index: self._nodes.place(nodes[0])
            for index, nodes in standings[0].places.items()
        }

    async def adopt(self) -> dict[str, Any]:
        """Take this metadata for right though nodes know it to be older.

        Raises Refused, MetadataUnavailable.
        """
        self._ask("adopt", "")
        epoch = await self._hands.adopt(self._recording.put_id(), self._hold)
        self._adopted()
        return {"epoch": epoch, "nothing_removed_for": self._hold}

    async def drain(self, node: str, *, on: bool) -> dict[str, Any]:
        """Have a node give its shards away, or keep them; what is known of the node.

        Raises NotFound, ShardError.
        """
        self._ask("drain", node)
        state = await self._moving.drain(node, on=on)
        return {"id": node, "draining": on, "state": state}

    async def reasons(self) -> list[str]:
        """Why the service is not ready, a sentence each; empty when it is."""
        why = list(self._brakes())
        if (sick := await self._metadata.health()) is not None:
            why.append(f"metadata: {sick}")
        takers = sum(each.writable for each in self._cluster.candidates())
        quorum = self._putting.writing.coding.quorum
        if takers < quorum:
            why.append(f"nodes: {takers} can take shards, a write needs {quorum}")
        return why

    def view(self) -> dict[str, Any]:
        """The JSON of /cluster."""
        states = self._cluster.states()
        members = self._cluster.members.by_id
        return {
            "nodes": [
                {
                    "id": node,
                    "url": member.beat.url,
                    "zone": member.beat.zone,
                    "state": states[node],
                    "free": member.beat.free,
                    "total": member.beat.total,
                    "shards": member.beat.shards,
                    "last_heard": self._cluster.heard_ago(node),
                }
                for node, member in sorted(members.items())
            ],
            "faults": self._faults(),
            "repairs": {"waiting": len(self._repairs), "worst": self._repairs.worst},
            "moves": self.jobs.moves(),
            "jobs": self.jobs.shown(),
            "codec": self._codec,
            "version": self._version,
        }

    def figures(self) -> Mapping[str, float]:
        """Gauges for /metrics: name -> value now."""
        return {
            "ostore_nodes_live": len(self._cluster.live()),
            "ostore_repairs_waiting": len(self._repairs),
            **{
                f"ostore_repairs_left_{left}": count
                for left, count in sorted(self._repairs.by_left().items())
            },
            "ostore_repairs_forgotten_total": self._repairs.forgotten,
            "ostore_shards_mended_total": self._mending.mended,
            "ostore_repairs_failed_total": self._mending.failed,
            **self._scrubbed(),
            "ostore_job_failures_total": self.jobs.failures,
            "ostore_collected_bytes_total": self._hands.moved_bytes,
            "ostore_moved_bytes_total": self._moving.moved_bytes,
            "ostore_freed_bytes_total": self._hands.freed_bytes,
            "ostore_locates_total": self._cluster.locates,
            "ostore_bus_messages_dropped_total": self._cluster.dropped,
            "ostore_shards_given_up_total": self._putting.writing.given_up,
            "ostore_inflight_bytes": self._putting.writing.budget.lent,
            **({} if self._resuming is None else self._resuming.figures()),
        }

    def _scrubbed(self) -> Mapping[str, float]:
        progress = Progress.from_json(self.jobs.records["scrub"].memory)
        if progress is None:
            return {}
        return {"ostore_scrub_oldest_seconds": progress.oldest(self.jobs.now())}

    def _ask(self, verb: str, name: str) -> None:
        self._authorize(self._principal, verb, self._bucket, name)


def _same_kind(made: V, *, deletion: bool) -> V:
    """What a put_id made, if it is what is asked for now; nothing was done otherwise."""
    if made is not None and made.deleted != deletion:
        raise Refused(
            "the Idempotency-Key belongs to another request for this name, which "
            + ("stored a version" if deletion else "deleted the object")
            + "; nothing was done: take a fresh key"
        )
    return made
