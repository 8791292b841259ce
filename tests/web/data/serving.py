"""The face of a node on a real loopback socket, before a real storage root."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorFromThreads
from twisted.trial.unittest import TestCase

from ostore.backends.nodes.protocol import FRAMES, digest_header
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.erasure.framing import Frame
from ostore.model.layouts import ShardKey
from ostore.model.signing import Caller, Guard, Nonces
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers, Workers
from ostore.streaming.site import StreamingSite
from ostore.streaming.tasks import start
from ostore.streaming.wire import wired
from ostore.web.data.root import DataApi
from tests.contracts.shards import Sample
from tests.support.http import Answer, Connection, connect
from tests.web.serving import MOST_TURNS, reactor, timers

P = ParamSpec("P")
T = TypeVar("T")

SECRET = b"the secret of this test's cluster, long enough"


def stream(frames: Sequence[Frame]) -> bytes:
    """Frames as they travel."""
    return b"".join(frame.header() + bytes(frame.block) for frame in frames)


def headers_of(frames: Sequence[Frame]) -> bytes:
    """What the digest of a framed body is over."""
    return b"".join(frame.header() for frame in frames)


class StalledWorkers:
    """Workers that a test can hold up; `waiting` counts what they were given since."""

    def __init__(self, inner: Workers) -> None:
        self.waiting = 0
        self._inner = inner
        self._gate: Deferred[None] | None = None

    def stall(self) -> None:
        """Begin nothing from now on."""
        self._gate = Deferred()

    def go_on(self) -> None:
        """Begin what has piled up, and all that comes."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.callback(None)

    def start(self) -> None:
        """Make ready."""
        self._inner.start()

    def stop(self) -> None:
        """Finish what is queued."""
        self._inner.stop()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` gives, once nothing holds it up."""
        if self._gate is not None:
            self.waiting += 1
            waiting: Deferred[None] = Deferred()
            _ = self._gate.addBoth(lambda _: waiting.callback(None))
            await waiting
        return await self._inner.run(work, *args, **kwargs)


class ServedNode(TestCase):
    """One node and its site a test; `lines` is its access log."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]  # Trial awaits it
        """Take a fresh root and listen on a free port."""
        self.lines: list[dict[str, object]] = []
        self.found_rotten: list[ShardKey] = []
        self.moved = 0.0
        self.clock = Clock(timers, time.monotonic, lambda: time.time() + self.moved)
        self.root = Path(self.mktemp()).resolve()
        self.node = ShardNode(
            str(self.root),
            self.files(),
            self.workers(),
            self.clock,
            os.urandom,
            durable=False,
        )
        await self.node.start()
        self.port = 0
        self.guard = Guard((SECRET,), lambda: {self.host}, self.clock.wall, Nonces())
        self.caller = Caller("test", SECRET, self.clock.wall, os.urandom)
        self.api = DataApi(
            self.node,
            self.guard,
            self.clock,
            os.urandom,
            self.lines.append,
            self.found_rotten.append,
        )
        self.site = StreamingSite(self.api, self.clock, os.urandom)
        listening = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        wired(listening)
        self.port = cast("IPv4Address", listening.getHost()).port
        self.connections: list[Connection] = []
        self.addCleanup(lambda: start(self._end(listening)))
        while self.node.store.scanning:
            await self.clock.sleep(0.001)

    def files(self) -> Files:
        """The file seam of the node."""
        return Files()

    def workers(self) -> Workers:
        """The threads of the node."""
        return ThreadWorkers(cast("IReactorFromThreads", reactor), 2, "shards")

    async def _end(self, listening: IListeningPort) -> None:
        """End every connection on both sides."""
        for connection in self.connections:
            await connection.close()
        stopped = listening.stopListening()
        assert stopped is not None
        await stopped
        await self.site.drain(5)
        await self.node.stop()

    @property
    def host(self) -> str:
        """What the node is called."""
        return f"127.0.0.1:{self.port}"

    @property
    def temp(self) -> Path:
        """The folder of temporaries."""
        return self.root / "temp"

    def signed(
        self, method: str, target: str, headers: Mapping[str, str] | None = None
    ) -> list[tuple[str, str]]:
        """The headers, and those that prove them."""
        given = dict(headers or {})
        proof = self.caller.headers(self.host, method, self.host, target, given)
        return [("Host", self.host), *given.items(), *proof.items()]

    async def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One signed request on a connection of its own."""
        return await self.send(
            method, target, self.signed(method, target, headers), body
        )

    async def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None = None,
    ) -> Answer:
        """One request with exactly these headers, and Content-Length for a body."""
        connection = await self.connected()
        sized = () if body is None else (("Content-Length", str(len(body))),)
        connection.ask(method, target, [*headers, *sized])
        if body:
            connection.send(body)
        try:
            return await connection.answer(method)
        finally:
            await connection.close()

    async def connected(self) -> Connection:
        """A connection that the end of the test closes."""
        connection = await connect(reactor, self.port)
        self.connections.append(connection)
        return connection

    async def put(self, one: Sample, query: str = "") -> Answer:
        """Store a shard in one request."""
        headers = {
            "X-Ostore-Layout": one.layout.header(),
            "Content-Type": FRAMES,
            "Digest": digest_of(one.frames),
        }
        target = f"{shard_target(one)}?do=put{query}"
        return await self.ask("POST", target, headers, stream(one.frames))

    async def create(self, query: str = "", size: int | None = None) -> str:
        """A new temporary."""
        headers = {} if size is None else {"Size": str(size)}
        answer = await self.ask("POST", f"/temp/some-name{query}", headers)
        self.assertEqual(answer.status, 201, answer.body)
        return answer.body.decode("ascii")

    async def patch(
        self, uuid: str, offset: int, body: bytes, kind: str = FRAMES
    ) -> Answer:
        """Append to a temporary."""
        headers = {"Upload-Offset": str(offset), "Content-Type": kind}
        return await self.ask("PATCH", f"/temp/{uuid}", headers, body)

    async def commit(
        self,
        uuid: str,
        key: ShardKey,
        layout: str,
        digest: str | None = None,
        query: str = "",
    ) -> Answer:
        """Make a temporary a shard."""
        headers = {"X-Ostore-Layout": layout}
        if digest is not None:
            headers["Digest"] = digest
        target = f"/temp/{uuid}?as={key.hash}.{key.index}{query}"
        return await self.ask("PUT", target, headers)

    def assert_problem(self, answer: Answer, status: int, slug: str) -> str:
        """The answer is that problem, and says who answered; gives its detail."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertEqual(answer.get("content-type"), "application/problem+json")
        problem = answer.json()
        self.assertEqual(problem["type"], f"urn:ostore:problem:{slug}")
        self.assertEqual(problem["status"], status)
        self.assertEqual(problem["request_id"], answer.get("x-request-id"))
        self.assertEqual(answer.get("x-ostore-node"), self.node.node_id)
        return str(problem["detail"])

    def files_below(self) -> dict[str, bytes]:
        """Every file of the root but the lock: what a request may change."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.name != "lock"
        }

    def open_below(self) -> list[str]:
        """Paths below the root that this process has open, but for the lock."""
        found = []
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(each.readlink()))
        return [
            path
            for path in found
            if path.startswith(f"{self.root}/") and not path.endswith("/lock")
        ]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds; fails when it does not within MOST_TURNS."""
        for _ in range(MOST_TURNS):
            if holds():
                return
            await self.clock.sleep(0.001)
        self.fail("what was waited for did not happen")


def digest_of(frames: Sequence[Frame]) -> str:
    """The `Digest` of a framed body."""
    return digest_header(hashlib.sha256(headers_of(frames)).digest())


def shard_target(one: Sample) -> str:
    """Where a shard is found."""
    return f"/objects/{one.key.hash}.{one.key.index}"
