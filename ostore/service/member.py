"""One data node of this process: a storage root, its voice, and the watch over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from twisted.logger import Logger

from ostore.backends.shards.node import ShardNode
from ostore.engine.announcing import CAPABILITIES, Announcer
from ostore.interfaces import IMessageBus
from ostore.model.messages import Signer
from ostore.model.nodes import Heartbeat
from ostore.streaming.clock import Clock
from ostore.streaming.schedule import Repeated

WATCH = 0.5
"""Seconds between two looks at the storage root."""
SWEEP = 60.0
"""Seconds between two looks for uploads that have expired."""


class DataMember:
    """Speaks for one node on the bus and watches its root; owned by the service."""

    def __init__(
        self,
        node: ShardNode,
        bus: IMessageBus,
        signer: Signer,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        heartbeat: float,
        url: str,
        zone: str,
    ) -> None:
        self.node = node
        self.bus = bus
        self._clock = clock
        self.place = url
        self._zone = zone
        self._seq = 0
        self._told = self._news()
        log = Logger()

        def repeated(every: float, work: Callable[[], Awaitable[object]]) -> Repeated:
            return Repeated(clock, every, work, entropy, log, what="watching a node")

        self._announcer = Announcer(
            bus,
            signer,
            clock,
            node.node_id,
            node.store,
            self._beat,
            partial(repeated, heartbeat),
        )
        self._watch = repeated(WATCH, self._look)
        self._sweep = repeated(SWEEP, node.store.sweep)

    async def claim(self) -> None:
        """Wait for the bus, and see that nobody else is this node. Raises Refused."""
        await self._announcer.claim()

    async def start(self) -> None:
        """Heartbeats and answers begin; the bus is started by who owns it."""
        await self._announcer.start()
        self._watch.start()
        self._sweep.start()

    async def stop(self) -> None:
        """Fall silent."""
        await self._watch.stop()
        await self._sweep.stop()
        await self._announcer.stop()

    async def _look(self) -> None:
        await self.node.check_root()
        if self._news() != self._told:
            await self._announcer.announce()

    def _news(self) -> tuple[object, ...]:
        """What the others should know at once when it changes."""
        node = self.node
        return node.boot, node.state, node.cluster, node.epoch

    def _beat(self) -> Heartbeat:
        self._seq += 1
        node = self.node
        self._told = self._news()
        return Heartbeat(
            node=node.node_id,
            boot=node.boot,
            seq=self._seq,
            url=self.place,
            zone=self._zone,
            free=node.space.free,
            total=node.space.total,
            shards=node.shard_count,
            state=node.state,
            time=self._clock.wall(),
            cluster=node.cluster,
            epoch=node.epoch,
            capabilities=CAPABILITIES,
        )
