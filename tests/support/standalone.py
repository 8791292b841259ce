"""The whole standalone in this process: real folders, real threads, real sockets."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, ClassVar, cast
from urllib.parse import quote

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.trial.unittest import TestCase

from ostore.engine import mending
from ostore.service import member, process, standalone
from ostore.service.config import resolve
from ostore.service.failing import StartError
from ostore.service.secret import read_or_make
from ostore.service.standalone import Standalone
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.support.http import Answer, Connection, Headers, connect, exchange
from tests.support.segments import records

reactor = cast("IReactorTCP", installed)
clock = Clock(cast("IReactorTime", installed), time.monotonic, time.time)

NODES = range(1, 7)
TURNS = 4000
"""Looks, 5 ms apart, after which what does not happen never will."""


def sha256(content: bytes) -> str:
    """The hash in hex, as in the names of shards."""
    return hashlib.sha256(content).hexdigest()


def digest(content: bytes) -> tuple[str, str]:
    """The Digest header of a content."""
    raw = hashlib.sha256(content).digest()
    return "Digest", f"SHA-256={b64encode(raw).decode()}"


def some_bytes(size: int, seed: int = 0) -> bytes:
    """The same bytes for the same arguments, and no pattern in them."""
    return Random(f"{size} {seed}").randbytes(size)


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted; none when it is not there."""
    return sorted(
        Path(where) / name for where, _, names in os.walk(folder) for name in names
    )


class StandaloneCase(TestCase):
    """One standalone a test, over an empty root; `options` are settings as text.

    Shards are files of their own, or `packed` into segments as far as they may be.

    The watch over the roots and the first retry of a repair are quick, so that a
    test waits for what happens and not for a period.
    """

    timeout = 600
    options: ClassVar[Mapping[str, str]] = {}
    packed = False

    def setUp(self) -> Deferred[None]:  # type: ignore[override] # Trial waits for it
        """Start it."""
        self.patch(member, "WATCH", 0.05)
        self.patch(mending, "FIRST_WAIT", 0.05)
        self.patch(mending, "LONGEST_WAIT", 0.2)
        self.root = Path(self.mktemp()).absolute() / "root"
        self.service: Standalone | None = None
        self.port = 0
        self.connections: list[Connection] = []
        self.addCleanup(lambda: start(self._end()))
        return start(self.rise())

    async def _end(self) -> None:
        for connection in self.connections:
            await connection.close()
        await self.fall()

    async def rise(self, **options: str) -> None:
        """Start over the same root, with further options. Raises StartError."""
        given = {
            "storage-root": str(self.root),
            "listen": "127.0.0.1:0",
            "pack-limit": "1MiB" if self.packed else "0",
        }
        more = {key.replace("_", "-"): value for key, value in options.items()}
        settings = resolve("standalone", {**given, **self.options, **more}, {})
        ready: Deferred[None] = Deferred()
        self.patch(standalone, "say", lambda _: ready.callback(None))

        def fail(_: object, line: str) -> None:
            ready.errback(StartError(line))

        self.patch(process, "fail_start", fail)
        self.root.mkdir(parents=True, exist_ok=True)
        keys = read_or_make(settings.cluster_secret_file, os.urandom)
        self.service = Standalone(settings, keys, installed)
        self.service.startService()
        await ready
        assert self.service.port is not None
        self.port = cast("Any", self.service.port.getHost()).port

    async def fall(self) -> None:
        """Stop it as SIGTERM would. Idempotent."""
        service, self.service = self.service, None
        if service is not None:
            await service.stopService()

    # Asking

    async def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        return await exchange(reactor, self.port, method, target, headers, body)

    async def connected(self) -> Connection:
        """A connection that is closed at the end."""
        connection = await connect(reactor, self.port)
        self.connections.append(connection)
        return connection

    async def put(
        self, name: str, content: bytes, headers: Headers = ()
    ) -> dict[str, Any]:
        """Store it; gives the version's JSON."""
        answer = await self.ask("PUT", f"/objects/{quote(name)}", headers, content)
        self.assertEqual(answer.status, 200, answer.body)
        return dict(answer.json())

    async def get(self, name: str, version: int | None = None) -> Answer:
        """Ask for an object."""
        query = "" if version is None else f"?version={version}"
        return await self.ask("GET", f"/objects/{quote(name)}{query}")

    async def assert_reads(
        self, name: str, content: bytes, version: int | None = None
    ) -> None:
        """A GET gives exactly that."""
        answer = await self.get(name, version)
        self.assertEqual(answer.status, 200, answer.body[:500])
        self.assertTrue(answer.body == content, "the bytes differ")

    async def numbers(self, name: str) -> list[int]:
        """The numbers of a name's versions as /versions/ gives them."""
        return [each["version"] for each in await self.versions(name)]

    async def versions(self, name: str = "") -> list[dict[str, Any]]:
        """The lines of /versions/."""
        answer = await self.ask("GET", f"/versions/{quote(name, safe='')}")
        self.assertEqual(answer.status, 200, answer.body)
        return [Answer(200, (), line).json() for line in answer.body.splitlines()]

    def assert_problem(self, answer: Answer, status: int) -> None:
        """The answer is problem+json of that status."""
        self.assertEqual(answer.status, status, answer.body[:500])
        self.assertEqual(answer.get("content-type"), "application/problem+json")
        self.assertEqual(answer.json()["status"], status)

    # Looking at the disk

    def node(self, number: int) -> Path:
        """The folder of one node."""
        return self.root / "nodes" / str(number)

    def kept(self, hash: str = "") -> dict[int, list[Path]]:
        """Node -> its shard files of a content; of all contents without a hash."""
        return {
            number: [
                path
                for path in files_below(self.node(number) / "objects")
                if path.name.startswith(hash)
            ]
            for number in NODES
        }

    def lying(self, hash: str = "") -> dict[int, dict[str, bytes]]:
        """Node -> name -> bytes of its shards of a content, wherever they lie."""
        found: dict[int, dict[str, bytes]] = {}
        for number, paths in self.kept(hash).items():
            every = records(self.node(number))
            found[number] = {n: each for n, each in every.items() if n.startswith(hash)}
            found[number].update({path.name: path.read_bytes() for path in paths})
        return found

    def objects(self) -> list[str]:
        """Every shard of all nodes, as node/name."""
        return [f"{n}/{name}" for n, each in self.lying().items() for name in each]

    def temporaries(self) -> list[Path]:
        """Every file in any node's temp/."""
        return [path for n in NODES for path in files_below(self.node(n) / "temp")]

    def shards(self, content: bytes) -> dict[int, bytes]:
        """Shard number -> its file's bytes.

        Fails when a node has several, or two nodes have the same.
        """
        found: dict[int, bytes] = {}
        for number, shards in self.lying(sha256(content)).items():
            self.assertLess(len(shards), 2, f"node {number} has more than one shard")
            for name, data in shards.items():
                index = int(name.split(".")[1])
                self.assertNotIn(index, found)
                found[index] = data
        return found

    def shard(self, content: bytes, index: int) -> Path:
        """The file of one shard, wherever it lies."""
        name = f"{sha256(content)}.{index}."
        found = [p for n in NODES for p in self.kept(name)[n]]
        self.assertEqual(len(found), 1)
        return found[0]

    def lose(self, *numbers: int) -> None:
        """Delete the folders of some nodes."""
        for number in numbers:
            shutil.rmtree(self.node(number))

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until it holds; fails when it does not within TURNS looks."""
        for _ in range(TURNS):
            if holds():
                return
            await clock.sleep(0.005)
        self.fail(f"waited in vain: {what}")

    async def until_whole(self, content: bytes, shards: Mapping[int, bytes]) -> None:
        """Wait until six nodes hold the six shards again, byte for byte."""

        def whole() -> bool:
            try:
                return self.shards(content) == shards
            except FileNotFoundError:
                return False

        await self.until(whole, "six whole shards on six nodes")
