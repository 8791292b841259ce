"""The hands of those who count and read everything: check, report, remove duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ostore.engine.cluster import Cluster
from ostore.engine.collecting import Collected, Collecting
from ostore.engine.repairs import Repairs
from ostore.engine.turns import Turns
from ostore.interfaces import IMetadataStore, INodes
from ostore.model.collecting import Held
from ostore.model.errors import ShardError, ShardMissing, ShardRotten
from ostore.model.examining import Finding, keepers
from ostore.model.layouts import ShardKey, before
from ostore.model.placement import rank
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather

PATIENCE = 60.0
"""Seconds that a node has to read a part of a shard."""
ENOUGH = 5000
"""Contents that may wait for a repair before no more are looked for."""


class Tending:
    """Used by the jobs of maintenance; one for an engine.

    Whatever takes shards of a content away does so in the content's turn.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        metadata: IMetadataStore,
        repairs: Repairs,
        hands: Collecting,
        clock: Clock,
        *,
        rebuild_delay: float,
    ) -> None:
        self.hands = hands
        self.turns = Turns()
        self._cluster = cluster
        self._nodes = nodes
        self._metadata = metadata
        self._repairs = repairs
        self._clock = clock
        self._delay = rebuild_delay

    @property
    def away(self) -> bool:
        """Whether a node left too recently to be given up: what it holds is not missing."""
        quiet = self._cluster.quiet_since()
        return quiet is not None and quiet < self._delay

    @property
    def enough(self) -> bool:
        """Whether the repairs that wait, and can be done, are many already."""
        due = self._repairs.next_due()
        ready = due is not None and due <= self._clock.monotonic()
        return self._repairs.served and ready and len(self._repairs) > ENOUGH

    def news(self) -> Mapping[str, Any]:
        """Who is there, since which start, and who was given up; changes call for a count."""
        states = self._cluster.states()
        gone = not self.away
        return {
            node: -1 if states[node] == "down" else member.beat.boot.counter
            for node, member in sorted(self._cluster.members.by_id.items())
            if states[node] != "conflict" and (states[node] != "down" or gone)
        }

    async def check(self, shards: Sequence[Held]) -> tuple[list[Held], int]:
        """Have each whole shard read by its node; how they are, and the bytes read.

        What is not there any more is left out. One that could not be read now stays as
        it was said to be.
        """

        async def read(held: Held) -> tuple[Held | None, int]:
            node, facts = held
            if facts.state != "whole":
                return held, 0
            try:
                return held, await self._read(node, facts.key)
            except ShardMissing:
                return None, 0
            except ShardRotten:
                return (node, attrs.evolve(facts, state="bad")), 0
            except (ShardError, TimedOut):
                return held, 0

        outcomes = _sure(await gather(read(held) for held in shards))
        return [held for held, _ in outcomes if held], sum(size for _, size in outcomes)

    async def report(self, hash: str, finding: Finding) -> None:
        """Have what is missing rebuilt, the contents with fewest shards first."""
        layout = finding.layout
        spots = dict(finding.spots)
        if layout is None:
            version = await self._metadata.content(hash)
            if version is None or version.layout is None:
                return
            layout = version.layout
            spots = dict.fromkeys(range(layout.shards), "")
        self._repairs.found(hash, layout, spots, rotten=True)

    async def prune(
        self, hash: str, epoch: int, leaving: frozenset[str] = frozenset()
    ) -> Collected:
        """Move what a content has too much of to garbage, in its turn.

        Nothing goes unless all its shards were just read and found right, on other
        nodes each. Those on nodes that are `leaving` stay only where there are no
        others.
        """
        return await self.turns.run(hash, lambda: self._prune(hash, epoch, leaving))

    async def held(self, hash: str) -> list[Held] | None:
        """Everything that live nodes hold of a content; None when one cannot say."""

        async def ask(node: str) -> list[Held]:
            facts = await self._clock.within(
                PATIENCE, self._nodes.store(node).list(before(hash), 1, hash)
            )
            return [(node, each) for each in facts]

        found: list[Held] = []
        nodes = [member.beat.node for member in self._cluster.live()]
        for outcome in await gather(ask(node) for node in nodes):
            if isinstance(outcome, ShardError | TimedOut):
                return None
            if isinstance(outcome, Exception):
                raise outcome
            found += outcome
        return found

    async def verified(self, shards: Iterable[tuple[str, ShardKey]]) -> bool:
        """Whether all of these are there and right, by reading them."""

        async def read(node: str, key: ShardKey) -> bool:
            try:
                await self._read(node, key)
            except (ShardError, TimedOut):
                return False
            return True

        return all(_sure(await gather(read(*each) for each in shards)))

    async def _read(self, node: str, key: ShardKey) -> int:
        size = following = 0
        while True:
            read, following = await self._clock.within(
                PATIENCE, self._nodes.store(node).check(key, following)
            )
            size += read
            if not following:
                return size

    async def _prune(self, hash: str, epoch: int, leaving: frozenset[str]) -> Collected:
        held = await self.held(hash)
        stay = None if held is None else keepers(held, self._preferred(hash, leaving))
        if held is None or stay is None:
            return Collected()
        surplus = [
            (node, facts)
            for node, facts in held
            if facts.state != "garbage" and stay.get(facts.key) != node
        ]
        if not surplus:
            return Collected()
        tokens = await self.hands.condemn(surplus, 0.0, epoch)
        if not await self.verified((node, key) for key, node in stay.items()):
            return Collected(kept=len(surplus))
        return await self.hands.discard(surplus, tokens, epoch)

    def _preferred(self, hash: str, leaving: frozenset[str]) -> Sequence[str]:
        """Nodes, best first: everyone decides alike which of two shards stays."""
        candidates = self._cluster.candidates()
        going = leaving | {each.id for each in candidates if each.state == "draining"}
        ranked = rank(hash, candidates)
        return sorted(ranked, key=lambda node: node in going)


def _sure(outcomes: Sequence[Any]) -> Sequence[Any]:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes
