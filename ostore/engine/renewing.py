"""Relying on shards that are there already: give them a new age, count who has them."""

from __future__ import annotations

from ostore.engine.cluster import Cluster
from ostore.interfaces import INodes
from ostore.model.census import Standing, distinct
from ostore.model.errors import NodeUnreachable, ShardError
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather


class Renewing:
    """Renews a content's shards on all their holders at once.

    A renewal clears every condemnation and brings shards back from garbage, so that
    what it found present cannot be collected before the version is written.
    """

    def __init__(
        self, cluster: Cluster, nodes: INodes, clock: Clock, patience: float
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._clock = clock
        self._patience = patience

    async def renew(self, hash: str, standing: Standing) -> dict[int, str]:
        """Distinct indices on distinct nodes that are present now: index -> node.

        Only an answer that says present counts; a node that is unsure, away or slower
        than the patience counts as absent.
        """
        layout = standing.layout.id
        pairs: list[tuple[int, str]] = []

        async def ask(node: str) -> None:
            try:
                holding = await self._clock.within(
                    self._patience, self._nodes.store(node).renew(hash, layout)
                )
            except (NodeUnreachable, TimedOut):
                self._cluster.suspect(node)
                return
            except ShardError:
                return
            pairs.extend(
                (shard.index, node)
                for shard in holding.shards
                if shard.layout == standing.layout
            )

        for outcome in await gather(ask(node) for node in sorted(standing.nodes)):
            if isinstance(outcome, Exception):
                raise outcome
        return distinct(pairs)
