"""The network between engines and nodes lies about nobody."""

from __future__ import annotations

from pathlib import Path

from ostore.model.errors import NodeUnreachable
from ostore.streaming.tasks import start
from tests.simulator.cluster import Cluster, Plan
from tests.simulator.contents import HASHES
from tests.simulator.remote import RemoteStore, Wire
from tests.simulator.test_seeds import Stories
from tests.simulator.world import Process, World


class Replaced(Stories):
    """A node on an empty disk is another node, at the place of the one before."""

    def test_asked_by_another_name(self) -> None:
        """It answers to its own name alone, as nodes do with 421."""
        world = World(0)
        cluster = Cluster(world, Plan(search=True), Path("unused"))
        cluster.start()
        host, process = cluster.nodes[0], Process(world, "a caller")
        before = host.id
        host.die()
        host.replace()
        host.boot()
        world.timers.run(world.now + 1)
        self.assertNotEqual(host.id, before)
        lost, found = (
            start(RemoteStore(Wire(cluster.net, process, node)).find(HASHES[0]))
            for node in (before, host.id)
        )
        world.timers.run(world.now + 1)
        self.failureResultOf(lost, NodeUnreachable)
        self.assertEqual(self.successResultOf(found).state, "none")
        cluster.stop()
