"""The hands of garbage collection: condemn, ask, move; ask, erase or restore."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs

from ostore.engine.cluster import Cluster
from ostore.engine.walking import LAST, Walk
from ostore.interfaces import IMetadataStore, INodes
from ostore.model.braking import too_doubtful, whose_metadata
from ostore.model.collecting import Held
from ostore.model.errors import Refused, ShardError
from ostore.model.layouts import ShardKey
from ostore.model.runs import moment
from ostore.model.versions import ClusterFacts
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 30.0
"""Seconds that a node has for an order."""


@attrs.frozen
class Collected:
    """What became of one content: shards moved or erased, kept, restored; bytes."""

    gone: int = 0
    kept: int = 0
    restored: int = 0
    bytes: int = 0


HOLD = "hold"
"""The note that says until when nothing is removed."""
MOST_EPOCHS = 1_000_000
"""By so many the epoch of adopted metadata is raised at most."""

Tell = Callable[[str, ClusterFacts], Awaitable[None]]
"""Tells a node the cluster's epoch."""


class Collecting:
    """Carries out what was decided, and asks again before each step.

    One for an engine. The metadata has the last word at the moment of a move. A PUT
    that relies on shards renews them before it writes its version and once more behind
    it, and a renewal clears the condemnation or brings back what was moved: so one of
    the two sees the other.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        metadata: IMetadataStore,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._metadata = metadata
        self._clock = clock
        self._tell = tell
        self.moved_bytes = 0
        self.freed_bytes = 0

    async def brakes(self, *, whose: bool = False, removes: bool = False) -> list[str]:
        """Why nothing may go on now; empty when it may.

        With `whose` only: is this the cluster's own metadata, and no older copy of it?
        With `removes`: may anything be removed, so soon after metadata was adopted?
        Raises MetadataUnavailable.
        """
        if not self._cluster.settled:
            return ["nodes: not all had the time to speak"]
        now, wall = self._clock.monotonic(), self._clock.wall()
        beats = [
            (member.beat, now - member.heard)
            for member in self._cluster.members.live(now)
        ]
        # The metadata is read later: an epoch grows there first.
        found = whose_metadata(await self._metadata.cluster(), beats)
        if whose:
            return found
        held = await self._metadata.note(HOLD) if removes else None
        if held is not None and held.value["until"] > wall:
            until = moment(held.value["until"])
            found.append(f"adopted: nothing is removed before {until}")
        return [*found, *too_doubtful(beats, wall)]

    async def adopt(self, owner: str, hold: float) -> int:
        """Take metadata that nodes know to be older for right; gives its new epoch.

        That is above all of theirs; nothing is removed for `hold` seconds. Raises
        Refused for another cluster's metadata, or while another has the lease.
        """
        beats = [member.beat for member in self._cluster.live()]
        known = await self._metadata.cluster()
        strangers = {b.cluster for b in beats if b.cluster} - {known and known.id}
        if known is None or strangers:
            raise Refused(
                "this is not the metadata of the cluster that the nodes are of"
            )
        note = await self._metadata.note(HOLD)
        until = {"until": self._clock.wall() + hold}
        if not await self._metadata.set_note(HOLD, until, note.mark if note else ""):
            raise Refused("somebody else adopts it now")
        highest = max((beat.epoch for beat in beats), default=0)
        epoch = known.epoch
        for _ in range(MOST_EPOCHS):
            if epoch > highest:
                break
            lease = await self._metadata.lease(owner, PATIENCE)
            if lease is None:
                raise Refused("another service has the lease on maintenance")
            epoch = lease.epoch
            await self._metadata.release(owner)
        await self.announce(epoch)
        return epoch

    async def announce(self, epoch: int) -> None:
        """Let every live node know that epoch, as far as they can be told.

        An older copy of the metadata is known by nodes that have seen a higher one.
        """
        known = await self._metadata.cluster()
        if known is not None and known.epoch >= epoch:
            live = [member.beat.node for member in self._cluster.live()]
            await self.at_nodes(live, lambda node: self._tell(node, known))

    async def sweep(self, *, dry_run: bool = False) -> tuple[int, int]:
        """Have live nodes remove temporaries that expired; how many, and nodes that did.

        In a `dry_run` they are only counted.
        """

        async def sweep(node: str) -> int:
            return await self._nodes.store(node).sweep(dry_run=dry_run)

        live = [member.beat.node for member in self._cluster.live()]
        given = await self.at_nodes(live, sweep)
        done = [removed for removed in given if removed is not None]
        return sum(done), len(done)

    def walk(self, after: str = "", until: str = LAST) -> Walk:
        """Over everything that live nodes hold and versions refer to."""
        stores = {
            member.beat.node: self._nodes.store(member.beat.node)
            for member in self._cluster.live()
        }
        return Walk(stores, self._metadata, self._clock, after, until)

    async def collect(
        self, hash: str, shards: Sequence[Held], age: float, epoch: int
    ) -> Collected:
        """Move a content that nobody refers to into garbage, shard by shard.

        What is younger than `age` by now, renewed meanwhile or out of reach stays.
        Raises MetadataUnavailable, and nothing is moved then.
        """
        tokens = await self.condemn(shards, age, epoch)
        if not any(tokens) or await self._metadata.content(hash) is not None:
            return Collected(kept=len(shards))  # a token that is not used is harmless
        return await self.discard(shards, tokens, epoch)

    async def condemn(
        self, shards: Sequence[Held], age: float, epoch: int
    ) -> Sequence[str | None]:
        """A token for each shard, None where the node refuses or is out of reach."""

        async def condemn(held: Held) -> str:
            node, facts = held
            return await self._nodes.store(node).condemn(facts.key, age, epoch)

        return await self.at_nodes(shards, condemn)

    async def discard(
        self, shards: Sequence[Held], tokens: Sequence[str | None], epoch: int
    ) -> Collected:
        """Move to garbage what was condemned and not renewed since."""

        async def discard(order: tuple[Held, str]) -> bool:
            (node, facts), token = order
            return await self._nodes.store(node).discard(facts.key, token, epoch)

        orders = [(s, t) for s, t in zip(shards, tokens, strict=True) if t]
        moved = await self.at_nodes(orders, discard)
        sizes = [
            order[0][1].bytes for order, gone in zip(orders, moved, strict=True) if gone
        ]
        self.moved_bytes += sum(sizes)
        return Collected(len(sizes), len(shards) - len(sizes), 0, sum(sizes))

    async def expire(
        self, hash: str, shards: Sequence[Held], age: float, epoch: int
    ) -> Collected:
        """Remove what lay in garbage for `age` seconds, or bring it back.

        It comes back when a version refers to the content and not all of its shards
        stand. Raises MetadataUnavailable, and nothing is touched then.
        """
        if await self._metadata.content(hash) is not None:
            census = await self._cluster.survey(hash)
            if not census.certain:
                return Collected(kept=len(shards))
            if not any(len(s.spread) == s.layout.shards for s in census.standings()):
                return await self._restore(hash, shards)

        async def erase(order: tuple[str, ShardKey]) -> int:
            node, key = order
            return await self._nodes.store(node).erase(key, age, epoch)

        orders = list(dict.fromkeys((node, facts.key) for node, facts in shards))
        freed = [size or 0 for size in await self.at_nodes(orders, erase)]
        self.freed_bytes += sum(freed)
        gone = sum(size > 0 for size in freed)
        return Collected(gone, len(orders) - gone, 0, sum(freed))

    async def _restore(self, hash: str, shards: Sequence[Held]) -> Collected:
        async def restore(node: str) -> bool:
            return bool((await self._nodes.store(node).restore(hash)).shards)

        back = await self.at_nodes(sorted({node for node, _ in shards}), restore)
        restored = sum(bool(each) for each in back)
        return Collected(0, len(shards) - restored, restored)

    async def at_nodes(
        self, orders: Sequence[T], work: Callable[[T], Awaitable[R]]
    ) -> list[R | None]:
        """What each order gives, None for one that a node could not or would not do."""
        outcomes = await gather(
            self._clock.within(PATIENCE, work(order)) for order in orders
        )
        given: list[R | None] = []
        for outcome in outcomes:
            if isinstance(outcome, ShardError | Refused | TimedOut):
                given.append(None)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                given.append(outcome)
        return given
