"""Rebalance and drain: shards move while everything goes on."""

from __future__ import annotations

from typing import Any

from ostore.model.errors import NodeFull, NodeUnreachable, NotFound
from tests.support.engine import MIB, Rig, fails, sha256, some_bytes
from tests.support.maintenance import CLUSTER, MaintenanceCase

CONTENTS = [some_bytes(20_000 + number, number) for number in range(24)]
LARGE = some_bytes(3 * MIB + 9)


class MoveCase(MaintenanceCase):
    """Contents on six nodes, and more nodes when a test wants them."""

    def rise_with(self, nodes: int = 6, *, large: bool = True, **options: Any) -> None:
        """Start and store."""
        self.rise(nodes, **options)
        self.large = large
        for number, content in enumerate(CONTENTS):
            self.run_(self.put(content, f"{number}"))
        if large:
            self.run_(self.put(LARGE, "large"))

    def join(self, *numbers: int) -> list[Rig]:
        """More nodes."""
        rigs = []
        for number in numbers:
            rig = self.add_rig(number)
            self.run_(rig.node.adopt(CLUSTER, 1))
            rigs.append(rig)
        self.pass_(6)
        return rigs

    def used(self, rig: Rig) -> int:
        """Bytes of a node's shards."""
        return sum(len(rig.disk.content(p)) for p in rig.disk.tree("/data/objects"))

    def assert_all(self) -> None:
        """Everything is whole, each shard on another node, and reads right."""
        for number, content in enumerate(CONTENTS):
            self.assert_whole(content)
            self.assertEqual(self.run_(self.get(f"{number}")), content)
        if self.large:
            self.assert_whole(LARGE)
            self.assertEqual(self.run_(self.get("large")), LARGE)

    def at_least(self) -> None:
        """At every removal there are six shards and more outside garbage."""
        self.fewest = 99

        def look(key: Any, *_: object) -> None:
            there = sum(len(rig.shards(key.hash)) for rig in self.rigs)
            self.fewest = min(self.fewest, there)

        for rig in self.rigs:
            rig.rules["discard"] = look


class RebalanceTests(MoveCase):
    """Nodes that join."""

    def test_new_nodes_fill_up(self) -> None:
        """Two new nodes get their share; no more moves than 1.2 times what has to."""
        self.rise_with(large=False)
        self.join(7, 8)
        self.at_least()
        total = sum(map(self.used, self.rigs))
        run = self.job("rebalance")
        self.assertEqual(run.state, "done", run.why)
        counts = run.counts
        self.assertEqual((counts["moved"], counts["planned"]), (counts["planned"],) * 2)
        self.assertLess(counts["bytes"], 1.2 * total / 4)
        for rig in self.rigs:
            self.assertLess(abs(self.used(rig) - total / 8), total / 8 * 0.3)
        self.assertEqual(self.fewest, 7)
        self.assert_all()
        self.assertNotIn("moved", self.counts("rebalance"))

    def test_by_itself(self) -> None:
        """They fill up without being asked."""
        self.rise_with(planned=True, maintenance_interval=1e6)
        self.pass_(30)
        self.join(7)
        self.pass_(60)
        self.assertGreater(self.used(self.rigs[6]), 0)
        self.assert_all()

    def test_dry_run(self) -> None:
        """A dry run says how much would move."""
        self.rise_with()
        self.join(7)
        counts = self.counts("rebalance", dry_run=True)
        self.assertGreater(counts["planned_bytes"], 0)
        self.assertEqual(self.used(self.rigs[6]), 0)

    def test_target_fails(self) -> None:
        """What cannot be written elsewhere stays where it is, whole."""
        self.rise_with()
        (new,) = self.join(7)
        for step, error in (
            ("create", NodeFull("full")),
            ("sink.write", NodeUnreachable("broken")),
            ("sink.commit", NodeUnreachable("broken")),
            ("check", NodeUnreachable("broken")),
        ):
            new.rules.clear()
            new.rules[step] = fails(error)
            counts = self.counts("rebalance")
            self.assertNotIn("moved", counts, step)
            self.assertGreater(counts["stayed"], 0)
            for content in CONTENTS:
                self.assertGreaterEqual(self.standing(content), 6)
        new.rules.clear()
        self.counts("census")
        self.assert_all()

    def test_rotten_source(self) -> None:
        """A shard that turns out to be rotten on its way is mended, not spread."""
        self.rise_with()
        self.run_(self.engine.mending.start())
        for index in range(6):
            self.flip(LARGE, index, 300_000) if index == 2 else None
        self.join(7, 8)
        self.counts("rebalance")
        self.pass_(5)
        self.assert_all()

    def test_read_while_it_moves(self) -> None:
        """Reads and writes go on beside it."""
        self.rise_with()
        self.join(7, 8)
        run = self.ask("rebalance")
        for number, content in enumerate(CONTENTS):
            self.pass_(0.05)
            self.assertEqual(self.run_(self.get(f"{number}")), content)
            self.run_(self.put(content, f"again-{number}"))
        self.assertEqual(self.wait_for(run).state, "done")
        self.counts("census")
        self.assert_all()

    def test_a_node_is_away(self) -> None:
        """While a node may be back any moment, nothing moves."""
        self.rise_with(7)
        self.rigs[0].go()
        self.pass_(16)
        run = self.job("rebalance")
        self.assertEqual(run.state, "failed")
        self.assertIn("went away", run.why)


class DrainTests(MoveCase):
    """Nodes that are to go."""

    def test_drain(self) -> None:
        """A draining node gets nothing new and is empty in the end, under load."""
        self.rise_with(7, planned=True, maintenance_interval=1e6)
        self.pass_(30)
        going = self.holder(LARGE, 0)
        told = self.run_(self.store.drain(going.id, on=True))
        self.assertEqual((told["id"], told["draining"]), (going.id, True))
        self.at_least()
        self.pass_(2)
        shown = {each["id"]: each["state"] for each in self.store.view()["nodes"]}
        self.assertEqual(shown[going.id], "draining")
        self.run_(self.put(b"new", "new"))
        self.assertEqual(going.shards(sha256(b"new")), [])
        self.pass_(60)
        self.assertEqual(self.used(going), 0)
        self.assertGreaterEqual(self.fewest, 7)
        self.assertEqual(self.store.view()["moves"]["left_bytes"], 0)
        self.assert_all()

    def test_remembered(self) -> None:
        """A node remembers across a restart, and even when its root is made anew."""
        self.rise()
        rig = self.rigs[2]
        self.run_(self.store.drain(rig.id, on=True))
        self.assertIn("/data/draining", rig.disk.tree())
        rig.disk.delete("/data")
        self.pass_(2)
        self.assertEqual(rig.node.state, "draining")
        self.assertIn("/data/draining", rig.disk.tree())
        self.run_(rig.node.stop())
        self.run_(rig.node.start())
        self.assertEqual(rig.node.state, "draining")
        self.run_(self.store.drain(rig.id, on=False))
        self.assertEqual(rig.node.state, "up")
        self.assertNotIn("/data/draining", rig.disk.tree())

    def test_undrain(self) -> None:
        """A node that is kept after all fills up again."""
        self.rise_with(7)
        going = self.holder(LARGE, 0)
        self.run_(self.store.drain(going.id, on=True))
        self.pass_(6)
        self.counts("rebalance")
        self.assertEqual(self.used(going), 0)
        self.run_(self.store.drain(going.id, on=False))
        self.pass_(6)
        self.counts("rebalance")
        self.assertGreater(self.used(going), 0)
        self.assert_all()

    def test_nowhere_to_go(self) -> None:
        """With six nodes nothing is lost: what has no other place stays."""
        self.rise_with()
        self.run_(self.store.drain(self.rigs[1].id, on=True))
        self.pass_(6)
        self.assertNotIn("moved", self.counts("rebalance"))
        self.assert_all()

    def test_unknown(self) -> None:
        """A node that nobody knows cannot be drained."""
        self.rise()
        self.refused(NotFound, self.store.drain("0" * 32, on=True))
