"""Ranges, and compression at rest: `python benchmarks/transfers.py --help`.

Two servers run side by side, one as it comes and one with `--compression none`; what is
compared alternates between them. Compare the ratios of one run, not figures of two.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import zstandard

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, machine
from benchmarks.servers import Server

MIB = 1 << 20
GOALS: tuple[tuple[str, Callable[[float, float], bool], float], ...] = (
    ("last byte / first, in memory", float.__le__, 3.0),
    ("last byte / first, from disk", float.__le__, 3.0),
    ("logs on disk / size", float.__le__, 0.35),
    ("random PUT / uncompressed", float.__ge__, 0.95),
    ("random on disk / uncompressed", float.__le__, 1.02),
)
ROUNDS = 25


def first_byte(port: int, target: str, first: int) -> float:
    """Seconds from the request to the first byte of the body; one byte is asked for."""
    connection = client.Connection(port)
    line = f"Range: bytes={first}-{first}\r\n\r\n".encode()
    head = connection.head("GET", target).removesuffix(b"\r\n") + line
    began = time.perf_counter()
    connection.socket.sendall(head)
    connection.finish(206)
    took = time.perf_counter() - began
    connection.close()
    return took


def logs(size: int) -> bytes:
    """JSON lines of a web service that `zstd -1` makes about 5 times smaller."""
    rng = random.Random(5)
    paths = [f"/api/v1/{word}" for word in ("users", "orders", "items", "health")]
    agents = ["curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64)", "python-requests/2.31"]
    lines = []
    length = 0
    moment = 1_700_000_000.0
    while length < size:
        moment += rng.random()
        line = json.dumps(
            {
                "time": round(moment, 3),
                "level": rng.choice(("info", "info", "info", "warning")),
                "method": rng.choice(("GET", "GET", "POST")),
                "path": f"{rng.choice(paths)}/{rng.randrange(10_000)}",
                "status": rng.choice((200, 200, 200, 201, 404)),
                "duration_ms": round(rng.expovariate(0.1), 2),
                "remote": f"10.0.{rng.randrange(4)}.{rng.randrange(256)}",
                "agent": rng.choice(agents),
                "request_id": f"{rng.getrandbits(192):048x}",
            }
        )
        lines.append(line)
        length += len(line) + 1
    return ("\n".join(lines) + "\n").encode()[:size]


def put(port: int, target: str, content: bytes) -> float:
    """Seconds of a PUT."""
    connection = client.Connection(port)
    began = time.perf_counter()
    connection.socket.sendall(connection.head("PUT", target, len(content)))
    connection.socket.sendall(content)
    connection.finish(200)
    took = time.perf_counter() - began
    connection.close()
    return took


def shards(folder: Path) -> list[Path]:
    """Every shard file below a server's root."""
    return [p for p in (folder / "root" / "nodes").rglob("objects/**/*") if p.is_file()]


def on_disk(folder: Path) -> int:
    """Bytes of all shards that the disk gives away."""
    return sum(path.stat().st_blocks * 512 for path in shards(folder))


def cold(folder: Path) -> None:
    """Have no shard in memory."""
    for path in shards(folder):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


class Bench:
    """One run; `raw` stores without compression."""

    def __init__(self, usual: Server, raw: Server, pool: Pool, folder: Path) -> None:
        self.figures: dict[str, float] = {}
        self._usual = usual
        self._raw = raw
        self._pool = pool
        self._folder = folder

    def ranges(self, size: int) -> None:
        """The first byte of a large object and its last, in turns."""
        port, target = self._usual.port, "/objects/large"
        self._pool.apply(client.put_stream, (port, target, size))
        for label, forget in (("in memory", False), ("from disk", True)):
            times: dict[int, list[float]] = {0: [], size - 1: []}
            for turn in range(ROUNDS + 3):
                for first, found in times.items():
                    if forget:
                        cold(self._folder / "usual")
                    took = self._pool.apply(first_byte, (port, target, first))
                    if turn >= 3:
                        found.append(took)
            start, end = (statistics.median(each) for each in times.values())
            self._note(f"first byte, {label}, ms", start * 1000)
            self._note(f"last byte, {label}, ms", end * 1000)
            self._note(f"last byte / first, {label}", end / start)

    def logs(self, size: int) -> None:
        """What JSON logs take of the disk, parity and all."""
        content = logs(size)
        before = on_disk(self._folder / "usual")
        shrunk = len(zstandard.ZstdCompressor(level=1).compress(content))
        self._note("logs, zstd -1 makes them smaller by", size / shrunk)
        self._pool.apply(put, (self._usual.port, "/objects/logs", content))
        taken = on_disk(self._folder / "usual") - before
        self._note("logs on disk / size", taken / size)

    def noise(self, size: int, rounds: int) -> None:
        """Random bytes to both servers in turns; the best of each, whatever else runs."""
        times: dict[str, list[float]] = {"usual": [], "raw": []}
        before = {name: on_disk(self._folder / name) for name in times}
        cpu = {server: server.cpu() for server in (self._usual, self._raw)}
        for turn in range(rounds):
            order = list(times) if turn % 2 else list(times)[::-1]
            for name in order:
                port = (self._usual if name == "usual" else self._raw).port
                took, _ = self._pool.apply(
                    client.put, (port, f"/objects/n{turn}", size)
                )
                times[name].append(took)
        best = {name: size / MIB / min(each) for name, each in times.items()}
        self._note("random PUT MiB/s", best["usual"])
        self._note("random PUT, uncompressed MiB/s", best["raw"])
        self._note("random PUT / uncompressed", best["usual"] / best["raw"])
        used = [server.cpu() - began for server, began in cpu.items()]
        self._note("random PUT CPU / uncompressed", used[0] / used[1])
        taken = {name: on_disk(self._folder / name) - before[name] for name in times}
        self._note("random on disk / uncompressed", taken["usual"] / taken["raw"])

    def _note(self, name: str, value: float) -> None:
        self.figures[name] = value
        print(f"{name:<40}{value:>10.3f}", flush=True)


def main(words: list[str]) -> int:
    """Measure, print, write JSON; the exit status says nothing about goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=["ranges", "logs", "noise"])
    parser.add_argument("--large", type=int, default=1024, help="MiB of the object")
    parser.add_argument("--rounds", type=int, default=15, help="PUTs to each server")
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, default=Path("build/transfers.json"))
    options = parser.parse_args(words)
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.root)).resolve()
    for name in ("usual", "raw"):
        (folder / name).mkdir()
    try:
        facts: dict[str, Any] = machine.facts(folder)
        with (
            Server.standalone(folder / "usual", []) as usual,
            Server.standalone(folder / "raw", ["--compression=none"]) as raw,
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            bench = Bench(usual, raw, pool, folder)
            if "ranges" in options.only:
                bench.ranges(options.large * MIB)
            if "logs" in options.only:
                bench.logs(64 * MIB)
            if "noise" in options.only:
                bench.noise(128 * MIB, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, within, bound in GOALS:
        if name in bench.figures:
            sign = "at least" if within is float.__ge__ else "at most"
            reached = "reached" if within(bench.figures[name], bound) else "MISSED"
            print(f"goal: {name} {sign} {bound:g}: {reached}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": facts, "figures": bench.figures}, indent=2)
    options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
