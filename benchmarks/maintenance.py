"""What maintenance takes and costs: `python benchmarks/maintenance.py --help`.

Small objects in a standalone. First all shards are read by the job scrub while clients
go on, in turns with the same clients alone: how much longer their requests take. Then
a node's folder is emptied, and filled again by repairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from http.client import HTTPConnection
from json import loads
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, machine
from benchmarks.servers import Server
from ostore.model.signing import Caller

CLIENTS = 32
SLOWER, REFILLED = 1.5, 300.0
"""The goals: p99 beside scrub by p99 alone, objects made good a second."""
PATIENCE = 1800


class Store:
    """A server over a folder, and requests to it that need a signature."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder = folder
        self._options = options
        self.server = self.start()

    def start(self) -> Server:
        """Once more, after `stop`."""
        self.server = Server.standalone(self.folder, self._options)
        return self.server.__enter__()

    def stop(self) -> None:
        """Let it end."""
        self.server.__exit__(None, None, None)

    def ask(self, method: str, target: str) -> Any:
        """The JSON of a signed request."""
        secret = (self.folder / "root" / "secret").read_text().split()[0].encode()
        caller = Caller("bench", secret, time.time, secrets.token_bytes)
        host = f"127.0.0.1:{self.server.port}"
        connection = HTTPConnection(host, timeout=60)
        try:
            head = caller.headers(host, method, host, target, {})
            connection.request(method, target, None, dict(head))
            answer = connection.getresponse()
            body = answer.read()
            if answer.status >= 300:
                raise ConnectionError(f"{target}: {answer.status} {body[:300]!r}")
            return loads(body)
        finally:
            connection.close()

    def stored(self) -> int:
        """Bytes below the nodes' folders."""
        nodes = self.folder / "root" / "nodes"
        return sum(path.stat().st_size for path in nodes.rglob("*") if path.is_file())


def p99(latencies: list[float]) -> float:
    """The 99th of a hundred."""
    return statistics.quantiles(latencies, n=100)[-1]


def asked(pool: Pool, port: int, prefix: str) -> list[float]:
    """Latencies of 2,000 PUTs and as many GETs of four clients."""
    latencies: list[float] = []
    for method in ("PUT", "GET"):
        latencies += pool.apply(client.small, (port, method, prefix, 4, 500))[1]
    return latencies


def scrubbed(store: Store, pool: Pool, rounds: int) -> bool:
    """Show what requests take without scrub and beside it; whether goals are met."""
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    least = True
    for number in range(rounds):
        alone.append(asked(pool, store.server.port, f"/objects/alone/{number}"))
        stored = store.stored()
        job = store.ask("POST", "/cluster/jobs/scrub")["id"]
        beside.append(asked(pool, store.server.port, f"/objects/beside/{number}"))
        if ended(store, job):
            print("  the scrub had ended before the requests did: take more --objects")
            return False
        while not (run := ended(store, job)):
            time.sleep(0.2)
        read = run["counts"]["bytes"]
        print(
            f"  scrub: {run['counts']}, {read / stored:.2f} of the bytes stored before"
        )
        least = least and read <= store.stored()
    ratios = [p99(b) / p99(a) for a, b in zip(alone, beside, strict=True)]
    middle = statistics.median(ratios)
    print(
        f"p99 beside scrub {statistics.median(map(p99, beside)) * 1000:.1f} ms, alone "
        f"{statistics.median(map(p99, alone)) * 1000:.1f} ms, ratio {middle:.2f} "
        f"of {' '.join(f'{each:.2f}' for each in sorted(ratios))} (goal {SLOWER})"
    )
    return least and middle <= SLOWER


def ended(store: Store, job: str) -> Any:
    """The run, when it has ended."""
    run = store.ask("GET", f"/cluster/jobs/{job}")
    if run["state"] == "failed":
        raise ConnectionError(f"scrub failed: {run}")
    return run if run["state"] == "done" else None


def refilled(store: Store, objects: int) -> bool:
    """Empty a node and show how fast it fills; whether the goal is met."""
    store.stop()
    shutil.rmtree(store.folder / "root" / "nodes" / "3")
    old = {"nodes/3"}
    store.start()
    cpu, started, first = store.server.cpu(), time.perf_counter(), 0.0
    while True:
        took = time.perf_counter() - started
        nodes = store.ask("GET", "/cluster")["nodes"]
        held = next(
            (n["shards"] for n in nodes if n["url"] in old and n["state"] == "up"), 0
        )
        first = first or (took if held else 0.0)
        if held >= objects or took > PATIENCE:
            break
        time.sleep(0.5)
    rate = held / (took - first) if took > first else 0.0
    cost = (store.server.cpu() - cpu) / max(1, held) * 1000
    print(
        f"refilled {held} of {objects} objects, the first after {first:.1f} s, then "
        f"{rate:.0f} a second, {cost:.2f} ms of CPU each (goal {REFILLED:.0f})"
    )
    return rate >= REFILLED


def main() -> int:
    """Run it; 0 when the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=None, help="where the data goes")
    arguments, options = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.root))
    try:
        for name, value in machine.facts(folder).items():
            print(f"{name}: {value}")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            store = Store(folder, options)
            try:
                each = arguments.objects // CLIENTS
                work = (store.server.port, "PUT", "/objects/many", CLIENTS, each)
                rate = each * CLIENTS / pool.apply(client.small, work)[0]
                print(f"{rate:.0f} PUTs/s")
                good = not arguments.rounds or scrubbed(store, pool, arguments.rounds)
                objects = each * CLIENTS + arguments.rounds * 4000
                good = refilled(store, objects) and good
            finally:
                store.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
