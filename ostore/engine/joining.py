"""Which nodes belong to this cluster, and how a new one comes to belong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from ostore.interfaces import IMetadataStore
from ostore.model.errors import MetadataUnavailable, OstoreError
from ostore.model.identity import judge
from ostore.model.nodes import Heartbeat, Members
from ostore.model.versions import ClusterFacts
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import gather

Adopt = Callable[[str, ClusterFacts], Awaitable[None]]


class Joining:
    """Holds metadata and nodes to one cluster id; look() is called again and again.

    Owned by the service of an api. Until a write quorum of nodes without any id was
    heard for one heartbeat period, a cluster without an id gets none: an empty
    metadata store may be one that lost its memory. `brakes` are sentences for
    /health/ready; each of them forbids every destructive job too.
    """

    def __init__(
        self,
        metadata: IMetadataStore,
        adopt: Adopt,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        quorum: int,
        heartbeat: float,
    ) -> None:
        self.known: ClusterFacts | None = None
        self.brakes = ["cluster: the metadata was not asked for its id yet"]
        self._metadata = metadata
        self._adopt = adopt
        self._clock = clock
        self._entropy = entropy
        self._quorum = quorum
        self._heartbeat = heartbeat
        self._enough_since: float | None = None
        self._log = Logger()

    def belongs(self, beat: Heartbeat) -> bool:
        """Whether that node is one of ours: only such take and give shards."""
        return self.known is not None and beat.cluster == self.known.id

    async def look(self, members: Members) -> None:
        """Compare, create, adopt: as far as it goes now. Raises nothing of ours."""
        live = {m.beat.node: m.beat for m in members.live(self._clock.monotonic())}
        roots = {
            node: ClusterFacts(beat.cluster, beat.epoch) if beat.cluster else None
            for node, beat in live.items()
        }
        try:
            known = await self._metadata.cluster()
        except MetadataUnavailable:
            return  # what was known stays; readiness tells of the metadata
        verdict = judge(known, roots)
        if verdict.refuse:
            self.brakes = [f"cluster: {verdict.refuse}"]
            return
        if known is None:
            if not self._enough(len(live)):
                self.brakes = [
                    f"cluster: new; {len(live)} nodes are heard, a write needs "
                    f"{self._quorum}"
                ]
                return
            known = await self._create()
            if known is None:
                return
        if known != self.known:
            self._log.info("this is cluster {id}", id=known.id)
        self.known = known
        self.brakes = list(verdict.brakes)
        await gather(self._take_in(node, known) for node in verdict.adopt)

    def _enough(self, nodes: int) -> bool:
        """Whether a write quorum of nodes was heard for one heartbeat period."""
        if nodes < self._quorum:
            self._enough_since = None
            return False
        now = self._clock.monotonic()
        if self._enough_since is None:
            self._enough_since = now
        return now - self._enough_since >= self._heartbeat

    async def _create(self) -> ClusterFacts | None:
        """The id that is there now; of several that create at once one wins."""
        fresh = ClusterFacts(self._entropy(16).hex(), 1)
        try:
            return await self._metadata.create_cluster(fresh)
        except MetadataUnavailable:
            return None

    async def _take_in(self, node: str, known: ClusterFacts) -> None:
        try:
            await self._adopt(node, known)
        except OstoreError as error:
            why = f"cluster: {node} did not join: {error}"
            if why not in self.brakes:
                self.brakes.append(why)
