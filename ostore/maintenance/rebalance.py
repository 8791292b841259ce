"""New nodes fill up, leaving ones empty: shards move one by one, copied before they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ostore.engine.moving import Moving
from ostore.maintenance.course import Course, Stopped
from ostore.model.balancing import Balance
from ostore.model.collecting import Held, standing
from ostore.model.examining import standings


class Rebalance:
    """Weighs all nodes, then goes over all contents and moves what should lie elsewhere.

    At once when a node came or went, or was told to drain; and now and then. A run that
    another service takes over weighs anew: what was moved is where it should be.
    """

    name = "rebalance"
    fresh_epoch = False
    removes = False

    def __init__(self, moving: Moving, interval: float) -> None:
        self.interval = interval
        self._moving = moving

    def news(self) -> Any:
        """Who is there, and who is to go."""
        return self._moving.news()

    async def run(self, course: Course) -> None:
        """Weigh, then move."""
        course.counts.clear()
        if self._moving.away:
            raise Stopped("nodes: one went away a moment ago, and may be back soon")
        balance = await self._weigh(course)
        began = course.clock.monotonic()
        walk = self._moving.hands.walk()
        while (stretch := await walk.next()) is not None:
            await course.go_on(len(stretch.referred) / 20)

            async def settle(hash: str) -> None:
                shards = standing(stretch.held.get(hash, ()))
                await self._settle(course, balance, hash, shards, began)

            await course.each(sorted(stretch.referred), settle, lambda _: 0.05)
        if walk.unlisted:
            names = ", ".join(sorted(walk.unlisted))
            raise Stopped(f"these nodes could not say what they hold: {names}")
        course.counts["left_bytes"] = course.counts["eta_seconds"] = 0

    async def _weigh(self, course: Course) -> Balance:
        """How much each node has, and shall have."""
        bearers = dict(self._moving.bearers())
        used = dict.fromkeys(bearers, 0)
        shards = widest = 0
        walk = self._moving.hands.walk()
        while (stretch := await walk.next()) is not None:
            await course.go_on(sum(map(len, stretch.held.values())) / 20)
            for hash in stretch.referred:
                for node, facts in standing(stretch.held.get(hash, ())):
                    if node in used:
                        used[node] += facts.bytes
                        shards += 1
                        widest = max(widest, facts.layout.shards)
        if walk.unlisted:
            names = ", ".join(sorted(walk.unlisted))
            raise Stopped(f"these nodes could not say what they hold: {names}")
        weighed = {n: attrs.evolve(b, used=used[n]) for n, b in bearers.items()}
        balance = Balance.of(weighed, widest)
        course.counts["total_bytes"] = sum(used.values())
        course.counts["excess_bytes"] = int(balance.excess)
        return balance

    async def _settle(
        self,
        course: Course,
        balance: Balance,
        hash: str,
        shards: Sequence[Held],
        began: float,
    ) -> None:
        """Move what one content has in the wrong place."""
        found = standings(shards)
        if not found or found[0].missing or len(shards) != found[0].layout.shards:
            return  # not whole, or more than that: the census sees to it first
        holders: Mapping[str, Held] = {held[0]: held for held in shards}
        if len(holders) != len(shards):
            return
        counts = course.counts
        for source, target in balance.moves(
            {n: f.bytes for n, (_, f) in holders.items()}
        ):
            facts = holders[source][1]
            counts["planned"] += 1
            counts["planned_bytes"] += facts.bytes
            if course.dry_run:
                continue
            await course.go_on(2 + 3 * facts.bytes / (1 << 20))
            if await self._moving.move(facts, source, target, course.epoch):
                counts["moved"] += 1
                counts["bytes"] += facts.bytes
            else:
                counts["stayed"] += 1
            left = max(0, int(balance.excess))
            spent = course.clock.monotonic() - began
            counts["left_bytes"] = left
            counts["eta_seconds"] = int(spent * left / max(1, counts["bytes"]))
