"""What several processes count, as one page in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]

_GROWING = frozenset({"counter", "histogram"})
_SHARED = ("ostore_nodes_", "ostore_scrub_", "process_start_time", "process_max_fds")
"""Gauges that each process sees for itself: together they are the largest."""


class Page:
    """The families of one or several processes; `add` takes another process's."""

    def __init__(self, text: str = "") -> None:
        """`text` is a page as a process shows it. Raises ValueError."""
        self._families: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[Series, float]] = {}
        for family in text_string_to_metric_families(text):
            values = self._values.setdefault(family.name, {})
            self._families[family.name] = (family.type, family.documentation)
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                values[sample.name, labels] = sample.value

    def add(self, other: Page) -> None:
        """Counters, histograms and most gauges add up."""
        for name, facts in other._families.items():
            self._families.setdefault(name, facts)
            values = self._values.setdefault(name, {})
            for series, value in other._values[name].items():
                if series not in values:
                    values[series] = value
                elif name.endswith("_created"):
                    values[series] = min(values[series], value)
                elif name.startswith(_SHARED):
                    values[series] = max(values[series], value)
                else:
                    values[series] += value

    def growing(self) -> Page:
        """Only what never shrinks: what a process that ended leaves behind."""
        left = Page()
        for name, facts in self._families.items():
            if facts[0] in _GROWING or name.endswith("_created"):
                left._families[name] = facts
                left._values[name] = dict(self._values[name])
        return left

    def text(self, gauges: Mapping[str, float]) -> bytes:
        """The page, with these gauges of the whole beside it."""
        registry = CollectorRegistry()
        registry.register(_Shown(self._shown(gauges)))
        return generate_latest(registry)

    def _shown(self, gauges: Mapping[str, float]) -> Iterator[Metric]:
        for name, (kind, about) in self._families.items():
            metric = Metric(name, about, kind)
            for (sample, labels), value in self._values[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
        for name, value in gauges.items():
            about = name.removeprefix("ostore_").replace("_", " ").capitalize() + "."
            metric = Metric(name, about, "gauge")
            metric.add_sample(name, {}, value)
            yield metric


class _Shown(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Each once."""
        return iter(self._metrics)
