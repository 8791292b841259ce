"""What the hot paths cost: `python benchmarks/hotpaths.py --help`.

Many clients do one kind of work after the other against a standalone, or with
`--cluster` against an api and a data service with six roots (which needs RabbitMQ);
each round of it stands beside the limit of the same work. With `--against` the
service of another checkout takes turns. `--search` measures what a search server
leaves to a cluster that has its metadata there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, conversations, machine, searching, works
from benchmarks.clients import Job, Result
from benchmarks.figures import Figures, Round, figures_of, reached, shown, table
from benchmarks.limits import LEAN, Limits
from benchmarks.load import Load
from benchmarks.profiling import profile
from benchmarks.servers import Processes, Server
from benchmarks.works import (
    DEGRADED,
    GROUPS,
    MEMORY,
    MIB,
    NAMES,
    SLOW_GET,
    SLOW_PUT,
    WORKS,
    Goal,
)
from tests.support.child import Child
from tests.support.rabbitmq import RabbitMQ

SLOW_CLIENTS = 64


class Service:
    """What is measured, the folders of two of its nodes, and what was written to it."""

    def __init__(
        self, name: str, server: Processes, folder: Path, homes: Sequence[Path]
    ) -> None:
        self.name = name
        self.server = server
        self.folder = folder
        self._homes = homes
        self._runs = 0
        self._written: dict[str, tuple[str, Sequence[int]]] = {}

    def do(self, load: Load, name: str, seconds: float) -> tuple[Result, float]:
        """Have the clients do this work, and the CPU seconds that it took here."""
        if name == DEGRADED:
            self._take_away()
        self._runs += 1
        job = self.job(self.server.port, name, seconds)
        before = self.server.cpu()
        result = load.do(job)
        used = self.server.cpu() - before
        if job.method == "PUT":
            self._written[name] = job.writes, result.done
        return result, used

    def job(self, port: int, name: str, seconds: float) -> Job:
        """This work, at a port where what it reads is."""
        work = WORKS[name]
        reads, readable = self._written.get(work.reads, ("", ()))
        return Job(
            port,
            work.method,
            work.size,
            range(work.clients),
            work.each,
            min(work.seconds, seconds),
            f"{name}-{self._runs}",
            reads,
            readable,
        )

    def _take_away(self) -> None:
        """Two node folders go, for good."""
        for home in self._homes:
            there = self.folder / f"away-{home.name}"
            if not there.exists():
                home.rename(there)


class Bench:
    """One run: figures by work and service, and MiB by what takes them and service."""

    def __init__(self, options: Any, folder: Path, load: Load) -> None:
        self.figures: dict[str, dict[str, Figures]] = {}
        self.memory: dict[str, dict[str, float]] = {"in all of it": {}}
        self._options = options
        self._folder = folder
        self._load = load
        self._rounds = 1 if options.quick else options.rounds
        self._seconds = 0.5 if options.quick else 60.0

    def run(self, only: Sequence[str]) -> None:
        """Measure, each group with services of its own."""
        plain = self._folder / "plain"
        plain.mkdir()
        with Server([sys.executable, str(LEAN), str(plain)], plain) as lean:
            limit = Limits(self._load, lean, plain)
            for group in GROUPS.values():
                reads = {WORKS[name].reads for name in only}
                needed = [name for name in group if name in {*only, *reads}]
                if not needed:
                    continue
                place = self._folder / "services"
                place.mkdir()
                with ExitStack() as stack:
                    found = list(self._services(stack, place))
                    for name in needed:
                        self._work(name, found, limit, measured=name in only)
                    for one in found:
                        self._note_peak(one)
                        if group is GROUPS["huge"] and not self._options.cluster:
                            self._slow(one)
                shutil.rmtree(place)

    def _work(
        self, name: str, services: Sequence[Service], limit: Limits, measured: bool
    ) -> None:
        if name == NAMES or not measured:
            for one in services:
                one.do(self._load, name, 60.0)
            return
        rounds: dict[str, list[Round]] = {one.name: [] for one in services}
        with ExitStack() as stack:
            if name in MEMORY:
                for one in services:
                    self._note_peak(one)
                    stack.enter_context(self._growing(name, one))
            stack.enter_context(limit.files(services[0].job(0, name, 0.0)))
            for _ in range(self._rounds):
                job = services[0].job(0, name, self._seconds)
                alone = limit.of(name, job)
                for one in services:
                    result, used = one.do(self._load, name, self._seconds)
                    rounds[one.name].append(Round(result, used, alone))
        for one in services:
            found = figures_of(name, rounds[one.name])
            self.figures.setdefault(name, {})[one.name] = found
            now, most = one.server.memory() / MIB, one.server.peak() / MIB
            label = f"{name:<16}{one.name if len(services) > 1 else '':<6}"
            memory = f"RSS {now:.0f} MiB (at most {most:.0f})"
            print(f"{label}{shown(found)}  {memory}", flush=True)
        if self._options.profiles is not None:
            self._profile(services[0], name)

    def _slow(self, one: Service) -> None:
        """Many clients that take their time, and what memory they cost."""
        port, seconds = one.server.port, 3.0 if self._options.quick else 15.0
        with self._growing(SLOW_PUT, one):
            client.slow_put(port, "/objects/slow", SLOW_CLIENTS, seconds)
        client.put(port, "/objects/large", 256 * MIB)
        with self._growing(SLOW_GET, one):
            client.slow_get(port, "/objects/large", SLOW_CLIENTS, seconds)

    @contextmanager
    def _growing(self, what: str, one: Service) -> Iterator[None]:
        """Note by how much its memory grows at most."""
        one.server.forget_peak()
        before = one.server.memory()
        yield
        growth = max(0, one.server.peak() - before) / MIB
        self.memory.setdefault(what, {})[one.name] = growth
        print(f"{what:<16}adds {growth:.0f} MiB of memory", flush=True)

    def _note_peak(self, one: Service) -> None:
        most, peak = self.memory["in all of it"], one.server.peak() / MIB
        most[one.name] = max(most.get(one.name, 0.0), peak)

    def _profile(self, one: Service, name: str) -> None:
        folder: Path = self._options.profiles
        folder.mkdir(parents=True, exist_ok=True)
        raw = self._folder / "profile"
        text = profile(
            one.server.pid,
            self._options.seconds,
            raw,
            lambda: one.do(self._load, name, self._seconds),
        )
        (folder / f"{name}.txt").write_text(text)

    def _services(self, stack: ExitStack, place: Path) -> Iterator[Service]:
        if self._options.cluster:
            yield cluster(stack, place / "cluster")
            return
        checkouts = {"this": None, "other": self._options.against}
        for name, checkout in checkouts.items():
            if name == "other" and checkout is None:
                continue
            folder = place / name
            folder.mkdir()
            server = Server.standalone(folder, self._options.server, checkout)
            stack.enter_context(server)
            homes = [folder / "root" / "nodes" / number for number in "12"]
            yield Service(name, server, folder, homes)


def cluster(stack: ExitStack, folder: Path) -> Service:
    """One api and one data process with six roots on a RabbitMQ of their own."""
    broker = RabbitMQ()
    stack.callback(broker.close)
    broker.start()
    one = stack.enter_context(conversations.cluster(folder, broker.url(), Child))
    homes = [folder / "root-0", folder / "root-1"]
    server = Processes(one.port, (one.api, one.data))
    return Service("cluster", server, folder, homes)


def lean_rate(figures: Mapping[str, Mapping[str, Figures]]) -> str:
    """What the clients can do: their rate against the server of plain files."""
    found = figures.get("get-4k-c32", {})
    rates = [each["limit"] for each in found.values()]
    return f"{statistics.median(rates):,.0f}" if rates else "(not measured)"


def report(bench: Bench, options: Any, facts: Mapping[str, str]) -> None:
    """Write JSON, and the table beside it; print the table."""
    goals: Mapping[str, Goal] = works.CLUSTER if options.cluster else works.STANDALONE
    service = "cluster" if options.cluster else "standalone"
    words = {
        "service": service,
        "rounds": 1 if options.quick else options.rounds,
        "lean": sum(1 for line in LEAN.read_text().splitlines() if line.strip()),
        "alone": lean_rate(bench.figures),
        "processes": ", api and data service together" if options.cluster else "",
    }
    result = {
        "machine": dict(facts),
        "service": service,
        "figures": bench.figures,
        "memory MiB": bench.memory,
        "goals": {
            name: {
                **attrs.asdict(goals[name]),
                "reached": reached(next(iter(found.values())), goals[name]),
            }
            for name, found in bench.figures.items()
            if name in goals
        },
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    text = table(bench.figures, goals, bench.memory, words)
    options.json.with_suffix(".md").write_text(text)
    print(f"\n{text}")


def main(words: list[str]) -> int:
    """Measure, print, write JSON, a table and profiles; says nothing about goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = [name for name in WORKS if name != NAMES]
    parser.add_argument("--only", default=",".join(known), help=", ".join(known))
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--cluster", action="store_true", help="api, data, RabbitMQ")
    kind.add_argument("--search", action="store_true", help="a search server as well")
    kind.add_argument("--against", type=Path, help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, help="default: build/hotpaths[-kind].json")
    parser.add_argument(
        "--profiles", type=Path, help="a folder for them; py-spy is run"
    )
    parser.add_argument("--seconds", type=int, default=12, help="of each profile")
    parser.add_argument("server", nargs="*", help="options of the server, behind --")
    options = parser.parse_args(words)
    if unknown := set(options.only.split(",")) - set(known):
        parser.error(f"--only {', '.join(sorted(unknown))} is not known")
    if options.json is None:
        kinds = {"-cluster": options.cluster, "-search": options.search}
        suffix = "".join(text for text, chosen in kinds.items() if chosen)
        options.json = Path(f"build/hotpaths{suffix}.json")
    if options.against is not None:
        options.against = options.against.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # servers end, too
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="hot-", dir=options.root)).resolve()
    try:
        facts = machine.facts(folder)
        for name, value in facts.items():
            print(f"{name:<28}{value}")
        with Load() as load:
            if options.search:
                searching.measure(options, folder, load, facts)
                return 0
            bench = Bench(options, folder, load)
            bench.run(options.only.split(","))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report(bench, options, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
