"""`/health/*` and `/metrics` as a client sees them."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from ostore.web.traffic import Traffic
from tests.web.serving import Served


class HealthTests(Served):
    """Live and ready."""

    async def test_live(self) -> None:
        """A process that answers is live, ready or not."""
        self.store.not_ready = ["nodes: 3 can take shards, a write needs 5"]
        self.assertEqual((await self.ask("GET", "/health/live")).status, 200)
        self.assertEqual((await self.ask("HEAD", "/health/live")).status, 200)

    async def test_ready(self) -> None:
        """200 when there is nothing in the way."""
        answer = await self.ask("GET", "/health/ready")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json(), {"ready": True, "reasons": []})

    async def test_not_ready(self) -> None:
        """503 with every reason."""
        self.store.not_ready = ["metadata: away", "nodes: 3 of 5"]
        answer = await self.ask("GET", "/health/ready")
        self.assertEqual(
            self.assert_problem(answer, 503), "metadata: away; nodes: 3 of 5"
        )
        self.assertEqual(answer.json()["reasons"], self.store.not_ready)
        self.assertFalse(answer.json()["ready"])
        self.assertEqual(answer.get("retry-after"), "1")


class MetricsTests(Served):
    """`GET /metrics`."""

    async def values(self) -> dict[str, float]:
        """Every sample, its labels in the name."""
        answer = await self.ask("GET", "/metrics")
        self.assertEqual(answer.status, 200)
        content_type = answer.get("content-type")
        self.assertEqual(content_type, "text/plain; version=0.0.4; charset=utf-8")
        found = {}
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                labels = ",".join(sorted(sample.labels.values()))
                found[f"{sample.name}[{labels}]"] = sample.value
        return found

    async def test_counts(self) -> None:
        """Requests count by method, route and class of status; bytes both ways."""
        for name in ("a", "b"):
            await self.ask("PUT", f"/objects/{name}", body=b"12345")
        await self.ask("GET", "/objects/a")
        await self.ask("GET", "/objects/missing")
        await self.ask("GET", "/somewhere/else")
        await self.ask("BREW", "/objects/a")
        values = await self.values()
        count = "ostore_http_requests_total"
        self.assertEqual(values[f"{count}[/objects/{{name}},2xx,PUT]"], 2)
        self.assertEqual(values[f"{count}[/objects/{{name}},2xx,GET]"], 1)
        self.assertEqual(values[f"{count}[/objects/{{name}},4xx,GET]"], 1)
        self.assertEqual(values[f"{count}[4xx,GET,unknown]"], 1)
        self.assertEqual(values[f"{count}[/objects/{{name}},4xx,other]"], 1)
        self.assertEqual(values["ostore_http_received_bytes_total[]"], 10)
        self.assertGreater(values["ostore_http_sent_bytes_total[]"], 5)
        self.assertEqual(values["ostore_http_requests_in_flight[]"], 1)
        took = "ostore_http_request_duration_seconds_count[/objects/{name},PUT]"
        self.assertEqual(values[took], 2)

    async def test_figures(self) -> None:
        """The store's figures are among them, counters by their ending."""
        values = await self.values()
        self.assertEqual(values["ostore_nodes_up[]"], 6)
        self.assertEqual(values["ostore_repairs_total[]"], 3)
        body = (await self.ask("GET", "/metrics")).body.decode()
        self.assertIn("# TYPE ostore_nodes_up gauge", body)
        self.assertIn("# TYPE ostore_repairs_total counter", body)

    async def test_names_stay_out(self) -> None:
        """No object's name becomes a label."""
        await self.ask("PUT", "/objects/very-private", body=b"x")
        await self.ask("GET", "/versions/very-private")
        body = (await self.ask("GET", "/metrics")).body
        self.assertNotIn(b"very-private", body)

    async def test_cut_request(self) -> None:
        """A client that is gone before any answer counts as `none`."""
        connection = await self.connected()
        connection.ask("PUT", "/objects/a", [("Content-Length", "10")])
        await self.until(lambda: bool(self.store.puts))
        await connection.close()
        await self.until(lambda: bool(self.lines))
        values = await self.values()
        cut = "ostore_http_requests_total[/objects/{name},PUT,none]"
        self.assertEqual(values[cut], 1)

    def test_no_shared_state(self) -> None:
        """Two services in one process count apart."""
        one, other = Traffic(dict), Traffic(dict)
        one.begin()
        one.end("GET", "/cluster", 200, 0.1, 0, 10)
        pattern = rb'ostore_http_requests_total\{[^}]*"/cluster"[^}]*\} 1\.0'
        self.assertTrue(re.search(pattern, one.text()))
        self.assertFalse(re.search(pattern, other.text()))
