"""Asking the nodes, behind reads that did not, who holds what was read."""

from __future__ import annotations

from collections.abc import Callable

from ostore.engine.cluster import Cluster
from ostore.model.census import Census
from ostore.streaming.clock import Clock

LIMIT = 16_384
"""Contents that wait to be looked at; what is read beyond waits for its next read."""
PAUSE = 0.1
"""Seconds between two looks."""
TRIES = 10
"""Looks at a content of which live nodes do not answer."""


class Looking:
    """Locates contents that were read from memory, one after the other.

    Made by Getting, which hands in what was read. A read from memory touches k shards,
    so what else has gone is noticed here. A content that is read a thousand times waits
    once, and none is passed over for another; nodes that were silent are asked again.
    Ends with the cluster.
    """

    def __init__(
        self, cluster: Cluster, clock: Clock, seen: Callable[[str, Census], None]
    ) -> None:
        """`seen` gets each content and what the nodes said."""
        self._cluster = cluster
        self._clock = clock
        self._seen = seen
        self._waiting: dict[str, int] = {}
        self._busy = False

    def soon(self, hash: str) -> None:
        """Look at this content when its turn comes; at once when none waits."""
        if len(self._waiting) < LIMIT:
            self._waiting[hash] = TRIES
        if not self._busy:
            self._busy = True
            self._cluster.beside("looking for shards", self._run)

    async def _run(self) -> None:
        try:
            while self._waiting:
                hash = next(iter(self._waiting))
                tries = self._waiting.pop(hash) - 1
                census = await self._cluster.locate(hash, thorough=True)
                self._seen(hash, census)
                if tries and census.silent and not census.whole():
                    self._waiting.setdefault(hash, tries)
                await self._clock.sleep(PAUSE)
        finally:
            self._busy = False
