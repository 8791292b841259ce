"""What several processes count, added up."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from ostore.service.workers.summing import Page
from ostore.web.traffic import Traffic


def samples(page: Page) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and label values -> value, of a page as it is shown."""
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(page.text({}).decode())
        for sample in family.samples
    }


def process(requests: int, live: float, waiting: float = 0) -> Page:
    """What a process counts that has answered so many."""
    figures = {"ostore_nodes_live": live, "ostore_repairs_waiting": waiting}
    traffic = Traffic(lambda: figures)
    for number in range(requests):
        traffic.begin()
        traffic.end("GET", "/objects/{name}", 200, 0.002 * number, 10, 100)
    traffic.begin()
    return Page(traffic.text().decode())


class PageTests(SynchronousTestCase):
    """Pages of processes that share a port."""

    def test_sum(self) -> None:
        """Requests, their bytes and times and what waits add up; nodes do not."""
        page = Page()
        for each in (process(3, 6, 2), process(1, 5, 1), process(0, 6)):
            page.add(each)
        found = samples(page)
        labels = ("/objects/{name}", "2xx", "GET")
        self.assertEqual(found["ostore_http_requests_total", tuple(sorted(labels))], 4)
        self.assertEqual(found["ostore_http_sent_bytes_total", ()], 400)
        self.assertEqual(found["ostore_http_requests_in_flight", ()], 3)
        self.assertEqual(found["ostore_repairs_waiting", ()], 3)
        self.assertEqual(found["ostore_nodes_live", ()], 6)
        count = "ostore_http_request_duration_seconds_count"
        self.assertEqual(found[count, ("/objects/{name}", "GET")], 4)
        bucket = "ostore_http_request_duration_seconds_bucket"
        self.assertEqual(
            found[bucket, tuple(sorted(("/objects/{name}", "GET", "0.0025")))], 3
        )

    def test_alone(self) -> None:
        """The page of one process is shown as it was."""
        alone = process(2, 6, 1)
        again = Page(alone.text({}).decode())
        self.assertEqual(samples(alone), samples(again))

    def test_growing(self) -> None:
        """What a process leaves behind are counters and histograms, no gauges."""
        left = samples(process(2, 6, 5).growing())
        names = {name for name, _ in left}
        self.assertIn("ostore_http_requests_total", names)
        self.assertIn("ostore_http_request_duration_seconds_bucket", names)
        self.assertFalse({n for n in names if "waiting" in n or "flight" in n})

    def test_gauges_beside(self) -> None:
        """Gauges of the whole are shown too."""
        text = process(0, 6).text({"ostore_workers": 2}).decode()
        self.assertIn("\nostore_workers 2.0\n", text)
