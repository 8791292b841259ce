"""The audit reads segments by itself, and finds in them what a start finds."""

from __future__ import annotations

from pathlib import Path
from random import Random

from ostore.backends.shards.segments.form import STANDING
from ostore.engine.store import PutRequest
from ostore.streaming.tasks import start
from tests.simulator.audit import Audit
from tests.simulator.clients import Body
from tests.simulator.cluster import Cluster, NodeHost, Plan
from tests.simulator.contents import CONTENTS, HASHES, SMALL
from tests.simulator.test_seeds import Stories
from tests.simulator.world import World


class Segments(Stories):
    """One cluster whose nodes pack every small content."""

    def setUp(self) -> None:
        """Some contents are stored; one is in garbage on one node."""
        self.world = World(0)
        plan = Plan(search=True, packing=64_000)
        self.cluster = Cluster(self.world, plan, Path("unused"))
        self.cluster.start()
        self.audit = Audit(self.cluster)
        store = self.cluster.engines[0].store
        for content in SMALL:
            body = Body(self.world, CONTENTS[content], 0.0)
            putting = start(store.put(PutRequest("a"), body))
            self.world.timers.run(self.world.now + 5)
            self.successResultOf(putting)
        self.host = self.cluster.nodes[0]
        self.gone = next(self.host.disk.shards()).key
        self.addCleanup(self.cluster.stop)

        async def discard() -> bool:
            store = self.host.node.store
            return await store.discard(self.gone, await store.condemn(self.gone))

        discarding = start(discard())
        self.world.timers.run(self.world.now + 1)
        self.assertTrue(self.successResultOf(discarding))

    def known(self, host: NodeHost) -> list[tuple[str, int]]:
        """What the process at a node knows to stand there."""
        rows = host.node.store._log.rows.all()
        return sorted((r.key.hash, r.birth) for r in rows if r.kind in STANDING)

    def read(self, host: NodeHost) -> list[tuple[str, int]]:
        """What stands on its platter."""
        spots = host.disk.shards()
        return sorted((s.key.hash, s.row.birth) for s in spots if s.row is not None)

    def test_all_alike(self) -> None:
        """The platter says what the process knows, before a power cut and behind it."""
        for host in self.cluster.nodes:
            before = self.known(host)
            self.assertEqual(self.read(host), before)
            host.die()
            host.disk = self.cluster.cut(host.disk, Random(0))
            host.boot()
            self.world.timers.run(self.world.now + 1)
            self.assertEqual(self.known(host), before)
            self.assertEqual(self.read(host), before)

    def test_counted(self) -> None:
        """Each content has six right shards, but for the one that is in garbage."""
        kept = self.audit.platters()
        best = {hash: kept[hash].best() for hash in HASHES[: len(SMALL)]}
        self.assertEqual(best.pop(self.gone.hash), 5)
        self.assertEqual(set(best.values()), {6})

    def test_rot(self) -> None:
        """A record with a wrong byte is no right shard; those behind it are."""
        spot = next(self.host.disk.shards())
        self.host.disk.flip(spot.path, spot.offset)
        kept = self.audit.platters()
        best = {hash: kept[hash].best() for hash in HASHES[: len(SMALL)]}
        self.assertEqual(best.pop(self.gone.hash), 5)
        self.assertEqual(best.pop(spot.key.hash), 5)
        self.assertEqual(set(best.values()), {6})
