"""What the requests of one service add up to, for Prometheus."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, starmap

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
"""Methods that get a label of their own; clients invent no others."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_BOUNDS = (*(str(float(each)) for each in _SECONDS), "+Inf")
_OUTCOMES = tuple(f"{hundreds}xx" for hundreds in range(10))


class _Tally:
    """One method on one route: how often, by outcome, and how long it took."""

    def __init__(self, created: float) -> None:
        self.created = created
        self.counts: dict[str, int] = {}
        self.begun: dict[str, float] = {}
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0


class Traffic:
    """Counts requests of one service.

    The router calls `begin` and `end` once a request, which is why they add up plain
    numbers; `text` is what /metrics shows. `figures` gives names and values of the
    store behind; those that end in `_total` are counters, the others gauges.
    """

    def __init__(
        self,
        figures: Callable[[], Mapping[str, float]],
        wall: Callable[[], float] = time.time,  # noqa: TID251 - when a series began, as Prometheus's own client says it
    ) -> None:
        self._wall = wall
        self._created = wall()
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._received = 0
        self._sent = 0
        self._in_flight = 0
        self._registry = registry = CollectorRegistry()
        registry.register(_Families(self._requests))
        registry.register(_Families(lambda: starmap(_figure, figures().items())))
        ProcessCollector(registry=registry)

    def begin(self) -> None:
        """A request came."""
        self._in_flight += 1

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
        outcome = "none" if status is None else _OUTCOMES[status // 100]
        tally = self._tallies.get((label, route))
        if tally is None:
            tally = self._tallies[label, route] = _Tally(self._wall())
        if outcome in tally.counts:
            tally.counts[outcome] += 1
        else:
            tally.counts[outcome] = 1
            tally.begun[outcome] = self._wall()
        tally.buckets[bisect_left(_SECONDS, seconds)] += 1
        tally.seconds += seconds
        self._in_flight -= 1
        self._received += received
        self._sent += sent

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def _requests(self) -> Iterator[Metric]:
        labels = "method", "route", "status"
        about = "Requests answered, or cut while they were."
        requests = CounterMetricFamily("ostore_http_requests", about, labels=labels)
        name = "ostore_http_request_duration_seconds"
        about = "From the head of a request to the end of its answer."
        seconds = HistogramMetricFamily(name, about, labels=labels[:2])
        for key, tally in self._tallies.items():
            for outcome, count in tally.counts.items():
                values = (*key, outcome)
                requests.add_metric(values, count, created=tally.begun[outcome])
            buckets = list(zip(_BOUNDS, accumulate(tally.buckets), strict=True))
            seconds.add_metric(key, buckets, tally.seconds)
            named = dict(zip(labels, key, strict=False))
            seconds.add_sample(f"{name}_created", named, tally.created)
        yield requests
        yield seconds
        for which, value in ("request", self._received), ("answer", self._sent):
            name = "received" if which == "request" else "sent"
            yield CounterMetricFamily(
                f"ostore_http_{name}_bytes",
                f"Bytes of {which} bodies.",
                value,
                created=self._created,
            )
        yield GaugeMetricFamily(
            "ostore_http_requests_in_flight",
            "Requests that are being answered.",
            self._in_flight,
        )


class _Families(Collector):
    """Asks at each scrape."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the names come with the values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The families with their values."""
        return iter(self._families())


def _figure(name: str, value: float) -> Metric:
    full = name if name.startswith("ostore_") else f"ostore_{name}"
    kind = CounterMetricFamily if full.endswith("_total") else GaugeMetricFamily
    about = full.removeprefix("ostore_").removesuffix("_total")
    return kind(full, about.replace("_", " ").capitalize() + ".", value)
