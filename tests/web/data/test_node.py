"""The node itself over HTTP, and what is open to all."""

from __future__ import annotations

import time

from prometheus_client.parser import text_string_to_metric_families

from tests.contracts.shards import put, sample
from tests.web.data.serving import ServedNode, shard_target

ONE = sample(1, 2500)


class NodeTests(ServedNode):
    """`/node` and `/cluster-id`."""

    async def test_view(self) -> None:
        """Everything the node knows of itself."""
        await put(self.node.store, ONE)
        answer = await self.ask("GET", "/node")
        self.assertEqual(answer.status, 200)
        shown = answer.json()
        self.assertLess(abs(shown.pop("now") - time.time()), 60)
        boot, space = self.node.boot, self.node.space
        expected = {
            "id": self.node.node_id,
            "boot": f"{boot.counter}-{boot.random}",
            "state": "up",
            "reason": "",
            "free": space.free,
            "total": space.total,
            "shards": 1,
            "cluster": "",
            "epoch": 0,
        }
        self.assertEqual(shown, expected)

    async def test_joins(self) -> None:
        """A node without shards joins a cluster; its epoch then only grows."""
        for query, status in (
            ("id=ours&epoch=3", 204),
            ("id=ours&epoch=3", 204),
            ("id=theirs&epoch=9", 409),
            ("id=ours&epoch=2", 409),
            ("id=ours&epoch=4", 204),
        ):
            answer = await self.ask("POST", f"/cluster-id?{query}")
            self.assertEqual(answer.status, status, answer.body)
        self.assertEqual((self.node.cluster, self.node.epoch), ("ours", 4))
        shown = (await self.ask("GET", "/node")).json()
        self.assertEqual((shown["cluster"], shown["epoch"]), ("ours", 4))

    async def test_does_not_join_with_shards(self) -> None:
        """A node that holds shards of no cluster joins none."""
        await put(self.node.store, ONE)
        answer = await self.ask("POST", "/cluster-id?id=ours&epoch=1")
        self.assert_problem(answer, 409, "node-refused")
        self.assertEqual(self.node.cluster, "")


class OpenTests(ServedNode):
    """What needs no signature."""

    async def test_health(self) -> None:
        """Live always; ready unless nothing can be written or read."""
        host = [("Host", "anything")]
        for target in ("/health/live", "/health/ready", "/metrics"):
            self.assertEqual((await self.send("GET", target, host)).status, 200)
        self.node._root.full = True
        self.assertEqual((await self.send("GET", "/health/ready", host)).status, 200)
        self.node._root.readonly = "the storage root's device is gone"
        answer = await self.send("GET", "/health/ready", host)
        detail = self.assert_problem(answer, 503, "not-ready")
        self.assertEqual(detail, "the storage root's device is gone")
        self.assertEqual((await self.send("GET", "/health/live", host)).status, 200)
        self.assertEqual(self.guard.refused, 0)

    async def test_metrics(self) -> None:
        """The traffic, and the figures of the node."""
        await put(self.node.store, ONE)
        await self.create()
        await self.ask("GET", shard_target(ONE))
        await self.send("GET", shard_target(ONE), [("Host", self.host)])
        await self.ask("GET", "/objects/..")
        answer = await self.send("GET", "/metrics", [("Host", self.host)])
        found = {}
        for family in text_string_to_metric_families(answer.body.decode()):
            for each in family.samples:
                labels = ",".join(sorted(each.labels.values()))
                found[f"{each.name}[{labels}]"] = each.value
        space = self.node.space
        expected = {
            "ostore_shards[]": 1,
            "ostore_temporaries[]": 1,
            "ostore_free_bytes[]": space.free,
            "ostore_total_bytes[]": space.total,
            "ostore_lost_shards_total[]": 0,
            "ostore_rotten_shards_total[]": 0,
            "ostore_strange_files[]": 0,
            "ostore_refused_signatures_total[]": 1,
            "ostore_http_requests_total[/temp/{uuid},2xx,POST]": 1,
            "ostore_http_requests_total[/objects/{hash}.{i},2xx,GET]": 1,
            "ostore_http_requests_total[/objects/{hash}.{i},4xx,GET]": 1,
            "ostore_http_requests_total[4xx,GET,unknown]": 1,
        }
        self.assertEqual({name: found.get(name) for name in expected}, expected)

    async def test_access_log(self) -> None:
        """One line a request, its target in printable ASCII."""
        await self.ask("GET", "/node")
        await self.ask("GET", "/temp/x%0aINFO%20forged")
        self.assertEqual([line["status"] for line in self.lines], [200, 400])
        self.assertEqual(self.lines[0]["target"], "/node")
        self.assertNotIn("\n", str(self.lines[1]["target"]))
