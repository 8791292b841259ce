"""What the requests of one service add up to, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
"""Methods that get a label of their own; clients invent no others."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Traffic:
    """Counts requests of one service in a registry of its own.

    The router calls `begin` and `end` once a request; `text` is what /metrics shows.
    `figures` gives names and values of the store behind; those that end in `_total`
    are counters, the others gauges.
    """

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ostore_http_requests",
            "Requests answered, or cut while they were.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "ostore_http_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._received = Counter(
            "ostore_http_received_bytes",
            "Bytes of request bodies.",
            registry=registry,
        )
        self._sent = Counter(
            "ostore_http_sent_bytes",
            "Bytes of answer bodies.",
            registry=registry,
        )
        self._counters: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._in_flight = Gauge(
            "ostore_http_requests_in_flight",
            "Requests that are being answered.",
            registry=registry,
        )
        registry.register(_Figures(figures))
        ProcessCollector(registry=registry)

    def begin(self) -> None:
        """A request came."""
        self._in_flight.inc()

    def end(
        self,
        method: str,
        route: str,
        status: int | None,
        seconds: float,
        received: int,
        sent: int,
    ) -> None:
        """It was answered; `status` None: the client was gone before any answer."""
        label = method if method in METHODS else "other"
        outcome = "none" if status is None else f"{status // 100}xx"
        self._in_flight.dec()
        counters = self._counters.get((label, route, outcome))
        if counters is None:
            counters = self._counters[label, route, outcome] = (
                self._requests.labels(label, route, outcome),
                self._seconds.labels(label, route),
            )
        counters[0].inc()
        counters[1].observe(seconds)
        self._received.inc(received)
        self._sent.inc(sent)

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)


class _Figures(Collector):
    """Asks the store at each scrape."""

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the names come with the values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """One family a figure."""
        for name, value in self._figures().items():
            full = name if name.startswith("ostore_") else f"ostore_{name}"
            kind = CounterMetricFamily if full.endswith("_total") else GaugeMetricFamily
            about = full.removeprefix("ostore_").removesuffix("_total")
            yield kind(full, about.replace("_", " ").capitalize() + ".", value)
