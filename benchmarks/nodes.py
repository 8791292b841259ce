"""The engine over data services beside the engine over folders of its own process.

`python benchmarks/nodes.py [--processes 2] [--mib 64] [--rounds 7]`. Six nodes each
way, on the same disk; the services run in `--processes` children. No HTTP stands
before the engine, and the bus is in memory: the figures tell what lies between engine
and nodes. Rounds alternate; compare the ratios of one run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

sys.path.insert(0, str(Path(__file__).parents[1]))

from ostore.backends.bus.memory import MemoryBus
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import ThreadWriter
from ostore.backends.nodes.client import HttpNodes
from ostore.backends.nodes.local import LocalNodes
from ostore.backends.nodes.pool import Pool
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.engine.announcing import Announcer
from ostore.engine.store import PutRequest
from ostore.interfaces import INodes
from ostore.model.messages import Signer
from ostore.model.nodes import Boot, Heartbeat
from ostore.model.signing import Caller, Guard, Nonces
from ostore.service.assembly import Engine, assemble
from ostore.service.settings import Settings
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers
from ostore.streaming.schedule import Repeated
from ostore.streaming.site import StreamingSite
from ostore.streaming.tasks import start
from ostore.web.data.root import DataApi

reactor: Any = installed
CLOCK = Clock(reactor, time.monotonic, time.time)
SECRET = b"a secret that guards nothing at all"
MIB = 1 << 20
PIECE = 256 << 10
NODES = 6
THREADS = 3
SETTINGS = SimpleNamespace(
    heartbeat=5.0,
    node_timeout=15.0,
    locate_timeout=1.0,
    data_shards=4,
    parity_shards=2,
    write_quorum=5,
    laggard=5.0,
    orphan_grace=3600.0,
    rebuild_delay=600.0,
    compression="none",
    codec="auto",
)


async def opened(folder: Path, number: int) -> ShardNode:
    """A node with its root below that folder."""
    root = str(folder / f"node{number}")
    workers = ThreadWorkers(reactor, THREADS, "shards")
    node = ShardNode(root, Files(), workers, CLOCK, os.urandom)
    await node.start()
    return node


async def serve(folder: Path, numbers: list[int]) -> None:
    """Be a process of data services until SIGTERM; says `{node id} {port}` for each."""
    for number in numbers:
        node = await opened(folder, number)
        hosts: set[str] = set()
        guard = Guard([SECRET], lambda hosts=hosts: hosts, CLOCK.wall, Nonces())  # type: ignore[misc]  # a default binds it
        site = StreamingSite(
            DataApi(node, guard, CLOCK, os.urandom, lambda _: None), CLOCK, os.urandom
        )
        port = reactor.listenTCP(0, site, interface="127.0.0.1").getHost().port
        hosts.add(f"127.0.0.1:{port}")
        print(node.node_id, port, flush=True)


def cpu_of(children: list[int]) -> float:
    """CPU seconds of this process and of those."""
    used = time.process_time()
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


@contextmanager
def services(
    folder: Path, processes: int
) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Node id -> URL of six nodes in so many children, and their process ids."""
    found: dict[str, str] = {}
    children = []
    try:
        for process in range(processes):
            mine = [str(n) for n in range(NODES) if n % processes == process]
            command = [sys.executable, __file__, "--serve", ",".join(mine)]
            command += ["--root", str(folder)]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            children.append(child)
            assert child.stdout is not None
            for _ in mine:
                node, port = child.stdout.readline().split()
                found[node] = f"http://127.0.0.1:{port}"
        yield found, [child.pid for child in children]
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
            child.wait(20)


class Body:
    """So many random bytes, the first few new each time."""

    def __init__(self, noise: bytes) -> None:
        self._pieces = iter(
            [os.urandom(16) + noise[16:PIECE]]
            + [noise[at : at + PIECE] for at in range(PIECE, len(noise), PIECE)]
        )

    async def read(self) -> bytes:
        """The next piece."""
        return next(self._pieces, b"")


class Side:
    """One engine and its six nodes."""

    engine: Engine

    async def rise(self, folder: Path, nodes: INodes, urls: dict[str, str]) -> None:
        """Start it; every node has a voice on a bus of this process."""
        bus, signer = MemoryBus(CLOCK), Signer([SECRET])
        folder.mkdir(parents=True, exist_ok=True)
        workers = ThreadWorkers(reactor, THREADS, "metadata")
        workers.start()
        writer = ThreadWriter(reactor)
        metadata = SqliteStore(str(folder / "metadata"), CLOCK, workers, writer)
        await metadata.start()
        ours = bus.member()
        self.engine = assemble(
            cast("Settings", SETTINGS),
            ours,
            nodes,
            metadata,
            signer,
            CLOCK,
            os.urandom,
            workers,
            expected=frozenset(urls),
        )
        await ours.start()
        await self.engine.cluster.start()

        async def fall() -> None:
            await metadata.stop()
            workers.stop()

        reactor.addSystemEventTrigger("during", "shutdown", lambda: start(fall()))
        for node, url in urls.items():
            await self._speak(bus, signer, nodes, node, url)
        while not self.engine.cluster.settled:
            await CLOCK.sleep(0.01)

    async def _speak(
        self, bus: MemoryBus, signer: Signer, nodes: INodes, node: str, url: str
    ) -> None:
        beats = 0

        def beat() -> Heartbeat:
            nonlocal beats
            beats += 1
            room = 1 << 40
            boot = Boot(1, "0" * 16)
            return Heartbeat(
                node, boot, beats, url, url, room, room, 0, "up", CLOCK.wall()
            )

        def repeated(work: Callable[[], Any]) -> Repeated:
            return Repeated(CLOCK, 5.0, work, os.urandom, Logger(), what="beating")

        member = bus.member()
        await member.start()
        beat_first = beat()
        await member.publish("apiServers", signer.seal(beat_first))
        await CLOCK.sleep(0.01)
        store = nodes.store(node)
        voice = Announcer(member, signer, CLOCK, node, store, beat, repeated)
        await voice.start()

    async def put(self, noise: bytes, name: str) -> None:
        """Store a content."""
        version = await self.engine.store.put(PutRequest(name), Body(noise))
        if version.degraded:
            raise SystemExit("a node was left out: the machine is too busy")

    async def get(self, name: str) -> None:
        """Read it."""
        found = await self.engine.store.open(name)
        stream = await found.read(0, found.version.size)
        hasher = hashlib.sha256()
        while piece := await stream.read():
            hasher.update(piece)
        await stream.close()
        if hasher.hexdigest() != found.version.hash:
            raise SystemExit("other bytes came back")


async def timed(work: Awaitable[object], children: list[int]) -> tuple[float, float]:
    """Wall and CPU seconds of all processes."""
    wall, cpu = time.perf_counter(), cpu_of(children)
    await work
    return time.perf_counter() - wall, cpu_of(children) - cpu


async def compare(
    folder: Path, urls: dict[str, str], children: list[int], mib: int, rounds: int
) -> None:
    """Measure both sides in turns, and print."""
    local, remote = Side(), Side()
    here = LocalNodes()
    places: dict[str, str] = {}
    for number in range(NODES):
        node = await opened(folder / "local", number)
        places[node.node_id] = f"nodes/{number}"
        here.add(node.node_id, node.store, places[node.node_id])
        reactor.addSystemEventTrigger("during", "shutdown", partial(end, node))
    await local.rise(folder / "local", here, places)

    def connect(host: str, port: int, secure: bool) -> IStreamClientEndpoint:
        return TCP4ClientEndpoint(reactor, host, port)

    caller = Caller("bench", SECRET, CLOCK.wall, os.urandom)
    pool = Pool(connect, CLOCK)
    there = HttpNodes(
        lambda: remote.engine.cluster.members, caller, pool, CLOCK, os.urandom
    )
    await remote.rise(folder / "remote", there, urls)
    sides = {"local": local, "http": remote}
    noise, small = os.urandom(mib * MIB), os.urandom(4096)
    figures: dict[str, list[tuple[float, float]]] = {}
    for turn in range(rounds):
        for label, side in sides.items():
            for what, work in (
                (f"put {mib} MiB", side.put(noise, f"large{turn}")),
                (f"get {mib} MiB", side.get(f"large{turn}")),
            ):
                figures.setdefault(f"{label} {what}", []).append(
                    await timed(work, children)
                )
            for number in range(30):
                work = side.put(small, f"small{turn}-{number}")
                figures.setdefault(f"{label} put 4 KiB", []).append(
                    await timed(work, children)
                )
    for what in (f"put {mib} MiB", f"get {mib} MiB", "put 4 KiB"):
        walls = {}
        for label in sides:
            times = figures[f"{label} {what}"]
            wall = walls[label] = statistics.median(t[0] for t in times)
            cpu = statistics.mean(t[1] for t in times)
            rate = f"{mib * MIB / 1e6 / wall:8.0f} MB/s" if "MiB" in what else ""
            print(
                f"{label:6}{what:12}{wall * 1000:10.2f} ms{cpu * 1000:10.2f} ms CPU {rate}"
            )
        print(f"{'ratio':6}{what:12}{walls['local'] / walls['http']:10.2f}")
    await there.stop()


def end(node: ShardNode) -> object:
    """Stop a node when the reactor stops."""
    return start(node.stop())


def run(work: Callable[[], Awaitable[None]], *, stay: bool) -> int:
    """Run the reactor for it; the exit status."""
    status = 0

    async def all_of_it() -> None:
        nonlocal status
        try:
            await work()
        except BaseException:
            status = 1
            raise
        finally:
            if status or not stay:
                reactor.stop()

    def failed(failure: Failure) -> None:
        print(failure.getTraceback(), file=sys.stderr)

    def begin() -> None:
        _ = start(all_of_it()).addErrback(failed)

    reactor.callWhenRunning(begin)
    reactor.run()
    return status


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.serve:
        numbers = [int(number) for number in options.serve.split(",")]
        return run(partial(serve, options.root, numbers), stay=True)
    options.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.root)).resolve()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        urls, children = stack.enter_context(
            services(folder / "remote", options.processes)
        )
        work = partial(compare, folder, urls, children, options.mib, options.rounds)
        return run(work, stay=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
