"""The contract of shard stores, asked over HTTP of a real node on a real socket."""

# ruff: noqa: D102 - the mixin says what these give

from __future__ import annotations

import os

from twisted.internet import task
from twisted.internet.ssl import CertificateOptions
from twisted.trial import unittest

from ostore.backends.nodes.client import HttpNodes
from ostore.backends.nodes.download import RemoteStream
from ostore.backends.nodes.upload import RemoteSink
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.interfaces import IShardStore
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers
from tests.contracts.shards import STRIPE, ShardStoreContract, sample
from tests.streaming.test_tls import credentials
from tests.support.nodes import REAL, Heard, ServedNode, http_nodes, reactor

BEGIN = 1_700_000_000.0


class OverHttp(ShardStoreContract, unittest.TestCase):
    """One data service and one caller, in one process."""

    timeout = 60
    skew = 0.0
    pack_limit = 0

    def setUp(self) -> None:
        self.moved = 0.0

    def wall(self) -> float:
        """The clock of both; the node's is `skew` ahead."""
        return BEGIN + self.moved

    def node_wall(self) -> float:
        return self.wall() + self.skew

    def later(self, seconds: float) -> None:
        self.moved += seconds

    def tls(self) -> CertificateOptions | None:
        return None

    def nodes(self, heard: Heard, clock: Clock) -> HttpNodes:
        """The caller's end."""
        return http_nodes(heard, clock, self.wall)

    async def fresh(self) -> IShardStore:
        clock = Clock(task.Clock(), self.node_wall, self.node_wall)
        workers = ThreadWorkers(reactor, 3, "shards")
        node = ShardNode(
            self.mktemp(),
            Files(),
            workers,
            clock,
            os.urandom,
            durable=False,
            pack_limit=self.pack_limit,
        )
        await node.start()
        await node.adopt("c" * 32, 1)
        self.addCleanup(node.stop)
        while node.store.scanning:
            await REAL.sleep(0.001)
        served = ServedNode(node, self.node_wall, self.tls())
        self.addCleanup(served.stop)
        heard = Heard()
        heard.hear(node.node_id, served.url)
        clock = Clock(REAL.timers, REAL.monotonic, self.wall)
        nodes = self.nodes(heard, clock)
        self.addCleanup(nodes.stop)
        return nodes.store(node.node_id)

    async def test_rests(self) -> None:
        """A writer and a reader that rest between any two frames lose nothing."""
        store, one = await self.begin(), sample(1, 4 * STRIPE)
        sink = await store.create("a" * 32)
        assert isinstance(sink, RemoteSink)
        for frame in one.frames:
            await sink.write(frame)
            sink._end()
        await sink.commit(one.key, one.layout, None, 0)
        reader = await store.open(one.key)
        stream = reader.frames(1, 4)
        assert isinstance(stream, RemoteStream)
        for frame in one.frames[1:]:
            self.assertEqual(await stream.read(), frame)
            stream._drop()
        self.assertIsNone(await stream.read())


class OnAnotherClock(OverHttp):
    """The node's clock is ten minutes ahead of the caller's."""

    skew = 600.0


class OverTls(OverHttp):
    """The same with TLS between them."""

    def tls(self) -> CertificateOptions:
        return credentials()


class PackedOverHttp(OverHttp):
    """The node packs small contents into segments."""

    pack_limit = 1 << 20
