"""Measure a server of its own: `make bench`, or `python benchmarks/run.py --help`.

Figures of one run belong together: compare ratios, not figures of different days.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, limits, machine
from benchmarks.servers import Server

MIB = 1 << 20
GOALS: tuple[tuple[str, Callable[[float, float], bool], float], ...] = (
    ("PUT / limit", float.__ge__, 0.40),
    ("GET / plain file", float.__ge__, 0.50),
    ("put-small per second", float.__ge__, 250.0),
    ("put-one median ms", float.__le__, 20.0),
    ("memory-put MiB", float.__le__, 64.0),
    ("memory-get MiB", float.__le__, 64.0),
    ("slow-put MiB", float.__le__, 160.0),
    ("slow-get MiB", float.__le__, 160.0),
)
NAMES = (
    "limit",
    "put-large",
    "get-large",
    "plain-get",
    "put-small",
    "put-one",
    "get-small",
    "memory-put",
    "memory-get",
    "slow-put",
    "slow-get",
)


class Bench:
    """One run: figures by name, in the order in which they were measured."""

    def __init__(
        self, server: Server, plain: Server, pool: Pool, folder: Path, quick: bool
    ) -> None:
        self.server = server
        self.figures: dict[str, float] = {}
        self._plain = plain
        self._pool = pool
        self._folder = folder
        self._rounds = 1 if quick else 3
        self._large = (32 if quick else 256) * MIB
        self._huge = (256 if quick else 2048) * MIB
        self._small = 10 if quick else 50
        self._slow_seconds = 3.0 if quick else 15.0
        self._puts = 0

    def run(self, only: frozenset[str]) -> None:
        """Measure what is in `only`."""
        self._call(client.put, "/objects/warm-up", MIB)
        if only & set(NAMES[:4]):
            self._large_objects(only)
        if only & {"put-small", "get-small"}:
            self._small_objects("put-small", "PUT", 32, self._small, only)
        if "get-small" in only:
            self._small_objects("get-small", "GET", 32, self._small, only)
        if "put-one" in only:
            self._small_objects("put-one", "PUT", 1, self._small * 4, only)
        if only & {"memory-put", "memory-get"}:
            self._memory(
                "memory-put", only, client.put_stream, "/objects/huge", self._huge
            )
        if "memory-get" in only:
            self._memory("memory-get", only, client.get, "/objects/huge")
        if "slow-put" in only:
            self._memory(
                "slow-put",
                only,
                client.slow_put,
                "/objects/slow",
                64,
                self._slow_seconds,
            )
        if "slow-get" in only:
            if not only & {"put-large", "get-large"}:
                self._call(client.put, "/objects/large", self._large)
            self._memory(
                "slow-get",
                only,
                client.slow_get,
                "/objects/large",
                64,
                self._slow_seconds,
            )
        self._ratios()

    def _large_objects(self, only: frozenset[str]) -> None:
        """Large ones, the contestants in turns so that bad moments hit all."""
        seconds: dict[str, list[float]] = {name: [] for name in NAMES[:4]}
        cpu: dict[str, list[float]] = {name: [] for name in NAMES[:4]}
        if "plain-get" in only:
            with (self._folder / "plain").open("wb") as file:
                for piece in client.noise(self._large):
                    file.write(piece)
        digest = ""
        for _ in range(self._rounds):
            if "limit" in only:
                work = (self._folder, self._large)
                seconds["limit"].append(self._pool.apply(limits.large, work))
            if only & {"put-large", "get-large"}:
                before = self.server.cpu()
                took, digest = self._call(client.put, "/objects/large", self._large)
                cpu["put-large"].append(self.server.cpu() - before)
                seconds["put-large"].append(took)
            if "get-large" in only:
                before = self.server.cpu()
                seconds["get-large"].append(self._call(client.get, "/objects/large"))
                cpu["get-large"].append(self.server.cpu() - before)
                self._call(client.get, "/objects/large", digest)
            if "plain-get" in only:
                before = self._plain.cpu()
                took = self._pool.apply(client.get, (self._plain.port, "/plain"))
                cpu["plain-get"].append(self._plain.cpu() - before)
                seconds["plain-get"].append(took)
        gigabytes = self._large / 1e9
        for name, times in seconds.items():
            if not times or name not in only:
                continue
            self._note(f"{name} MB/s", gigabytes * 1000 / statistics.median(times))
            if cpu[name]:
                self._note(f"{name} CPU s/GB", statistics.median(cpu[name]) / gigabytes)

    def _small_objects(
        self, name: str, method: str, clients: int, each: int, only: frozenset[str]
    ) -> None:
        prefix = "/objects/one" if clients == 1 else "/objects/small"
        before = self.server.cpu()
        took, latencies = self._call(client.small, method, prefix, clients, each)
        used = self.server.cpu() - before
        if name not in only:
            return
        count = clients * each
        ordered = sorted(latencies)
        self._note(f"{name} per second", count / took)
        self._note(f"{name} median ms", statistics.median(ordered) * 1000)
        self._note(f"{name} p99 ms", ordered[int(count * 0.99)] * 1000)
        self._note(f"{name} CPU s/1000", used * 1000 / count)

    def _memory(
        self, name: str, only: frozenset[str], work: Callable[..., Any], *words: Any
    ) -> None:
        self.server.forget_peak()
        before = self.server.memory()
        self._call(work, *words)
        if name in only:
            growth = max(0, self.server.peak() - before)
            self._note(f"{name} MiB", growth / MIB)

    def _ratios(self) -> None:
        for name, part, whole in (
            ("PUT / limit", "put-large MB/s", "limit MB/s"),
            ("GET / plain file", "get-large MB/s", "plain-get MB/s"),
        ):
            if part in self.figures and whole in self.figures:
                self._note(name, self.figures[part] / self.figures[whole])

    def _call(self, work: Callable[..., Any], *words: Any) -> Any:
        return self._pool.apply(work, (self.server.port, *words))

    def _note(self, name: str, value: float) -> None:
        self.figures[name] = value
        print(f"{name:<28}{value:>12.2f}", flush=True)


def verdicts(figures: dict[str, float]) -> dict[str, bool]:
    """Which goals were reached, of those that were measured."""
    return {
        name: within(figures[name], bound)
        for name, within, bound in GOALS
        if name in figures
    }


def main(words: list[str]) -> int:
    """Measure, print, write JSON; the exit status says nothing about goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(NAMES), help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("server", nargs="*", help="options of the server, behind --")
    options = parser.parse_args(words)
    only = frozenset(options.only.split(","))
    if unknown := only - set(NAMES):
        parser.error(
            f"--only {', '.join(sorted(unknown))}: allowed is {', '.join(NAMES)}"
        )
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.root)).resolve()
    try:
        facts = machine.facts(folder)
        for name, value in facts.items():
            print(f"{name:<28}{value}")
        with (
            Server.standalone(folder, options.server) as server,
            Server.plain(folder) as plain,
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            bench = Bench(server, plain, pool, folder, options.quick)
            bench.run(only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    reached = verdicts(bench.figures)
    for name, within, bound in GOALS:
        if name in reached:
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
