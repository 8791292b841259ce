"""Maintenance of data services over HTTP: the same orders, on real sockets and folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ostore.maintenance.pace import Foreground, Pace
from ostore.maintenance.runner import Runner
from ostore.model.runs import RUNNING, Run
from ostore.model.versions import ClusterFacts
from ostore.service.facing import RATES, jobs_of
from tests.engine.test_over_http import HttpCase
from tests.support.engine import MIB, sha256, some_bytes
from tests.support.nodes import REAL

CLUSTER = "c" * 32
SMALL, LARGE = some_bytes(5000), some_bytes(2 * MIB + 17)
TURNS = 6000
"""Looks, 10 ms apart, after which what does not happen never will."""


class MaintenanceOverHttp(HttpCase):
    """Orphans, garbage, scrub, drain."""

    async def rise_with(self, services: int = 6) -> None:
        """Services of a cluster, a runner, two contents."""
        await self.rise(services, orphan_grace=1.0, garbage_expiry=1.0)
        await self.metadata.create_cluster(ClusterFacts(CLUSTER, 1))
        for each in self.services:
            await each.node.adopt(CLUSTER, 1)
            await each.member._announcer.announce()
        self.runner = Runner(
            jobs_of(self.settings, self.engine, self.metadata),
            self.engine.jobs,
            self.engine.hands,
            self.metadata,
            Pace(REAL, Foreground(REAL), *RATES),
            REAL,
            os.urandom,
            planned=False,
        )
        self.addCleanup(self.runner.stop)
        await self.engine.mending.start()
        self.addCleanup(self.engine.mending.stop)
        await self.put(SMALL, "small")
        await self.put(LARGE, "large")

    async def job(self, name: str, *, dry_run: bool = False) -> Run:
        """One run from begin to end."""
        run = await self.engine.jobs.ask(name, dry_run=dry_run, force=False)
        for _ in range(TURNS):
            await self.runner.turn()
            await REAL.sleep(0.01)
            found = await self.engine.jobs.find(run.id)
            if found.state != RUNNING:
                self.assertEqual(found.state, "done", found.why)
                return found
        return self.fail(f"{name} does not end")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        for _ in range(TURNS):
            if holds():
                return
            await REAL.sleep(0.01)
        self.fail("what was waited for did not happen")

    def files(self, folder: str, content: bytes) -> list[Path]:
        """All files of a content in that folder of every node."""
        roots = [Path(each.node._root.paths.root) for each in self.services]
        name = f"{sha256(content)}.*"
        return [
            path
            for root in roots
            for path in root.rglob(name)
            if path.relative_to(root).parts[0] == folder
        ]

    async def test_orphans_and_garbage(self) -> None:
        """What no version names moves to garbage, and is gone in the end."""
        await self.rise_with()
        await self.store.purge("large", 1)
        await REAL.sleep(1.2)
        self.assertEqual((await self.job("orphans")).counts["shards"], 6)
        self.assertEqual(len(self.files("garbage", LARGE)), 6)
        self.assertEqual(len(self.files("objects", SMALL)), 6)
        known = await self.metadata.cluster()
        assert known is not None
        self.assertEqual({s.node.epoch for s in self.services}, {known.epoch})
        await REAL.sleep(1.2)
        self.assertEqual((await self.job("garbage")).counts["shards"], 6)
        self.assertEqual(self.files("garbage", LARGE), [])
        self.assertEqual(await self.get("small"), SMALL)

    async def test_scrub(self) -> None:
        """What is rotten or gone is found and put back."""
        await self.rise_with()
        rotten, lost = self.files("objects", LARGE)[:2]
        right = rotten.read_bytes(), lost.read_bytes()
        data = bytearray(right[0])
        data[len(data) // 2] ^= 1
        rotten.write_bytes(data)
        lost.unlink()
        counts = (await self.job("scrub")).counts
        self.assertEqual((counts["rotten"], counts["missing"]), (1, 2))
        await self.until(
            lambda: lost.exists() and (rotten.read_bytes(), lost.read_bytes()) == right
        )
        self.assertEqual((await self.job("scrub")).counts.get("missing", 0), 0)

    async def test_uploads(self) -> None:
        """Every node is told to sweep, or to count what it would remove."""
        await self.rise_with()
        store = self.services[0].node.store
        await store.uploads.begin("1" * 32, "{}", -1.0)
        dry = (await self.job("uploads", dry_run=True)).counts
        self.assertEqual((dry["nodes"], dry["expired"], len(store.uploads)), (6, 1, 1))
        counts = (await self.job("uploads")).counts
        self.assertEqual((counts["nodes"], counts["removed"]), (6, 1))
        self.assertEqual(len(store.uploads), 0)

    async def test_drain(self) -> None:
        """A node that drains is emptied; everything reads as before."""
        await self.rise_with(7)
        going = next(s for s in self.services if len(s.node.store))
        await self.store.drain(going.node.node_id, on=True)
        await going.member._announcer.announce()
        cluster = self.engine.cluster
        await self.until(lambda: "draining" in cluster.states().values())
        await self.job("rebalance")
        self.assertEqual(len(going.node.store), 0)
        self.assertEqual((await self.held(SMALL), await self.held(LARGE)), (6, 6))
        self.assertEqual(await self.get("small"), SMALL)
        self.assertEqual(await self.get("large"), LARGE)
