"""The store passes its contract on a simulated disk and on a real one."""

# ruff: noqa: D102 - the mixin says what these give

from __future__ import annotations

import os
from random import Random

from twisted.internet import reactor, task
from twisted.trial import unittest

from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.interfaces import IShardStore
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers, ThreadWorkers, Workers
from tests.contracts.shards import ShardStoreContract
from tests.support.disk import SimulatedDisk

BEGIN = 1_700_000_000.0
PACKED = 1 << 20


class OnSimulatedDisk(ShardStoreContract, unittest.TestCase):
    """Inline workers, nothing cached and everything cached in turn."""

    cached = True
    pack_limit = 0

    def wall(self) -> float:
        return BEGIN + self.time.seconds()

    def later(self, seconds: float) -> None:
        self.time.advance(seconds)

    async def fresh(self) -> IShardStore:
        self.time = task.Clock()
        disk = SimulatedDisk(self.wall)
        disk.cached = self.cached
        clock = Clock(self.time, self.time.seconds, self.wall)
        node = ShardNode(
            "/data",
            disk,
            InlineWorkers(),
            clock,
            Random(1).randbytes,
            pack_limit=self.pack_limit,
        )
        await node.start()
        await node.adopt("c" * 32, 1)
        self.addCleanup(node.stop)
        return node.store


class Uncached(OnSimulatedDisk):
    """Every read goes to the workers."""

    cached = False


class Packed(OnSimulatedDisk):
    """Small contents lie in segments."""

    pack_limit = PACKED


class PackedUncached(Packed):
    """Small contents lie in segments, and every read goes to the workers."""

    cached = False


class OnRealDisk(ShardStoreContract, unittest.TestCase):
    """Real threads and a real folder."""

    pack_limit = 0

    def setUp(self) -> None:
        self.moved = 0.0

    def wall(self) -> float:
        return BEGIN + self.moved

    def later(self, seconds: float) -> None:
        self.moved += seconds

    def workers(self) -> Workers:
        return ThreadWorkers(reactor, 3, "shards")

    async def fresh(self) -> IShardStore:
        clock = Clock(task.Clock(), self.wall, self.wall)
        node = ShardNode(
            self.mktemp(),
            Files(),
            self.workers(),
            clock,
            os.urandom,
            durable=False,
            pack_limit=self.pack_limit,
        )
        await node.start()
        await node.adopt("c" * 32, 1)
        self.addCleanup(node.stop)
        while node.store.scanning:
            await self.turn()
        return node.store

    async def turn(self) -> None:
        """One turn of the reactor."""
        await task.deferLater(reactor, 0.001)


class PackedOnRealDisk(OnRealDisk):
    """The same, with small contents in segments."""

    pack_limit = PACKED
