"""`/cluster/jobs/…` as an operator's tool sees it."""

from __future__ import annotations

import os
import time

from ostore.model.signing import Caller
from tests.web.serving import SECRET, Served


class JobTests(Served):
    """Runs asked for, and shown."""

    async def test_begin_and_look(self) -> None:
        """A signed POST is 202 with the run, and where it is shown to everybody."""
        answer = await self.signed("POST", "/cluster/jobs/orphans?dry_run=1")
        self.assertEqual(answer.status, 202)
        run = answer.json()
        self.assertEqual(answer.get("location"), f"/cluster/jobs/{run['id']}")
        expected = {"job": "orphans", "state": "running", "dry_run": True, "counts": {}}
        self.assertEqual({key: run[key] for key in expected}, expected)
        self.assertIsNone(run["ended"])
        self.assertRegex(run["started"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        shown = await self.ask("GET", f"/cluster/jobs/{run['id']}")
        self.assertEqual((shown.status, shown.json()), (200, run))
        self.assertFalse(
            (await self.signed("POST", "/cluster/jobs/garbage")).json()["dry_run"]
        )

    async def test_unsigned(self) -> None:
        """Without the cluster's signature nothing is begun, whoever asks."""
        answer = await self.ask("POST", "/cluster/jobs/orphans")
        self.assert_problem(answer, 401)
        self.assertEqual(answer.get("www-authenticate"), "OSTORE1")
        caller = Caller("test", SECRET[::-1], time.time, os.urandom)
        headers = caller.headers("", "POST", "test", "/cluster/jobs/orphans")
        answer = await self.ask("POST", "/cluster/jobs/orphans", headers)
        self.assert_problem(answer, 401)
        caller = Caller("test", SECRET, time.time, os.urandom)
        headers = caller.headers("", "POST", "test", "/cluster/jobs/orphans?dry_run=1")
        answer = await self.ask("POST", "/cluster/jobs/orphans", headers)
        self.assert_problem(answer, 401)
        self.assertEqual(self.store.jobs.records["orphans"].runs, ())

    async def test_once(self) -> None:
        """A request that was seen before is refused."""
        caller = Caller("test", SECRET, time.time, os.urandom)
        headers = caller.headers("", "POST", "test", "/cluster/jobs/orphans")
        for status in (202, 401):
            answer = await self.ask("POST", "/cluster/jobs/orphans", headers)
            self.assertEqual(answer.status, status)

    async def test_wrong_time(self) -> None:
        """A clock that is off is told the time."""
        caller = Caller("test", SECRET, lambda: time.time() - 3600, os.urandom)
        headers = caller.headers("", "POST", "test", "/cluster/jobs/orphans")
        answer = await self.ask("POST", "/cluster/jobs/orphans", headers)
        self.assert_problem(answer, 401)
        self.assertIn("wrong-time", answer.json()["type"])
        self.assertLess(abs(float(answer.get("x-ostore-now") or 0) - time.time()), 60)

    async def test_unknown(self) -> None:
        """Jobs and runs that there are not are 404, parameters that are none 400."""
        self.assert_problem(await self.signed("POST", "/cluster/jobs/nothing"), 404)
        self.assert_problem(await self.ask("GET", "/cluster/jobs/" + "0" * 32), 404)
        self.assert_problem(await self.ask("GET", "/cluster/jobs/%00"), 404)
        for odd in ("dry_run=yes", "dry_run=", "dry_run"):
            answer = await self.signed("POST", f"/cluster/jobs/orphans?{odd}")
            self.assert_problem(answer, 400)

    async def test_too_many_wait(self) -> None:
        """Ten runs of a job may wait; one more is refused."""
        for _ in range(10):
            answer = await self.signed("POST", "/cluster/jobs/orphans")
            self.assertEqual(answer.status, 202)
        answer = await self.signed("POST", "/cluster/jobs/orphans")
        self.assert_problem(answer, 409)


class NodeTests(Served):
    """Nodes that are to go."""

    async def test_drain(self) -> None:
        """A signed POST drains a node, or has it stay."""
        answer = await self.signed("POST", "/cluster/nodes/n/drain")
        self.assertEqual((answer.status, answer.json()["draining"]), (202, True))
        answer = await self.signed("POST", "/cluster/nodes/n/undrain")
        self.assertEqual((answer.status, answer.json()["draining"]), (202, False))
        self.assertEqual(self.store.drained, [True, False])

    async def test_refused(self) -> None:
        """Unsigned 401; other nodes and other orders 404."""
        answer = await self.ask("POST", "/cluster/nodes/n/drain")
        self.assert_problem(answer, 401)
        for target in ("m/drain", "n/kill", "n", "", "n/drain/"):
            answer = await self.signed("POST", f"/cluster/nodes/{target}")
            self.assert_problem(answer, 404)
        self.assertEqual(self.store.drained, [])


class AdoptTests(Served):
    """An older copy of the metadata."""

    async def test_adopt(self) -> None:
        """Signed, and said twice; otherwise nothing is done."""
        self.assert_problem(await self.ask("POST", "/cluster/adopt?force=1"), 401)
        self.assert_problem(await self.signed("POST", "/cluster/adopt"), 400)
        answer = await self.signed("POST", "/cluster/adopt?force=1")
        self.assertEqual((answer.status, answer.json()["epoch"]), (200, 7))
