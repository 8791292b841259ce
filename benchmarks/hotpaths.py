"""What the hot paths cost: `python benchmarks/hotpaths.py --help`.

Several clients at once do one kind of work against a standalone. CPU seconds of the
service (user and system) are what tells on a machine that is not one's own; rates are
their witness. With `--against` the service of another checkout takes turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, machine
from benchmarks.servers import Server

MIB = 1 << 20
WORKS: dict[str, tuple[str, int, int, int]] = {
    # method, bytes, clients, requests of each client
    "put-64m": ("PUT", 64 * MIB, 4, 2),
    "get-64m": ("GET", 64 * MIB, 4, 4),
    "put-1m": ("PUT", MIB, 8, 16),
    "get-1m": ("GET", MIB, 8, 64),
    "put-4k-c32": ("PUT", 4096, 32, 30),
    "get-4k-c32": ("GET", 4096, 32, 100),
    "put-4k-c1": ("PUT", 4096, 1, 300),
    "get-4k-c1": ("GET", 4096, 1, 1500),
    "degraded-64m": ("GET", 64 * MIB, 4, 4),
}
"""In the order in which they are done: what is read was written before."""
WRITTEN_BY = {
    "get-64m": "put-64m",
    "degraded-64m": "put-64m",
    "get-1m": "put-1m",
    "get-4k-c32": "put-4k-c32",
    "get-4k-c1": "put-4k-c1",
}


WAITING = ("ThreadWorkers._work", "ThreadWriter._take", "EPollReactor.doPoll")
"""Where threads that do nothing are, which a profiler cannot always tell."""


def load(
    port: int, method: str, prefix: str, size: int, clients: int, each: int, names: int
) -> tuple[float, list[float]]:
    """Wall seconds of all requests, and each one's latency; in a process of its own.

    PUTs send new random bytes, made beforehand; GETs read `names` names in turn.
    """
    latencies: list[list[float]] = [[] for _ in range(clients)]
    failed: list[Exception] = []
    barrier = threading.Barrier(clients + 1)
    salt = os.urandom(8).hex()

    def run(number: int) -> None:
        try:
            connection = client.Connection(port)
            buffer = memoryview(bytearray(min(size, MIB)))
            # each body differs from every other in its first bytes: new to the store
            bodies = bytearray(os.urandom(size)) if method == "PUT" else bytearray()
            barrier.wait()
            for turn in range(each):
                target = (
                    f"{prefix}/{number}/{turn if method == 'PUT' else turn % names}"
                )
                if method == "PUT":
                    bodies[:32] = hashlib.sha256(
                        f"{salt}{number}{turn}".encode()
                    ).digest()
                    for at in range(MIB, size, MIB):
                        bodies[at : at + 32] = os.urandom(32)
                sent = time.perf_counter()
                head = connection.head(
                    method, target, size if method == "PUT" else None
                )
                if size <= 4096:
                    connection.socket.sendall(head + bodies)
                else:
                    connection.socket.sendall(head)
                    connection.socket.sendall(bodies)
                if method == "PUT":
                    connection.finish(200)
                else:
                    _drain(connection, size, buffer)
                latencies[number].append(time.perf_counter() - sent)
            connection.close()
        except (OSError, threading.BrokenBarrierError) as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        raise failed[0] from None
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    return took, [latency for one in latencies for latency in one]


def _drain(connection: client.Connection, size: int, buffer: memoryview) -> None:
    status, length, rest = connection.answer()
    if status != 200 or length != size:
        raise ConnectionError(f"status {status} with {length} bytes, not {size}")
    left = length - len(rest)
    while left:
        count = connection.socket.recv_into(buffer)
        if not count:
            raise ConnectionError(f"closed with {left} bytes to come")
        left -= count


class Contestant:
    """A service of one checkout, and what was measured of it by name."""

    def __init__(self, name: str, server: Server, folder: Path) -> None:
        self.name = name
        self.server = server
        self.folder = folder
        self.cpu: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}
        self.slow: dict[str, list[float]] = {}

    def do(self, pool: Pool, work: str, pyspy: str | None, seconds: float) -> None:
        """One round of that work."""
        method, size, clients, each = WORKS[work]
        written = WRITTEN_BY.get(work, work)
        words = (method, f"/objects/{written}", size, clients, each, WORKS[written][3])
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
        for number in ("1", "2"):
            there = self.folder / f"away-{number}"
            if not there.exists():
                (self.folder / "root" / "nodes" / number).rename(there)


def reported(work: str, one: Contestant) -> dict[str, float]:
    """What the rounds of that work say; CPU is the least of them."""
    _, size, clients, each = WORKS[work]
    count = clients * each
    used, took = min(one.cpu[work]), statistics.median(one.wall[work])
    if size >= MIB:
        return {
            "CPU s/GiB": used / (count * size / (1 << 30)),
            "MiB/s": count * size / MIB / took,
        }
    return {
        "CPU ms each": used * 1000 / count,
        "per second": count / took,
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
                contestants.append(Contestant(name, server, place))
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(1))
            figures = _run(contestants, pool, needed, works, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": facts, "figures": figures}
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


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
        pool.apply(load, (one.server.port, "PUT", "/objects/warm", MIB, 2, 4, 1))
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
            print(f"{work:<14}{one.name:<7}{shown}  RSS {memory:.0f} MiB", flush=True)
        if options.profiles is not None:
            options.profiles.mkdir(parents=True, exist_ok=True)
            first = contestants[0]
            first.do(pool, work, pyspy, options.seconds)
            text = condensed(first.folder / "profile")
            (options.profiles / f"{work}.txt").write_text(text)
    for one in contestants:
        peak = one.server.peak() / MIB
        figures.setdefault("memory", {})[one.name] = {"peak MiB": peak}
        print(f"{'memory':<14}{one.name:<7}peak MiB {peak:8.2f}", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
