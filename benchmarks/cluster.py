"""Measure a cluster of its own beside a standalone: `make bench-cluster`.

Broker, search server, six data services and two apis run on this machine together with
the client, so these are figures of all of them on its cores. Needs what `make cluster`
needs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, machine
from benchmarks.servers import Server
from tests.support.livecluster import development, lacking

MIB = 1 << 20
GOALS: tuple[tuple[str, Callable[[float, float], bool], float], ...] = (
    ("put-one median ms", float.__le__, 60.0),
    ("locate median ms", float.__le__, 10.0),
    ("PUT / standalone", float.__ge__, 0.60),
)


def locate(port: int, count: int) -> list[float]:
    """Seconds of each locate of a content that nobody has: all nodes must say so."""
    connection = client.Connection(port)
    took = []
    for _ in range(count):
        target = f"/locate/{os.urandom(32).hex()}"
        began = time.perf_counter()
        connection.socket.sendall(connection.head("GET", target))
        connection.finish(404)
        took.append(time.perf_counter() - began)
    connection.close()
    return took


class Bench:
    """One run: figures by name."""

    def __init__(self, cluster: int, standalone: int, pool: Pool, quick: bool) -> None:
        self.figures: dict[str, float] = {}
        self._cluster = cluster
        self._standalone = standalone
        self._pool = pool
        self._count = 50 if quick else 200
        self._rounds = 2 if quick else 5

    def run(self) -> None:
        """Measure."""
        for port in (self._cluster, self._standalone):
            self._call(client.put, port, "/objects/warm-up", 8 * MIB)
            self._call(client.small, port, "PUT", "/objects/warm-up", 1, 20)
        for label, port in (("", self._cluster), ("standalone ", self._standalone)):
            work = ("PUT", "/objects/one", 1, self._count)
            _, latencies = self._call(client.small, port, *work)
            self._times(f"{label}put-one", latencies)
            work = ("GET", "/objects/one", 1, self._count)
            _, latencies = self._call(client.small, port, *work)
            self._times(f"{label}get-one", latencies)
        self._times("locate", self._call(locate, self._cluster, self._count))
        took, _ = self._call(
            client.small, self._cluster, "PUT", "/objects/many", 16, self._count // 4
        )
        self._note("put-small per second", 16 * (self._count // 4) / took)
        self._large()

    def _large(self) -> None:
        """Large ones, in turns so that bad moments hit both."""
        seconds: dict[str, list[float]] = {"cluster": [], "standalone": []}
        for _ in range(self._rounds):
            for name, port in (
                ("cluster", self._cluster),
                ("standalone", self._standalone),
            ):
                took, _ = self._call(client.put, port, "/objects/large", 64 * MIB)
                seconds[name].append(took)
        rates = {
            name: 64 * MIB / 1e6 / statistics.median(times)
            for name, times in seconds.items()
        }
        for name, rate in rates.items():
            self._note(f"{name} 64 MiB PUT MB/s", rate)
        self._note("PUT / standalone", rates["cluster"] / rates["standalone"])
        took = [
            self._call(client.get, self._cluster, "/objects/large")
            for _ in range(self._rounds)
        ]
        self._note("cluster 64 MiB GET MB/s", 64 * MIB / 1e6 / statistics.median(took))

    def _times(self, name: str, latencies: list[float]) -> None:
        ordered = sorted(latencies)
        self._note(f"{name} median ms", statistics.median(ordered) * 1000)
        self._note(f"{name} p99 ms", ordered[int(len(ordered) * 0.99)] * 1000)

    def _call(self, work: Callable[..., Any], *words: Any) -> Any:
        return self._pool.apply(work, words)

    def _note(self, name: str, value: float) -> None:
        self.figures[name] = value
        print(f"{name:<32}{value:>12.2f}", flush=True)


def main(words: list[str]) -> int:
    """Measure, print, write JSON; the exit status says nothing about goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, default=Path("build/bench-cluster.json"))
    options = parser.parse_args(words)
    if (why := lacking()) is not None:
        parser.error(why)
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.root)).resolve()
    try:
        facts = machine.facts(folder)
        for name, value in facts.items():
            print(f"{name:<32}{value}")
        with (
            development(folder / "cluster", 6, 2, sqlite=False) as cluster,
            Server.standalone(folder, []) as standalone,
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            bench = Bench(cluster.apis[0].port, standalone.port, pool, options.quick)
            bench.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    reached = {
        name: within(bench.figures[name], bound) for name, within, bound in GOALS
    }
    for name, within, bound in GOALS:
        sign = "at least" if within is float.__ge__ else "at most"
        outcome = "reached" if reached[name] else "MISSED"
        print(f"goal: {name} {sign} {bound:g}: {outcome}")
    result = {
        "machine": facts,
        "quick": options.quick,
        "figures": bench.figures,
        "goals": reached,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
