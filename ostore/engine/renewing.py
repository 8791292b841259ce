"""Relying on shards that are there already: give them a new age, count who has them."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ostore.engine.cluster import Cluster
from ostore.interfaces import INodes
from ostore.model.census import Standing, distinct
from ostore.model.errors import NodeUnreachable, ShardError
from ostore.model.layouts import Layout
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather, start

_Shards = tuple[str, Layout, frozenset[str]]
"""Content, layout and holders: what one renewal is about."""


class Renewing:
    """Renews a content's shards on all their holders at once.

    A renewal clears every condemnation and brings shards back from garbage, so that
    what it found present cannot be collected before the version is written. One that
    began before it was asked for proves nothing: who comes while one is under way
    shares the next with all who come meanwhile.
    """

    def __init__(
        self, cluster: Cluster, nodes: INodes, clock: Clock, patience: float
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._clock = clock
        self._patience = patience
        self._waiting: dict[_Shards, list[Deferred[dict[int, str]]]] = {}

    async def renew(self, hash: str, standing: Standing) -> dict[int, str]:
        """Distinct indices on distinct nodes that are present now: index -> node.

        Only an answer that says present counts; a node that is unsure, away or slower
        than the patience counts as absent. A renewal goes on when its caller is
        cancelled.
        """
        shards = (hash, standing.layout, standing.nodes)
        present: Deferred[dict[int, str]] = Deferred()
        if shards in self._waiting:
            self._waiting[shards].append(present)
        else:
            self._waiting[shards] = [present]
            _ = start(self._renew_for_all(shards, standing))
        return await present

    async def _renew_for_all(self, shards: _Shards, standing: Standing) -> None:
        """One renewal after the other, each for all who wait when it begins."""
        while callers := self._waiting[shards]:
            self._waiting[shards] = []
            (outcome,) = await gather([self._renew(shards[0], standing)])
            for each in callers:
                if each.called:
                    continue  # cancelled
                if isinstance(outcome, Exception):
                    each.errback(outcome)
                else:
                    each.callback(dict(outcome))
        del self._waiting[shards]

    async def _renew(self, hash: str, standing: Standing) -> dict[int, str]:
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
