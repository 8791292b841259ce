"""Resumable uploads: `python benchmarks/uploads.py --help`.

Rates of plain PUTs and of uploads in pieces, which take turns against one server; the
best of the rounds count. Then a server that is killed at random moments of uploads.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from multiprocessing.pool import Pool
from pathlib import Path
from threading import Timer

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import client, machine
from benchmarks.servers import Server

MIB = 1 << 20
GOAL = 0.85


def begin(port: int, target: str, size: int) -> str:
    """Begin an upload; gives the target of its parts."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", target, headers={"Size": str(size)})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 201:
        raise ConnectionError(f"status {answer.status}, not 201")
    return answer.headers["Location"]


def upload(port: int, target: str, size: int, piece: int) -> float:
    """Seconds of an upload in pieces whose bytes were made beforehand."""
    content = memoryview(os.urandom(size))
    started = time.perf_counter()
    token = begin(port, target, size)
    connection = client.Connection(port)
    for at in range(0, size, piece):
        part = content[at : at + piece]
        head = connection.head("PUT", token, len(part)).removesuffix(b"\r\n")
        connection.socket.sendall(head + f"Range: bytes={at}-\r\n\r\n".encode())
        connection.socket.sendall(part)
        connection.finish(200)
    took = time.perf_counter() - started
    connection.close()
    return took


def figure(port: int, name: str) -> float:
    """A figure of /metrics."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def rates(server: Server, pool: Pool, rounds: int, size: int, piece: int) -> bool:
    """Show the best rates; whether the goal is met."""
    puts, uploads = [], []
    for number in range(rounds):
        name = f"/objects/bench/{number}"
        puts.append(pool.apply(client.put, (server.port, f"{name}/put", size))[0])
        arguments = (server.port, f"{name}/upload", size, piece)
        uploads.append(pool.apply(upload, arguments))
        print(f"  {size / MIB / puts[-1]:6.0f} {size / MIB / uploads[-1]:6.0f} MiB/s")
    ratio = min(puts) / min(uploads)
    print(
        f"best: PUT {size / MIB / min(puts):.0f} MiB/s, in pieces of {piece >> 20} MiB "
        f"{size / MIB / min(uploads):.0f} MiB/s, ratio {ratio:.2f} (goal {GOAL})"
    )
    back = figure(server.port, "ostore_uploads_read_back_total")
    print(f"uploads that were read back to finish: {back:.0f} (goal 0)")
    return ratio >= GOAL and not back


class Killed:
    """A server over one root that is killed again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kills = 0
        self._start()

    def _start(self) -> None:
        self.server = Server.standalone(self._folder, [])
        self.server.__enter__()

    def kill(self) -> None:
        """SIGKILL."""
        self.kills += 1
        self.server.kill()

    def again(self) -> None:
        """Start it over the same root."""
        self.server.kill()
        self._start()

    def ask(
        self, method: str, target: str, first: int | None = None, body: bytes = b""
    ) -> tuple[int, int, bytes]:
        """Status, offset and body of an answer."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            headers = {} if first is None else {"Range": f"bytes={first}-"}
            connection.request(method, target, body or None, headers)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, int(answer.headers.get("Upload-Offset", -1)), data
        finally:
            connection.close()


def kills(folder: Path, count: int, seed: int) -> bool:
    """Kill a server so often in the middle of uploads; whether each ended exact."""
    rng, killed, number = random.Random(seed), Killed(folder), 0
    while killed.kills < count:
        number += 1
        content = rng.randbytes(rng.randrange(1, 24 * MIB))
        target = begin(killed.server.port, f"/objects/{number}", len(content))
        resumed(killed, rng, target, content, count)
        status, _, answer = killed.ask("PUT", target, len(content))
        found = killed.ask("GET", f"/objects/{number}")[2]
        digest = hashlib.sha256(content).digest()
        if status != 200 or hashlib.sha256(found).digest() != digest:
            print(f"upload {number} is not exact: {status} {answer[:200]!r}")
            return False
    print(
        f"{killed.kills} kills in {number} uploads: every one ended in the exact object"
    )
    killed.server.kill()
    return True


def resumed(
    killed: Killed, rng: random.Random, target: str, content: bytes, count: int
) -> None:
    """Send it through kills; SystemExit when something acknowledged is lost."""
    acknowledged = 0
    while True:
        status, held, _ = killed.ask("HEAD", target)
        if status == 404:
            return
        if held < acknowledged:
            raise SystemExit(f"{acknowledged} bytes were acknowledged, {held} are held")
        acknowledged = held
        timer = None
        if killed.kills < count:
            timer = Timer(rng.uniform(0, 0.35), killed.kill)
            timer.start()
        try:
            while acknowledged < len(content) or timer is None:
                size = rng.choice((1, 100_000, MIB, 8 * MIB))
                part = content[acknowledged : acknowledged + size]
                status, held, _ = killed.ask("PUT", target, acknowledged, part)
                if status != 200:
                    raise SystemExit(f"a part at {acknowledged} was answered {status}")
                acknowledged = held
                if held == len(content):
                    break
        except (OSError, HTTPException):
            pass
        if timer is not None:
            timer.join()
            killed.again()


def main() -> None:
    """Read the options, measure, and end with status 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="MiB of an object")
    parser.add_argument("--piece", type=int, default=8, help="MiB of a part")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ostore-uploads-"))
    good = True
    try:
        for key, value in machine.facts(folder).items():
            print(f"{key}: {value}")
        if given.rounds:
            with (
                multiprocessing.get_context("spawn").Pool(1) as pool,
                Server.standalone(folder, []) as server,
            ):
                size, piece = given.size * MIB, given.piece * MIB
                good = rates(server, pool, given.rounds, size, piece)
            shutil.rmtree(folder / "root")
        if given.kills:
            good = kills(folder, given.kills, given.seed) and good
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
