"""What the hot paths cost: `python benchmarks/hotpaths.py --help`.

Several clients at once do one kind of work against a standalone. CPU seconds of the
service (user and system) are what tells on a machine that is not one's own; rates are
their witness. With `--against` the service of another checkout takes turns, with `--cluster`
an api and a data service with six roots (which needs RabbitMQ). Beside large PUTs goes
the rate of hashing, coding and writing the same bytes in one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, conversations, machine
from benchmarks.servers import Processes, Server
from tests.support.child import Child
from tests.support.rabbitmq import RabbitMQ

MIB = 1 << 20
SMALL = 4096
WORKS: dict[str, tuple[str, int, int, int]] = {
    # method, bytes, clients, requests of each client
    "put-256m": ("PUT", 256 * MIB, 1, 2),
    "get-256m": ("GET", 256 * MIB, 1, 4),
    "put-64m-c1": ("PUT", 64 * MIB, 1, 4),
    "get-64m-c1": ("GET", 64 * MIB, 1, 8),
    "put-64m": ("PUT", 64 * MIB, 4, 2),
    "get-64m": ("GET", 64 * MIB, 4, 4),
    "put-1m": ("PUT", MIB, 8, 16),
    "get-1m": ("GET", MIB, 8, 64),
    "put-4k-c32": ("PUT", SMALL, 32, 30),
    "get-4k-c32": ("GET", SMALL, 32, 100),
    "head-4k-c32": ("HEAD", SMALL, 32, 100),
    "mixed-4k-c32": ("MIXED", SMALL, 32, 60),
    "put-4k-c128": ("PUT", SMALL, 128, 10),
    "get-4k-c128": ("GET", SMALL, 128, 30),
    "put-4k-c1": ("PUT", SMALL, 1, 300),
    "get-4k-c1": ("GET", SMALL, 1, 1500),
    "put-4k-many": ("PUT", SMALL, 32, 313),
    "list-10000": ("LIST", 0, 1, 1),
    "degraded-64m": ("GET", 64 * MIB, 4, 4),
}
"""In the order in which they are done: what is read was written before."""
WRITTEN_BY = {
    "get-256m": "put-256m",
    "get-64m-c1": "put-64m-c1",
    "get-64m": "put-64m",
    "degraded-64m": "put-64m",
    "get-1m": "put-1m",
    "get-4k-c32": "put-4k-c32",
    "head-4k-c32": "put-4k-c32",
    "mixed-4k-c32": "put-4k-c32",
    "get-4k-c128": "put-4k-c128",
    "get-4k-c1": "put-4k-c1",
    "list-10000": "put-4k-many",
}
MIX = ("GET",) * 45 + ("HEAD",) * 30 + ("PUT",) * 15 + ("DELETE",) * 10
"""A hundred requests of `MIXED`, in random order."""


WAITING = ("ThreadWorkers._work", "ThreadWriter._take", "EPollReactor.doPoll")
"""Where threads that do nothing are, which a profiler cannot always tell."""


def load(
    port: int, method: str, prefix: str, size: int, clients: int, each: int, names: int
) -> tuple[float, list[float]]:
    """Wall seconds of all requests, and each one's latency; in a process of its own.

    PUTs send new random bytes, made beforehand; GETs read `names` names in turn. LIST
    reads the names below `prefix` in pages of 1,000.
    """

    def begin(number: int) -> Callable[[], list[float]]:
        one = Client(port, prefix, number, size)
        verbs = [method] * each
        if method == "MIXED":
            verbs = random.Random(number).choices(MIX, k=each)

        def run() -> list[float]:
            latencies = [one.ask(verb, turn, names) for turn, verb in enumerate(verbs)]
            one.connection.close()
            return latencies

        return run

    return client.together(clients, begin)


class Client:
    """One connection with names of its own below a prefix."""

    def __init__(self, port: int, prefix: str, number: int, size: int) -> None:
        self.connection = client.Connection(port)
        self._prefix = prefix
        self._number = number
        self._size = size
        self._salt = os.urandom(16)
        self._body = bytearray(os.urandom(size))
        self._buffer = memoryview(bytearray(max(1, min(size, MIB))))

    def ask(self, method: str, turn: int, names: int) -> float:
        """Seconds of one request, or of all pages of a listing."""
        if method == "LIST":
            began = time.perf_counter()
            self._list()
            return time.perf_counter() - began
        if method == "PUT":
            # each body differs from every other in its first bytes: new to the store
            self._body[:32] = hashlib.sha256(self._salt + turn.to_bytes(8)).digest()
            for at in range(MIB, self._size, MIB):
                self._body[at : at + 32] = os.urandom(32)
        own = {"PUT": turn, "DELETE": f"gone-{turn}"}.get(method, turn % names)
        target = f"/objects/{self._prefix}/{self._number}/{own}"
        if method == "DELETE":
            self._put(target)
        began = time.perf_counter()
        if method == "PUT":
            self._put(target)
        else:
            self.connection.socket.sendall(self.connection.head(method, target))
            self._answer(method)
        return time.perf_counter() - began

    def _put(self, target: str) -> None:
        head = self.connection.head("PUT", target, self._size)
        if self._size <= SMALL:
            self.connection.socket.sendall(head + self._body)
        else:
            self.connection.socket.sendall(head)
            self.connection.socket.sendall(self._body)
        self.connection.finish(200)

    def _answer(self, method: str) -> None:
        if method == "DELETE":
            self.connection.finish(200)
            return
        status, length, rest = self.connection.answer()
        if status != 200 or length != self._size:
            wrong = f"status {status} with {length} bytes, not {self._size}"
            raise ConnectionError(wrong)
        left = length - len(rest) if method == "GET" else 0
        while left:
            count = self.connection.socket.recv_into(self._buffer)
            if not count:
                raise ConnectionError(f"closed with {left} bytes to come")
            left -= count

    def _list(self) -> None:
        after, found = "", 0
        while True:
            query = f"prefix={self._prefix}/&limit=1000&after={after}"
            head = self.connection.head("GET", f"/objects/?{query}")
            self.connection.socket.sendall(head)
            page = json.loads(self.connection.finish(200))
            found += len(page["items"])
            if page["next"] is None:
                break
            after = page["next"]
        if found < 10_000:
            raise ConnectionError(f"{found} names were listed, not 10,000")


class Contestant:
    """A service, the folders of two of its nodes, and what was measured, by work."""

    def __init__(
        self, name: str, server: Processes, folder: Path, homes: Sequence[Path]
    ) -> None:
        self.name = name
        self.server = server
        self.folder = folder
        self._homes = homes
        self.cpu: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}
        self.slow: dict[str, list[float]] = {}
        self.limit: dict[str, list[float]] = {}
        """MiB/s of hashing, coding and writing alone, in the rounds of a large PUT."""

    def do(self, pool: Pool, work: str, pyspy: str | None, seconds: float) -> None:
        """One round of that work."""
        method, size, clients, each = WORKS[work]
        written = WRITTEN_BY.get(work, work)
        words = (method, written, size, clients, each, WORKS[written][3])
        port = self.server.port
        if work == "degraded-64m":
            self._take_away()
        profiler = None
        if pyspy is not None:
            profiler = subprocess.Popen(
                [
                    *(pyspy, "record", "-r", "250", "-f", "raw", "-t"),
                    *("-d", str(seconds), "-p", str(self.server.pid)),
                    *("-o", str(self.folder / "profile")),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(1)
        if method == "PUT" and size >= MIB:
            alone = pool.apply(machine.limit, (self.folder, size))
            self.limit.setdefault(work, []).append(size / MIB / alone)
        before = self.server.cpu()
        took, latencies = pool.apply(load, (port, *words))
        used = self.server.cpu() - before
        if profiler is not None:
            while profiler.poll() is None:
                pool.apply(load, (port, *words))
        self.cpu.setdefault(work, []).append(used)
        self.wall.setdefault(work, []).append(took)
        latencies.sort()
        self.slow.setdefault(work, []).append(latencies[int(len(latencies) * 0.99)])

    def _take_away(self) -> None:
        """Two node folders go, for good."""
        for home in self._homes:
            there = self.folder / f"away-{home.name}"
            if not there.exists():
                home.rename(there)


def reported(work: str, one: Contestant) -> dict[str, float]:
    """What the rounds of that work say; CPU is the least of them."""
    method, size, clients, each = WORKS[work]
    count = clients * each
    used, took = min(one.cpu[work]), statistics.median(one.wall[work])
    spread = (max(one.wall[work]) - min(one.wall[work])) / took
    if method == "LIST":
        return {"CPU ms each": used * 1000, "s": took, "spread": spread}
    if size >= MIB:
        found = {
            "CPU s/GiB": used / (count * size / (1 << 30)),
            "MiB/s": count * size / MIB / took,
            "spread": spread,
        }
        if work in one.limit:
            found["of the limit"] = found["MiB/s"] / statistics.median(one.limit[work])
        return found
    return {
        "CPU ms each": used * 1000 / count,
        "per second": count / took,
        "spread": spread,
        "p99 ms": min(one.slow[work]) * 1000,
    }


def condensed(raw: Path, rows: int = 40) -> str:
    """A profile as text: the lines most samples were in, and those on the way to them."""
    leaf: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    total = 0
    for line in raw.read_text("utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [each for each in stack.split(";") if not each.startswith("thread ")]
        if not frames or frames[-1].startswith(WAITING):
            continue
        total += int(count)
        leaf[frames[-1]] += int(count)
        for frame in {frame.rpartition(":")[0] for frame in frames}:
            anywhere[frame] += int(count)
    lines = [f"{total} samples"]
    for title, found in (("itself", leaf), ("with what it calls", anywhere)):
        lines.append(f"\n{title}")
        shown = [
            f"{100 * count / total:6.1f} %  {frame}"
            for frame, count in found.most_common()
            if not (found is anywhere and count > 0.97 * total)
        ]
        lines += shown[:rows]
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    """Measure, print, write JSON and profiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(WORKS), help=", ".join(WORKS))
    parser.add_argument("--cluster", action="store_true", help="one beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="a checkout to compare with")
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, default=Path("build/hotpaths.json"))
    parser.add_argument(
        "--profiles", type=Path, help="a folder for them; py-spy is run"
    )
    parser.add_argument("--seconds", type=int, default=12, help="of each profile")
    parser.add_argument("server", nargs="*", help="options of the server, behind --")
    options = parser.parse_args(words)
    works = options.only.split(",")
    if unknown := set(works) - set(WORKS):
        parser.error(f"--only {', '.join(sorted(unknown))} is not known")
    needed = [w for w in WORKS if w in works or w in {WRITTEN_BY.get(x) for x in works}]
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="hot-", dir=options.root)).resolve()
    checkouts: dict[str, Path | None] = {"this": None}
    if options.against is not None:
        checkouts["other"] = options.against.resolve()
    try:
        facts = machine.facts(folder)
        for name, value in facts.items():
            print(f"{name:<28}{value}")
        with ExitStack() as stack:
            contestants = []
            for name, checkout in checkouts.items():
                place = folder / name
                place.mkdir()
                server = Server.standalone(place, options.server, checkout)
                stack.enter_context(server)
                homes = [place / "root" / "nodes" / number for number in "12"]
                contestants.append(Contestant(name, server, place, homes))
            if options.cluster:
                contestants.append(_cluster(stack, folder / "cluster"))
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(1))
            figures = _run(contestants, pool, needed, works, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": facts, "figures": figures}
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    options.json.with_suffix(".md").write_text(table(figures))
    return 0


def _cluster(stack: ExitStack, folder: Path) -> Contestant:
    """One api and one data process with six roots on a RabbitMQ of their own."""
    broker = RabbitMQ()
    stack.callback(broker.close)
    broker.start()
    one = stack.enter_context(conversations.cluster(folder, broker.url(), Child))
    homes = [folder / "root-0", folder / "root-1"]
    return Contestant(
        "cluster", Processes(one.port, (one.api, one.data)), folder, homes
    )


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as a table in Markdown."""
    rows = ["| work | service | | | | |", "|---|---|---|---|---|---|"]
    for work, by_name in figures.items():
        for name, found in by_name.items():
            cells = [f"{value:.2f} {what}" for what, value in found.items()]
            cells += [""] * (4 - len(cells))
            rows.append(f"| {work} | {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _run(
    contestants: list[Contestant],
    pool: Pool,
    needed: list[str],
    works: list[str],
    options: Any,
) -> dict[str, dict[str, dict[str, float]]]:
    figures: dict[str, dict[str, dict[str, float]]] = {}
    beside = Path(sys.executable).parent
    pyspy = shutil.which("py-spy") or shutil.which("py-spy", path=str(beside))
    for one in contestants:
        pool.apply(load, (one.server.port, "PUT", "warm", MIB, 2, 4, 1))
    for work in needed:
        rounds = options.rounds if work in works else 1
        for _ in range(rounds):
            for one in contestants:
                one.do(pool, work, None, 0)
        if work not in works:
            continue
        for one in contestants:
            found = figures.setdefault(work, {})[one.name] = reported(work, one)
            shown = "  ".join(f"{name} {value:8.2f}" for name, value in found.items())
            memory = one.server.memory() / MIB
            print(f"{work:<14}{one.name:<9}{shown}  RSS {memory:.0f} MiB", flush=True)
        if options.profiles is not None:
            options.profiles.mkdir(parents=True, exist_ok=True)
            first = contestants[0]
            first.do(pool, work, pyspy, options.seconds)
            text = condensed(first.folder / "profile")
            (options.profiles / f"{work}.txt").write_text(text)
    for one in contestants:
        peak = one.server.peak() / MIB
        figures.setdefault("memory", {})[one.name] = {"peak MiB": peak}
        print(f"{'memory':<14}{one.name:<9}peak MiB {peak:8.2f}", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
