"""Scrub and census: what is missing, wrong or too much is found without any reader."""

from __future__ import annotations

from typing import Any

import attrs

from ostore.maintenance.scrub import LEAST
from ostore.model.errors import NodeUnreachable
from ostore.model.scrubbing import SLICES
from tests.support.engine import MIB, Rig, fails, sha256, some_bytes
from tests.support.maintenance import MaintenanceCase

SMALL, LARGE = some_bytes(5000), some_bytes(3 * MIB + 9)


class TendCase(MaintenanceCase):
    """A small and a large content; what is missing is mended."""

    def rise_with(self, nodes: int = 6, **options: Any) -> None:
        """Start, store, begin to mend."""
        self.rise(nodes, **options)
        self.run_(self.engine.mending.start())
        self.run_(self.put(SMALL, "small"))
        self.run_(self.put(LARGE, "large"))

    def assert_all_whole(self) -> None:
        """Both have six shards on six nodes."""
        self.pass_(3)
        self.assert_whole(SMALL)
        self.assert_whole(LARGE)
        self.assertEqual(self.run_(self.get("small")), SMALL)
        self.assertEqual(self.run_(self.get("large")), LARGE)

    def duplicate(self, content: bytes, index: int, onto: Rig) -> None:
        """Put a second copy of a shard on another node."""
        holder = self.holder(content, index)
        (path,) = holder.shards(sha256(content))
        onto.disk.make(path.rpartition("/")[0])
        onto.disk.put(path, holder.disk.content(path))
        onto.node.store.recount()
        self.pass_(1)


class ScrubTests(TendCase):
    """`scrub`, asked for."""

    def test_nothing_wrong(self) -> None:
        """Every shard is read once, whole contents are left alone."""
        self.rise_with()
        for rig in self.rigs:
            rig.calls.clear()
        counts = self.counts("scrub")
        size = sum(
            len(rig.disk.content(path))
            for rig in self.rigs
            for path in rig.disk.tree("/data/objects")
        )
        self.assertEqual(counts["contents"], 2)
        self.assertEqual((counts["shards"], counts["slices"]), (12, SLICES))
        self.assertLess(counts["bytes"], size)
        self.assertGreater(counts["bytes"], size * 0.95)
        self.assertEqual([rig.calls["check"] for rig in self.rigs], [2] * 6)
        self.assertEqual([rig.calls["open"] for rig in self.rigs], [0] * 6)
        for wrong in ("rotten", "missing", "surplus", "unreadable"):
            self.assertNotIn(wrong, counts)

    def test_lost_and_garbled(self) -> None:
        """A shard that was deleted and one that was overwritten are back."""
        self.rise_with()
        before = {i: rigs[0].id for i, rigs in self.holders(SMALL).items()}
        self.lose(SMALL, 0)
        rig = self.holder(SMALL, 1)
        (path,) = rig.shards(sha256(SMALL))
        rig.disk.put(path, b"some_garbage")
        counts = self.counts("scrub")
        self.assertEqual((counts["missing"], counts["left_4"]), (2, 1))
        self.assert_all_whole()
        after = {i: rigs[0].id for i, rigs in self.holders(SMALL).items()}
        self.assertEqual(before[1], after[1])

    def test_rot(self) -> None:
        """A flipped bit in the middle of a parity shard is found and mended."""
        self.rise_with()
        rig = self.flip(LARGE, 5, 300_000)
        counts = self.counts("scrub")
        self.assertEqual((counts["rotten"], counts["missing"]), (1, 1))
        self.assert_all_whole()
        self.assertIs(self.holder(LARGE, 5), rig)
        self.assertNotIn("rotten", self.counts("scrub"))

    def test_dry_run(self) -> None:
        """A dry run counts and mends nothing."""
        self.rise_with()
        self.lose(SMALL, 0)
        self.assertEqual(self.counts("scrub", dry_run=True)["missing"], 1)
        self.pass_(10)
        self.assertEqual(self.standing(SMALL), 5)

    def test_all_in_garbage(self) -> None:
        """A content of which nothing stands comes back from garbage."""
        self.rise_with()
        for rig in self.rigs:
            for facts in self.run_(rig.node.store.list("", 100)):
                token = self.run_(rig.node.store.condemn(facts.key))
                self.run_(rig.node.store.discard(facts.key, token))
        counts = self.counts("scrub")
        self.assertEqual(counts["unreadable"], 2)
        self.assert_all_whole()

    def test_duplicates(self) -> None:
        """Of seven copies six stay, after they were read; the seventh is in garbage."""
        self.rise_with(7)
        (idle,) = (rig for rig in self.rigs if not rig.shards(sha256(LARGE)))
        self.duplicate(LARGE, 2, idle)
        counts = self.counts("scrub")
        self.assertEqual((counts["surplus"], counts["removed"]), (1, 1))
        self.assert_all_whole()
        self.assertEqual(len(self.in_garbage(LARGE)), 1)

    def test_duplicate_of_a_rotten_one(self) -> None:
        """The one that is right stays, whoever is preferred."""
        for rotten in (0, 1):
            self.setUp()
            self.rise_with(7)
            (idle,) = (rig for rig in self.rigs if not rig.shards(sha256(LARGE)))
            first = self.holder(LARGE, 2)
            self.duplicate(LARGE, 2, idle)
            (path,) = idle.shards(sha256(LARGE))
            (idle, first)[rotten].disk.flip(path, 300_000)
            self.counts("scrub")
            self.assert_all_whole()
            self.assertIs(self.holder(LARGE, 2), (first, idle)[rotten])
            self.fall()

    def test_keeper_rots_meanwhile(self) -> None:
        """Nothing goes when one that is to stay turns out to be rotten."""
        self.rise_with(7)
        (idle,) = (rig for rig in self.rigs if not rig.shards(sha256(LARGE)))
        self.duplicate(LARGE, 2, idle)

        def rot(*_: object) -> None:
            for rig in self.rigs:
                rig.rules.clear()
            self.flip(LARGE, 0, 300_000)

        for rig in self.rigs:
            rig.rules["condemn"] = rot
        self.assertNotIn("removed", self.counts("census"))
        self.assertEqual(self.standing(LARGE), 7)
        self.pass_(3)
        self.counts("scrub")
        self.counts("scrub")
        self.assert_all_whole()

    def test_not_needed(self) -> None:
        """What no version refers to is neither read nor mended."""
        self.rise_with()
        self.purge("large")
        self.lose(LARGE, 0)
        self.assertEqual(self.counts("scrub")["contents"], 1)
        self.pass_(10)
        self.assertEqual(self.standing(LARGE), 5)

    def test_a_node_cannot_list(self) -> None:
        """Nothing is decided while a node cannot say what it has; the run fails."""
        self.rise_with(7)
        self.rigs[0].rules["list"] = fails(NodeUnreachable("counting"))
        run = self.job("scrub")
        self.assertEqual(run.state, "failed")
        self.assertIn(self.rigs[0].id, run.why)
        self.assertEqual(len(self.engine.repairs), 0)
        self.assertEqual(self.engine.mending.mended, 0)

    def test_taken_over(self) -> None:
        """A run that is taken over goes on with the slices that are left."""
        self.rise_with()
        run = self.ask("scrub")
        self.run_(self.engine.jobs.save(run))
        run = self.find(run)
        half = self.run_(
            self.engine.jobs.change(
                "scrub", lambda r: r.with_run(_evolve(run, cursor=[[250, 255]]))
            )
        )
        self.assertEqual(half.running[0].cursor, [[250, 255]])
        self.assertEqual(self.wait_for(run).counts["slices"], 6)


def _evolve(run: Any, **changes: Any) -> Any:
    return attrs.evolve(run, **changes)


class PeriodTests(TendCase):
    """`scrub` by plan."""

    def test_once_in_a_period(self) -> None:
        """Every shard is read once in each period, no more than half more often."""
        self.rise_with(planned=True, scrub_period=600.0)
        self.pass_(650)
        for rig in self.rigs:
            rig.calls.clear()
        self.pass_(1800)
        for rig in self.rigs:
            self.assertIn(rig.calls["check"], range(6, 10))
        oldest = self.store.figures()["ostore_scrub_oldest_seconds"]
        self.assertLess(oldest, 700)
        self.assertGreater(oldest, 300)

    def test_shortest(self) -> None:
        """With a period of a second everything is read about once a second."""
        self.rise_with(planned=True, scrub_period=1.0)
        self.pass_(20)
        self.assertLess(self.store.figures()["ostore_scrub_oldest_seconds"], 5)
        self.assertGreater(self.rigs[0].calls["check"], 12)
        self.assertGreaterEqual(LEAST, 1.0)

    def test_found_without_a_reader(self) -> None:
        """Rot is gone within a period, though nobody reads."""
        self.rise_with(planned=True, scrub_period=100.0)
        self.flip(LARGE, 4, 200_000)
        self.lose(SMALL, 3)
        self.pass_(150)
        self.assert_all_whole()


class CensusTests(TendCase):
    """`census`: membership and duplicates."""

    def test_lost_node(self) -> None:
        """After the delay a lost node's contents are rebuilt elsewhere, unasked."""
        self.rise_with(7, planned=True, rebuild_delay=100.0, maintenance_interval=1e6)
        gone = self.holder(LARGE, 0)
        gone.go()
        gone.rules["list"] = fails(NodeUnreachable("gone"))
        self.pass_(90)
        self.assertEqual(self.engine.mending.mended, 0)
        self.pass_(60)
        for content in (SMALL, LARGE):
            rigs = [r for rigs in self.holders(content).values() for r in rigs]
            live = {rig.id for rig in rigs if rig is not gone}
            self.assertEqual(len(live), 6)

    def test_it_comes_back_in_time(self) -> None:
        """A node that is back before the delay has cost nothing."""
        self.rise_with(7, planned=True, rebuild_delay=100.0, maintenance_interval=1e6)
        gone = self.holder(LARGE, 0)
        gone.go()
        gone.rules["list"] = fails(NodeUnreachable("gone"))
        self.pass_(60)
        gone.come_back()
        self.pass_(200)
        self.assertEqual(self.engine.mending.mended, 0)
        self.assert_all_whole()

    def test_it_comes_back_late(self) -> None:
        """A node that is back after the rebuild does not leave seven copies."""
        self.rise_with(7, planned=True, rebuild_delay=100.0, maintenance_interval=1e6)
        gone = self.holder(LARGE, 0)
        gone.go()
        gone.rules["list"] = fails(NodeUnreachable("gone"))
        self.pass_(200)
        self.assertEqual(self.standing(LARGE), 7)
        gone.come_back()
        self.pass_(60)
        self.assert_all_whole()
        self.assertGreater(len(self.in_garbage(LARGE)), 0)

    def test_emptied_node(self) -> None:
        """A node whose folder was deleted is filled again, unasked."""
        self.rise_with(planned=True, rebuild_delay=100.0, maintenance_interval=1e6)
        self.pass_(30)
        self.rigs[2].disk.delete("/data")
        self.pass_(30)
        self.assert_all_whole()

    def test_worst_first(self) -> None:
        """Contents with fewer shards left are mended before the others."""
        self.rise_with()
        self.run_(self.engine.mending.stop())
        self.lose(SMALL, 0)
        self.lose(LARGE, 1, 2)
        self.counts("census")
        figures = self.store.figures()
        self.assertEqual(figures["ostore_repairs_left_4"], 1)
        self.assertEqual(figures["ostore_repairs_left_5"], 1)
        taken = self.engine.repairs.take(1e9, 2)
        self.assertEqual([repair.left for repair in taken], [4, 5])

    def test_repair_off(self) -> None:
        """With nobody who mends, a census counts and ends."""
        self.rise()
        self.run_(self.put(SMALL, "small"))
        self.lose(SMALL, 0)
        self.assertEqual(self.counts("census")["missing"], 1)
        self.assertEqual(self.standing(SMALL), 5)

    def test_two_layouts(self) -> None:
        """Shards of another generation go once one is whole."""
        self.rise_with()
        hash = sha256(SMALL)
        other = [
            facts
            for rig in self.rigs
            for facts in self.run_(rig.node.store.list("", 100))
            if facts.hash == hash
        ]
        self.assertEqual(len({facts.layout.id for facts in other}), 1)
        self.engine.putting.writing.coding = _evolve(
            self.engine.putting.writing.coding, compress=False
        )
        text = b"the same line again and again\n" * 4000
        self.run_(self.put(text, "text"))
        before = self.holders(text)
        self.engine.putting.writing.coding = _evolve(
            self.engine.putting.writing.coding, compress=True
        )
        self.engine.cluster.places.forget(sha256(text))
        for rig in self.rigs:
            rig.rules["find"] = fails(NodeUnreachable("cannot say"))
        self.run_(self.put(text, "text"))
        for rig in self.rigs:
            rig.come_back()
        self.pass_(6)
        self.assertEqual(self.standing(text), 12)
        counts = self.counts("census")
        self.assertEqual((counts["surplus"], counts["removed"]), (6, 6))
        self.assertEqual(sorted(self.holders(text)), sorted(before))
        self.assert_whole(text)
        self.assertEqual(self.run_(self.get("text")), text)
