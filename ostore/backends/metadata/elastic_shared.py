"""What the services of a cluster share beside versions: its id, the lease, notes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs

from ostore.backends.metadata.elastic_bulk import (
    Address,
    Documents,
    Found,
    Position,
    Write,
)
from ostore.backends.metadata.elastic_client import MaybeApplied, SearchFailed
from ostore.model.errors import OutcomeUnknown
from ostore.model.versions import ClusterFacts, Lease, Note
from ostore.streaming.clock import Clock

SHARED_FIELDS = ("id", "epoch", "lease", "note")

_CLUSTER = Address("cluster")
_WRITE_TRIES = 4


class Shared:
    """The documents of `ostore-cluster`, read in real time, changed by compare-and-set.

    Owned by the store, which closes it.
    """

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._seen: tuple[Position, float] | None = None

    def close(self) -> None:
        """Take nothing more."""
        self._documents.close()

    async def cluster(self) -> ClusterFacts | None:
        """Id and epoch, once they are set."""
        found = await self._documents.read(_CLUSTER)
        return None if found is None else _facts(found)

    async def create(self, facts: ClusterFacts) -> ClusterFacts:
        """Set id and epoch unless they are set."""
        with suppress(MaybeApplied):
            await self._documents.write(Write(_CLUSTER, attrs.asdict(facts)))
        standing = await self.cluster()
        if standing is None:
            raise OutcomeUnknown("the cluster's id may yet appear")
        return standing

    async def lease(self, owner: str, seconds: float) -> Lease | None:
        """Take or renew the lease; a change of hands raises the epoch with it.

        Another's stands until it ends by our wall clock, or was seen unrenewed for
        `seconds`: the clock by which it was written may have been wrong. One that was taken by a write whose answer was lost is renewed by the next call.
        """
        for _ in range(_WRITE_TRIES):
            found = await self._documents.read(_CLUSTER)
            if found is None:
                return None
            facts, standing = _facts(found), _lease(found)
            now = self._clock.wall()
            ours = standing is not None and standing.owner == owner
            stands = standing is not None and standing.until > now
            if stands and not ours and self._unchanged(found) < seconds:
                return None
            taken = Lease(owner, facts.epoch + (not ours), now + seconds)
            if await self._write(found, facts, taken):
                return taken
        raise SearchFailed("the lease changes too fast")

    async def release(self, owner: str) -> None:
        """Drop the lease, if it is that owner's."""
        found = await self._documents.read(_CLUSTER)
        standing = None if found is None else _lease(found)
        if found is not None and standing is not None and standing.owner == owner:
            await self._write(found, _facts(found), None)

    async def note(self, key: str) -> Note | None:
        """A small document; its mark is where it stands in its history."""
        found = await self._documents.read(_note(key))
        if found is None:
            return None
        position = found.position
        return Note(found.source["note"], f"{position.seq}-{position.term}")

    async def set_note(self, key: str, value: Mapping[str, Any], mark: str) -> bool:
        """Replace the note that bears the mark; an empty mark is that of none."""
        over = None
        if mark:
            found = await self._documents.read(_note(key))
            if found is None:
                return False
            over = found.position
            if mark != f"{over.seq}-{over.term}":
                return False
        write = Write(_note(key), {"note": dict(value)}, over)
        return await self._documents.write(write) is not None

    def _unchanged(self, found: Found) -> float:
        """Seconds for which it was seen as it is."""
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != found.position:
            self._seen = found.position, now
        return now - self._seen[1]

    async def _write(
        self, over: Found, facts: ClusterFacts, lease: Lease | None
    ) -> bool:
        document: dict[str, Any] = attrs.asdict(facts)
        if lease is not None:
            document |= {"epoch": lease.epoch, "lease": attrs.asdict(lease)}
        write = Write(_CLUSTER, document, over.position)
        return await self._documents.write(write) is not None


def _note(key: str) -> Address:
    return Address(f"note-{key}")


def _facts(found: Found) -> ClusterFacts:
    return ClusterFacts(found.source["id"], found.source["epoch"])


def _lease(found: Found) -> Lease | None:
    lease = found.source.get("lease")
    return None if lease is None else Lease(**lease)
