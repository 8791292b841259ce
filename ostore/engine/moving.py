"""Moving shards from node to node, and having nodes drained."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from ostore.engine.cluster import Cluster
from ostore.engine.collecting import Collecting
from ostore.engine.tending import Tending
from ostore.interfaces import IFrameStream, IMetadataStore, INodes, IShardReader
from ostore.model.balancing import Bearer
from ostore.model.collecting import standing
from ostore.model.errors import NotFound, OstoreError, ShardError, ShardRotten
from ostore.model.examining import examine
from ostore.model.layouts import ShardFacts
from ostore.streaming.clock import Clock, TimedOut

STEP = 30.0
"""Seconds that one step on a node may take."""

Drain = Callable[[str, bool], Awaitable[None]]
"""Tells a node to drain, or to drain no more; it remembers."""


class Moving:
    """The hands of rebalancing; one for an engine.

    A shard is copied, the copy is read, and only then the first one goes to garbage: at
    no time there are fewer of a content, nor two on one node.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        metadata: IMetadataStore,
        tending: Tending,
        clock: Clock,
        entropy: Callable[[int], bytes],
        drain: Drain,
    ) -> None:
        self.moved_bytes = 0
        self._cluster = cluster
        self._nodes = nodes
        self._metadata = metadata
        self._tending = tending
        self._clock = clock
        self._entropy = entropy
        self._drain = drain

    @property
    def hands(self) -> Collecting:
        """Those of collection."""
        return self._tending.hands

    @property
    def away(self) -> bool:
        """Whether a node left too recently to be given up."""
        return self._tending.away

    async def drain(self, node: str, *, on: bool) -> str:
        """Have a node give its shards away, or keep them; gives the state it had.

        Raises NotFound, NodeUnreachable.
        """
        state = self._cluster.states().get(node)
        if state is None or state == "conflict":
            raise NotFound("there is no such node in this cluster")
        await self._clock.within(STEP, self._drain(node, on))
        return state

    def news(self) -> Mapping[str, Any]:
        """Who is there, and who is to go."""
        gone = not self.away
        states = self._cluster.states()
        leaving = {n.id for n in self._cluster.candidates() if n.state == "draining"}
        return {
            node: node in leaving
            for node, state in sorted(states.items())
            if state != "conflict" and not (state == "down" and gone)
        }

    def bearers(self) -> Mapping[str, Bearer]:
        """The live nodes; what they have is not known yet."""
        live = {member.beat.node for member in self._cluster.live()}
        return {
            each.id: Bearer(
                each.id,
                each.zone,
                0,
                each.free,
                takes=each.writable and not each.suspect,
                leaving=each.state == "draining",
            )
            for each in self._cluster.candidates()
            if each.id in live
        }

    async def move(
        self, facts: ShardFacts, source: str, target: str, epoch: int
    ) -> bool:
        """Move one shard, in its content's turn; False when it stays where it is."""
        return await self._tending.turns.run(
            facts.hash, lambda: self._move(facts, source, target, epoch)
        )

    async def _move(
        self, facts: ShardFacts, source: str, target: str, epoch: int
    ) -> bool:
        if await self._metadata.content(facts.hash) is None:
            return False
        held = await self._tending.held(facts.hash)
        if held is None or any(node == target for node, _ in standing(held)):
            return False
        tokens = await self.hands.condemn([(source, facts)], 0.0, epoch)
        if not any(tokens):
            return False
        try:
            await self._copy(facts, source, target)
        except ShardRotten:
            bad = [h for h in held if h != (source, facts)]
            await self._tending.report(facts.hash, examine(bad))
            return False
        except (ShardError, TimedOut):
            return False
        if not await self._tending.verified([(target, facts.key)]):
            return False
        self.moved_bytes += facts.bytes
        self._cluster.places.forget(facts.hash)
        done = await self.hands.discard([(source, facts)], tokens, epoch)
        return done.gone > 0

    async def _copy(self, facts: ShardFacts, source: str, target: str) -> None:
        within, nodes = self._clock.within, self._nodes
        reader: IShardReader = await within(STEP, nodes.store(source).open(facts.key))
        try:
            count = len(reader.table)
            stream = reader.frames(0, count)
            try:
                await self._write(facts, stream, target)
            finally:
                await stream.close()
        finally:
            await reader.close()

    async def _write(
        self, facts: ShardFacts, stream: IFrameStream, target: str
    ) -> None:
        within = self._clock.within
        store = self._nodes.store(target)
        sink = await within(STEP, store.create(self._entropy(16).hex()))
        try:
            while (frame := await within(STEP, stream.read())) is not None:
                await within(STEP, sink.write(frame))
            deadline = self._clock.wall() + STEP
            commit = sink.commit(facts.key, facts.layout, deadline, facts.age)
            await within(STEP, commit)
        finally:
            with suppress(OstoreError, TimedOut):
                await within(STEP, sink.abort())
