"""Small objects on a cluster whose api converses with its nodes, beside one over HTTP.

`python -m benchmarks.conversations [--count 1600] [--rounds 3] [--root build]`.
Three clusters of one data process with six roots and one api with `--metadata sqlite`,
on one RabbitMQ of their own, with the client on the same cores; one of them makes a
request for each operation, one converses but locates on the bus. Rounds alternate:
compare the ratios of one run. Needs RabbitMQ.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, machine
from tests.support import child
from tests.support.child import Child
from tests.support.rabbitmq import HOME, RabbitMQ

ROOTS = 6
OVER_HTTP = """
from ostore.backends.nodes.client import HttpNodes
from ostore.service import api
class Nodes(HttpNodes):
    def figures(self):
        return {}
    def near(self, node):
        return False
api.FramedNodes = Nodes
"""
"""What an api of the other kind does before it starts."""
OVER_BUS = """
from ostore.backends.nodes.framed import FramedNodes
FramedNodes.near = lambda self, node: False
"""
"""What an api does that locates as if it were in no conversation."""
WORK = (("PUT", 1), ("PUT", 32), ("GET", 1), ("GET", 32))


class Changed(Child):
    """A service that runs `BEFORE` before it starts."""

    BEFORE = ""

    def _begin(self, *words: Any) -> Any:
        twistd, child.TWISTD = child.TWISTD, self.BEFORE + child.TWISTD
        try:
            return super()._begin(*words)
        finally:
            child.TWISTD = twistd


class OverHttp(Changed):
    """An api that makes a request for each operation."""

    BEFORE = OVER_HTTP


class OverBus(Changed):
    """An api that converses with its nodes, and locates on the bus."""

    BEFORE = OVER_BUS


@attrs.frozen
class Cluster:
    """Where one answers, and its two processes."""

    port: int
    api: int
    data: int


@contextmanager
def cluster(
    folder: Path, broker: str, kind: type[Child], metadata: Sequence[str] = ()
) -> Iterator[Cluster]:
    """One data process and one api, whose metadata lies in SQLite unless told."""
    folder.mkdir(parents=True)
    secret = folder / "secret"
    secret.write_text(secrets.token_hex(32) + "\n", "ascii")
    common = ["--rabbitmq-server", broker, "--cluster-secret-file", str(secret)]
    roots = [str(folder / f"root-{number}") for number in range(ROOTS)]
    words = [word for root in roots for word in ("--storage-root", root)]
    zones = [word for n in range(ROOTS) for word in ("--zone", f"zone-{n}")]
    listen = ["--listen", "127.0.0.1:0"]
    data = Child(
        folder, *words, *zones, *listen, *common, name="data", role="ostore-data"
    )
    place = metadata or ["--metadata", f"sqlite:{folder / 'metadata.sqlite'}"]
    api = kind(folder, *place, *listen, *common, name="api", role="ostore-api")
    try:
        data.nodes(ROOTS)
        yield Cluster(api.ready(), api.pid, data.pid)
    finally:
        for each in (api, data):
            each.terminate()
        for each in (api, data):
            each.ended()


def cpu(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    pool: Pool, one: Cluster, method: str, clients: int, each: int, round_: int
) -> dict[str, float]:
    """One burst of small requests."""
    prefix = f"/objects/{clients}-{round_}"
    before = cpu(one.api), cpu(one.data)
    took, latencies = pool.apply(
        client.small, (one.port, method, prefix, clients, each)
    )
    count = clients * each
    ordered = sorted(latencies)
    return {
        "per second": count / took,
        "p50 ms": statistics.median(ordered) * 1000,
        "p99 ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "api us": (cpu(one.api) - before[0]) / count * 1e6,
        "data us": (cpu(one.data) - before[1]) / count * 1e6,
    }


def main(words: list[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1600, help="requests of a burst")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, default=Path("build/conversations.json"))
    options = parser.parse_args(words)
    if not (HOME / "rabbitmq-server").exists():
        parser.error("RabbitMQ is not installed")
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.root)).resolve()
    figures: dict[str, list[dict[str, float]]] = {}
    try:
        facts = machine.facts(folder)
        with ExitStack() as ended:
            broker = RabbitMQ()
            ended.callback(broker.close)
            broker.start()
            for host in ("http", "bus"):
                broker.control("add_vhost", host)
                broker.control("set_permissions", "-p", host, broker.user, *[".*"] * 3)
            pool = multiprocessing.get_context("spawn").Pool(1)
            ended.enter_context(pool)
            sides = {
                "http": ended.enter_context(
                    cluster(folder / "http", broker.url("http"), OverHttp)
                ),
                "bus": ended.enter_context(
                    cluster(folder / "bus", broker.url("bus"), OverBus)
                ),
                "frames": ended.enter_context(
                    cluster(folder / "frames", broker.url(), Child)
                ),
            }
            for one in sides.values():
                measure(pool, one, "PUT", 8, 25, -1)
            for round_ in range(options.rounds):
                for method, clients in WORK:
                    for name, one in sides.items():
                        each = options.count // (4 if clients == 1 else clients)
                        found = measure(pool, one, method, clients, each, round_)
                        label = f"{method} c={clients} {name}"
                        figures.setdefault(label, []).append(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = {
        label: {what: statistics.median(f[what] for f in all_) for what in all_[0]}
        for label, all_ in figures.items()
    }
    for label, found in medians.items():
        shown = "  ".join(f"{what} {value:8.1f}" for what, value in found.items())
        print(f"{label:<16}{shown}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": facts, "medians": medians, "all": figures}
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
