"""Orphans: what moves to garbage, what never does, and who comes between."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from ostore.engine.referring import PutRequest
from ostore.model.errors import MetadataUnavailable, NodeUnreachable
from ostore.model.layouts import ShardKey
from tests.support.engine import MIB, fails, sha256, some_bytes
from tests.support.maintenance import MaintenanceCase

SMALL, LARGE, OTHER = some_bytes(5000), some_bytes(2 * MIB + 9), some_bytes(777, 2)


class CollectTests(MaintenanceCase):
    """One run after the other."""

    def rise_with(self, **options: Any) -> None:
        """Two contents without a version, one with."""
        self.rise(**options)
        self.run_(self.put(SMALL, "small"))
        self.run_(self.put(LARGE, "large"))
        self.run_(self.put(OTHER, "other"))
        self.purge("small")
        self.purge("large")

    def test_moves(self) -> None:
        """What no version names moves to garbage, all of it and nothing else."""
        self.rise_with()
        self.pass_(25)
        counts = self.counts("orphans")
        self.assertEqual(counts["collected"], 2)
        self.assertEqual(counts["shards"], 12)
        self.assertGreater(counts["bytes"], 3 * MIB)
        self.assertEqual((counts["contents"], counts["orphans"]), (3, 2))
        for content in (SMALL, LARGE):
            self.assertEqual(self.standing(content), 0)
            self.assertEqual(len(self.in_garbage(content)), 6)
        self.assert_whole(OTHER)
        self.assertEqual(self.run_(self.get("other")), OTHER)
        self.assertEqual(self.counts("orphans").get("orphans", 0), 0)

    def test_grace(self) -> None:
        """What is younger than the grace stays."""
        self.rise_with(orphan_grace=500.0)
        self.pass_(25)
        self.assertEqual(self.counts("orphans"), {"contents": 3})
        self.assertEqual(self.standing(SMALL), 6)

    def test_dry_run(self) -> None:
        """A dry run says what would go, and moves nothing."""
        self.rise_with()
        self.pass_(25)
        counts = self.counts("orphans", dry_run=True)
        self.assertEqual(counts, {"contents": 3, "orphans": 2})
        self.assertEqual(self.standing(SMALL) + self.standing(LARGE), 12)

    def test_known_for_the_grace(self) -> None:
        """What is old by the wall clock alone is first watched for a while."""
        self.rise_with()
        self.pass_(25)
        run = self.ask("orphans")
        self.pass_(15)
        self.assertEqual(self.find(run).state, "running")
        self.assertEqual(self.standing(SMALL), 6)
        self.assertEqual(self.wait_for(run).counts["collected"], 2)

    def test_dedup_hit_during_the_wait(self) -> None:
        """A PUT of a content that a run is about to move keeps it."""
        self.rise_with()
        self.pass_(25)
        run = self.ask("orphans")
        self.pass_(15)
        self.run_(self.put(SMALL, "again"))
        self.assertEqual(self.wait_for(run).counts["collected"], 1)
        self.assert_whole(SMALL)
        self.assertEqual(self.in_garbage(SMALL), [])
        self.assertEqual(self.run_(self.get("again")), SMALL)

    def test_instant_upload_during_the_wait(self) -> None:
        """A version without a body does as well."""
        self.rise_with()
        self.pass_(25)
        run = self.ask("orphans")
        self.pass_(15)
        request = PutRequest("again", digest=sha256(LARGE), size=len(LARGE))
        self.assertIsNotNone(self.run_(self.store.instant(request)))
        self.assertEqual(self.wait_for(run).counts["collected"], 1)
        self.assert_whole(LARGE)
        self.assertEqual(self.run_(self.get("again")), LARGE)

    def test_upload_in_flight(self) -> None:
        """Shards whose version is not yet written are young, and stay."""
        self.rise()
        held: Deferred[None] = Deferred()
        self.metadata.rules["add_version"] = lambda *_: held
        putting = self.begin(self.put(SMALL, "slow"))
        self.pass_(5)
        self.assertEqual(self.standing(SMALL), 6)
        self.assertEqual(self.counts("orphans"), {"contents": 1})
        held.callback(None)
        self.finish(putting)
        self.assert_whole(SMALL)

    def test_upload_that_takes_longer_than_the_grace(self) -> None:
        """A version whose writing took ages has its shards all the same."""
        self.rise()
        held: Deferred[None] = Deferred()
        self.metadata.rules["add_version"] = lambda *_: held
        putting = self.begin(self.put(SMALL, "slow"))
        self.pass_(25)
        self.counts("orphans")
        self.assertEqual(len(self.in_garbage(SMALL)), 6)
        held.callback(None)
        self.finish(putting)
        self.assert_whole(SMALL)
        self.assertEqual(self.in_garbage(SMALL), [])

    def test_a_node_is_away(self) -> None:
        """The others are collected; the node's shards go when it is back."""
        self.rise_with()
        self.pass_(25)
        self.rigs[0].rules["list"] = fails(NodeUnreachable("away"))
        counts = self.counts("orphans")
        self.assertEqual(counts["unlisted_nodes"], 1)
        self.assertEqual((self.standing(SMALL), self.standing(LARGE)), (1, 1))
        self.rigs[0].rules.clear()
        self.counts("orphans")
        self.assertEqual((self.standing(SMALL), self.standing(LARGE)), (0, 0))

    def test_metadata_away_at_the_move(self) -> None:
        """Without an answer from the metadata nothing is moved."""
        self.rise_with()
        self.pass_(25)
        self.metadata.rules["content"] = fails(MetadataUnavailable("away"))
        run = self.job("orphans")
        self.assertEqual(run.state, "failed")
        self.assertIn("away", run.why)
        self.assertEqual(self.standing(SMALL) + self.standing(LARGE), 12)

    def test_another_epoch(self) -> None:
        """A node that was told a higher epoch refuses to let anything go."""
        self.rise_with()
        self.pass_(25)
        for rig in self.rigs:
            rig.rules["condemn"] = self._raise_epoch(rig)
        run = self.job("orphans")
        self.assertEqual(run.counts["collected"], 0)
        self.assertEqual(self.standing(SMALL) + self.standing(LARGE), 12)

    def _raise_epoch(self, rig: Any) -> Any:
        async def rule(*_: object) -> None:
            await rig.node.adopt("c" * 32, 1000)

        return rule


class RaceTests(MaintenanceCase):
    """PUTs of a content while it is being collected."""

    def test_two_hundred(self) -> None:
        """Of 200 PUTs that race with its collection none loses its content."""
        self.rise()
        rng, contents = Random(5), (SMALL, LARGE)
        self.run_(self.put(SMALL, "first"))
        self.run_(self.put(LARGE, "second"))
        self.purge("first")
        self.purge("second")
        moved = 0
        for turn in range(20):
            content = contents[turn % 2]
            self.pass_(25)
            collecting = self._collect(content)
            for rig in self.rigs:
                rig.workers.delay = rng.choice((0.0, 0.001, 0.004, 0.02))
            spread = rng.choice((0.02, 0.1, 0.5))
            names = [f"{turn}-{number}" for number in range(10)]
            begun = [self._later(rng.random() * spread, content, n) for n in names]
            running = self.begin(collecting)
            versions = [self.finish(each) for each in begun]
            moved += self.finish(running)
            for rig in self.rigs:
                rig.workers.delay = 0.0
            self.assertEqual([v.hash for v in versions], [sha256(content)] * 10)
            self.assertGreaterEqual(self.standing(content), 6)
            for name in names:
                self.assertEqual(self.run_(self.get(name)), content)
                self.purge(name)
            self.pass_(1)
        self.assertGreater(moved, 20)

    def _later(self, seconds: float, content: bytes, name: str) -> Deferred[Any]:
        async def work() -> Any:
            await self.clock.sleep(seconds)
            return await self.put(content, name)

        return self.begin(work())

    def _collect(self, content: bytes) -> Coroutine[Any, Any, int]:
        """The very step that a run takes; gives the shards moved."""
        facts = [
            (rig.id, shard)
            for rig in self.rigs
            for shard in self.run_(rig.node.store.list("", 1000))
            if shard.hash == sha256(content) and shard.state == "whole"
        ]
        known = self.run_(self.metadata.cluster())
        hands = self.engine.hands

        async def collect() -> int:
            return (await hands.collect(sha256(content), facts, 20.0, known.epoch)).gone

        return collect()

    def test_condemned_and_renewed(self) -> None:
        """Between the question and the move a renewal wins."""
        self.rise()
        self.run_(self.put(SMALL, "name"))
        self.purge()
        self.pass_(25)

        async def meanwhile(key: ShardKey, *_: object) -> None:
            del self.rigs[0].rules["discard"]
            await self.put(SMALL, "again")

        self.rigs[0].rules["discard"] = meanwhile
        self.assertEqual(self.job("orphans").state, "done")
        self.assert_whole(SMALL)
        self.assertEqual(self.run_(self.get("again")), SMALL)
