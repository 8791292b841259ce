"""What a caller makes of data services that fail, hang, lie or vanish."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from ostore.backends.nodes import asking, download, sending, upload
from ostore.backends.nodes.client import HttpNodes, RemoteStore
from ostore.backends.nodes.pool import Address, Pool
from ostore.backends.nodes.protocol import FACTS, MAX_ANSWER, facts_to_json
from ostore.erasure.framing import Frame, TableBuilder
from ostore.interfaces import INodes
from ostore.model.errors import (
    NodeFull,
    NodeUnreachable,
    ShardError,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import Holding, ShardFacts
from ostore.model.signing import Caller
from ostore.streaming.client import HIGH, RECEIVE
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import gather, start
from tests.contracts.shards import Sample, sample
from tests.support.nodes import REAL, SECRET, Heard, connect
from tests.support.scripted import NODE, Request, Script, ScriptedNode, Session

HASH = "0" * 64
UPLOAD = "1" * 32
NONE = {"state": "none", "shards": []}
MIB = 1 << 20


def never(session: Session, request: Request) -> None:
    """A script: no answer."""


def nothing(session: Session, request: Request) -> None:
    """A script: it holds nothing; all that is written is taken."""
    if request.method == "GET":
        session.json(NONE)
    elif request.method in ("PUT", "POST"):
        session.answer(201)
    elif request.method == "DELETE":
        session.answer(204)


def packed(one: Sample) -> bytes:
    """The frames of a shard as they travel."""
    return b"".join(f.header() + bytes(f.block) for f in one.frames)


def opened(session: Session, one: Sample) -> None:
    """Answer ?part=index."""
    builder = TableBuilder(one.layout.data, one.layout.parity)
    for frame in one.frames:
        builder.append(frame.raw, frame.stored, frame.coding, frame.stripe_crc)
    facts = ShardFacts(one.key.hash, one.key.index, one.layout, 1, 0.0)
    session.answer(
        200, builder.table().to_bytes(), {FACTS: json.dumps(facts_to_json(facts))}
    )


@implementer(IStreamClientEndpoint)
class Nowhere:
    """Never connects; `given_up` counts those who stopped waiting."""

    def __init__(self) -> None:
        self.given_up = 0

    def connect(self, factory: object) -> Deferred[Any]:
        """For ever."""
        return Deferred(self._cancelled)

    def _cancelled(self, _: Deferred[Any]) -> None:
        self.given_up += 1


class ClientCase(TestCase):
    """One scripted node, a caller on a clock that only the test moves, real sockets."""

    timeout = 30

    def setUp(self) -> None:
        """Nothing runs yet."""
        self.time = task.Clock()
        self.clock = Clock(self.time, self.time.seconds, lambda: 1_700_000_000.0)

    def serve(self, script: Script, **limits: Any) -> RemoteStore:
        """A node that answers by that script, as the caller sees it."""
        self.server = ScriptedNode(script)
        self.heard = Heard()
        self.heard.hear(NODE, self.server.url)
        self.pool = Pool(connect, self.clock, **limits)
        self.addCleanup(lambda: start(self._end()))
        return self.reach(self.pool)

    def reach(self, pool: Pool) -> RemoteStore:
        """The store of the node through that pool."""
        caller = Caller("test", SECRET, self.clock.wall, os.urandom)
        self.nodes = HttpNodes(self.heard, caller, pool, self.clock, os.urandom)
        return self.nodes.store(NODE)

    async def _stop(self) -> None:
        stopping = start(self.nodes.stop())
        while not stopping.called:
            self.time.advance(1)
            await self.turn()
        await self.server.stop()
        await self.until(lambda: not self.server.open)
        await self.turn()

    async def _end(self) -> None:
        """Nothing may be left: no connection, no timer."""
        await self._stop()
        self.assertEqual(len(self.pool), 0)
        self.assertEqual(self.time.getDelayedCalls(), [])

    async def turn(self) -> None:
        """One turn of the reactor."""
        await REAL.sleep(0.001)

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the reactor turn until it holds."""
        while not holds():
            await self.turn()

    async def outcome(self, work: Awaitable[Any], seconds: float = 60.0) -> Any:
        """What `work` gives or raises while the clock goes on; checks its time."""
        found: list[Any] = []
        running = start(work)
        _ = running.addBoth(found.append)
        begun = self.time.seconds()
        while not found:
            for _each in range(20):
                await self.turn()
                if found:
                    break
            else:
                if self.time.seconds() - begun > seconds:
                    running.cancel()
                    self.fail(f"it took longer than {seconds} s")
                self.time.advance(0.5)
        (result,) = found
        return result.value if isinstance(result, Failure) else result

    async def failing(
        self, error: type[Exception], work: Awaitable[Any], seconds: float = 60.0
    ) -> Any:
        """The error of just that kind, within so much time."""
        found = await self.outcome(work, seconds)
        self.assertIsInstance(found, error)
        return found

    async def free(self) -> None:
        """Wait until no connection is open at either end."""
        await self.until(lambda: not self.server.open)
        self.assertEqual(len(self.pool), 0)


class Addresses(SynchronousTestCase):
    """Where a node listens is read strictly."""

    def test_urls(self) -> None:
        """Scheme, host and port; anything else is no address."""
        right = {
            "http://a:80": ("a", 80, False, "a:80", "a:80"),
            "http://a.b-c.d": ("a.b-c.d", 80, False, "a.b-c.d", "a.b-c.d:80"),
            "https://1.2.3.4:9000/": ("1.2.3.4", 9000, True, *["1.2.3.4:9000"] * 2),
            "https://[::1]": ("::1", 443, True, "[::1]", "[::1]:443"),
        }
        for url, expected in right.items():
            found = Address.parse(url)
            self.assertEqual(
                (found.host, found.port, found.secure, found.netloc, found.place),
                expected,
            )
        for url in (
            "",
            "nodes/1",
            "ftp://a:1",
            "http://",
            "http://a:0",
            "http://a:65536",
            "http://a:1/x",
            "http://u@a:1",
            "http://a:1?x",
            "http://a\r\nX: y:1",
            "http://a b",
            "http://-a",
            "http://a:1\n",
        ):
            self.assertRaises(NodeUnreachable, Address.parse, url)


class Reaching(ClientCase):
    """Connections that fail."""

    async def test_by_id(self) -> None:
        """Only nodes that were heard are reached, where their last heartbeat says."""
        self.serve(nothing)
        self.assertTrue(INodes.providedBy(self.nodes))
        self.assertRaises(NodeUnreachable, self.nodes.store, "cd" * 16)
        self.assertRaises(NodeUnreachable, self.nodes.place, "cd" * 16)
        self.assertEqual(f"http://{self.nodes.place(NODE)}", self.server.url)
        store = self.nodes.store(NODE)
        self.assertIs(self.nodes.store(NODE), store)
        self.heard.hear(NODE, "http://127.0.0.1:1")
        self.assertEqual(self.nodes.place(NODE), "127.0.0.1:1")
        await self.failing(NodeUnreachable, store.find(HASH))
        self.heard.hear(NODE, "somewhere")
        await self.failing(NodeUnreachable, store.find(HASH))

    async def test_refused(self) -> None:
        """A port where nobody listens."""
        store = self.serve(nothing)
        await self.server.close()
        for work in (
            store.find(HASH),
            store.create(UPLOAD),
            store.open(sample().key),
            store.space(),
        ):
            await self.failing(NodeUnreachable, work, 1)

    async def test_no_connection_in_time(self) -> None:
        """A host that swallows packets is given up after a second."""
        self.serve(nothing)
        nowhere = Nowhere()
        self.pool = Pool(lambda *_: nowhere, self.clock)
        store = self.reach(self.pool)
        await self.failing(NodeUnreachable, store.find(HASH), 1.5)
        self.assertEqual((nowhere.given_up, len(self.pool)), (1, 0))
        running = start(store.find(HASH))
        running.cancel()
        await self.failing(CancelledError, running)
        self.assertEqual((nowhere.given_up, len(self.pool)), (2, 0))

    async def test_bound(self) -> None:
        """Thousands of requests use no more connections than the limit."""
        store = self.serve(nothing, limit=5, spare=3)
        for turn in range(10):
            found = await gather(store.find(HASH) for _ in range(200))
            self.assertEqual(found, [Holding("none")] * 200)
            self.assertEqual(len(self.pool), 3)
            self.assertLessEqual(len(self.server.sessions), 5 + 2 * turn)
        self.assertEqual(len(self.server.requests), 2000)
        await self.until(lambda: len(self.server.open) <= 3)
        self.assertEqual(len(self.pool), len(self.server.open))

    async def test_queue(self) -> None:
        """Who waits for a connection too long is told so; a cancelled one leaves."""
        store = self.serve(never, limit=1, queue_time=2.0)
        first, second = start(store.find(HASH)), start(store.find(HASH))
        await self.until(lambda: self.server.requests)
        second.cancel()
        await self.failing(CancelledError, second)
        await self.failing(NodeUnreachable, store.find(HASH), 2.5)
        third = start(store.find(HASH))
        first.cancel()
        await self.failing(CancelledError, first)
        await self.until(lambda: len(self.server.requests) == 2)
        third.cancel()
        await self.failing(CancelledError, third)
        await self.free()

    async def test_idle_ones_are_closed(self) -> None:
        """A connection nobody uses is closed before the node would do so."""
        store = self.serve(nothing)
        await store.find(HASH)
        self.assertEqual(len(self.pool), 1)
        for _ in range(62):
            self.time.advance(0.5)
        await self.free()

    async def test_closed_while_idle(self) -> None:
        """A connection that the node closes is forgotten at once."""
        store = self.serve(nothing)
        await store.find(HASH)
        self.server.open[0].transport.loseConnection()
        await self.until(lambda: len(self.pool) == 0)
        await store.find(HASH)
        self.assertEqual(len(self.server.sessions), 2)

    async def test_bytes_while_idle(self) -> None:
        """A node that speaks unasked loses the connection."""
        store = self.serve(nothing)
        await store.find(HASH)
        self.server.open[0].send(b"HTTP/1.1 200 OK\r\n")
        await self.until(lambda: len(self.pool) == 0)
        await store.find(HASH)
        self.assertEqual(len(self.server.sessions), 2)


class Reuse(ClientCase):
    """A connection that dies just when it is used again."""

    def closing(self, session: Session, request: Request) -> None:
        """Answers one request on each connection and cuts the second."""
        if session in self.used:
            session.abort()
            return
        self.used.append(session)
        nothing(session, request)

    def begin(self) -> RemoteStore:
        """A node of that kind, and one connection used once."""
        self.used: list[Session] = []
        return self.serve(self.closing)

    async def test_repeated(self) -> None:
        """What may be done twice is tried once more, on a fresh connection."""
        store = self.begin()
        await store.find(HASH)
        self.assertEqual(await store.find(HASH), Holding("none"))
        self.assertEqual(len(self.server.requests), 3)
        nonces = {r.headers["X-Ostore-Nonce"] for r in self.server.requests}
        self.assertEqual(len(nonces), 3)
        await store.put_small(sample().key, sample().layout, sample().frames, None, 0)
        self.assertEqual(len(self.server.requests), 5)

    async def test_only_once(self) -> None:
        """A node that cuts fresh connections too is not asked a third time."""
        store = self.begin()
        await store.find(HASH)
        self.server.script = lambda session, _: session.abort()
        await self.failing(NodeUnreachable, store.find(HASH))
        self.assertEqual(len(self.server.requests), 3)
        await self.failing(NodeUnreachable, store.find(HASH))
        self.assertEqual(len(self.server.requests), 4)

    async def test_not_repeated(self) -> None:
        """What may have been done, and is another thing when done twice, is not."""
        store = self.begin()
        await store.find(HASH)
        await self.failing(NodeUnreachable, store.discard(sample().key, UPLOAD))
        self.assertEqual(len(self.server.requests), 2)

    async def test_create(self) -> None:
        """A temporary that may have been made is removed before it is made again."""
        store = self.begin()
        await store.find(HASH)

        def script(session: Session, request: Request) -> None:
            self.server.script = nothing
            session.abort()

        self.server.script = script
        sink = await store.create(UPLOAD)
        path = f"/temp/{UPLOAD}"
        self.assertEqual(
            self.server.asked[1:], [f"POST {path}", f"DELETE {path}", f"POST {path}"]
        )
        await sink.abort()


class Answers(ClientCase):
    """What a caller does not believe."""

    async def test_hangs(self) -> None:
        """A node that accepts and says nothing is given up, its connection cut."""
        store = self.serve(never)
        await self.failing(NodeUnreachable, store.find(HASH), asking.ANSWER + 1)
        await self.free()

    async def test_hangs_in_the_body(self) -> None:
        """So is one that stops in the midst of an answer."""

        def script(session: Session, request: Request) -> None:
            session.send(
                b"HTTP/1.1 200 OK\r\nX-Ostore-Node: %b\r\nContent-Length: 9\r\n\r\n{"
                % NODE.encode()
            )

        store = self.serve(script)
        await self.failing(NodeUnreachable, store.find(HASH), asking.PROGRESS + 1)
        await self.free()

    async def test_garbage(self) -> None:
        """Whatever is no answer of that very node is NodeUnreachable."""
        head = b"HTTP/1.1 200 OK\r\nX-Ostore-Node: %b\r\n" % NODE.encode()
        answers = [
            b"\0" * 100,
            b"hello\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 999 OK\r\n\r\n",
            head + b"no colon\r\n\r\n",
            head + b" folded: x\r\n\r\n",
            head + b"\r\n",
            head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            head + b"Content-Length: -2\r\n\r\n{}",
            head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            head + b"Transfer-Encoding: gzip\r\n\r\n{}",
            head + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            head + b"Content-Length: 2\r\n\r\n[]",
            head + b"Content-Length: 2\r\n\r\n{]",
            head + b"Content-Length: 17\r\n\r\n" + b'{"state": "none"}',
            head + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000,
            head + b"X: " + b"x" * 40_000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 421 X\r\nContent-Length: 0\r\n\r\n",
            head.replace(b"200", b"500") + b"Content-Length: 2\r\n\r\n{}",
            head.replace(b"200", b"304") + b"\r\n",
            head.replace(NODE.encode(), b"cd" * 16) + b"Content-Length: 2\r\n\r\n{}",
        ]
        store = self.serve(lambda session, _: session.send(answers[0]))
        while answers:
            await self.failing(NodeUnreachable, store.find(HASH), 1)
            answers.pop(0)

    async def test_interim_and_chunked(self) -> None:
        """Interim answers are passed over, chunks put together."""

        def script(session: Session, request: Request) -> None:
            session.send(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Ostore-Node: %b\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" % NODE.encode()
            )
            for piece in (b'{"state":', b' "none", "shards"', b": []}"):
                session.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            session.send(b"0\r\n\r\n")

        store = self.serve(script)
        for _ in range(3):
            self.assertEqual(await store.find(HASH), Holding("none"))
        self.assertEqual(len(self.server.sessions), 1)

    async def test_too_long(self) -> None:
        """An answer without end is cut at the limit."""

        def script(session: Session, request: Request) -> None:
            session.answer(200, b" " * (MAX_ANSWER + 4 * MIB))

        store = self.serve(script)
        await self.failing(NodeUnreachable, store.find(HASH), 1)
        await self.free()

    async def test_impossible_values(self) -> None:
        """Numbers no node can mean, and shards of another content."""
        facts = facts_to_json(
            ShardFacts(HASH, 0, sample().layout, bytes=1, age=0.0, state="whole")
        )
        wrong: list[dict[str, object]] = [
            {"hash": "1" * 64},
            {"hash": "../" * 21 + "x"},
            {"index": -1},
            {"index": 6},
            {"index": 1e999},
            {"bytes": -1},
            {"age": float("nan")},
            {"age": 1e999},
            {"k": 1e999},
            {"layout": "x"},
            {"state": "new"},
        ]
        for one in wrong:
            shown = {"state": "have", "shards": [{**facts, **one}]}
            store = self.serve(lambda session, _: session.json(shown))  # noqa: B023 - used within the turn
            await self.failing(NodeUnreachable, store.find(HASH))
            await self._stop()
        store = self.serve(
            lambda session, _: session.json({"free": 1e999, "total": "x"})
        )
        await self.failing(NodeUnreachable, store.space())

    async def test_errors(self) -> None:
        """Problems are the errors they stand for; others are refusals or the node's."""
        cases: list[tuple[int, str, type[ShardError]]] = [
            (404, "shard-missing", ShardMissing),
            (410, "shard-rotten", ShardRotten),
            (400, "shard-refused", ShardRefused),
            (507, "node-full", NodeFull),
            (503, "node-unreachable", NodeUnreachable),
            (409, "node-refused", ShardRefused),
            (400, "bad-request", ShardRefused),
            (413, "too-large", ShardRefused),
            (500, "internal", NodeUnreachable),
            (401, "unsigned", NodeUnreachable),
            (421, "other-node", NodeUnreachable),
        ]
        store = self.serve(lambda session, _: session.problem(*case[:2], "x" * 9999))
        for case in cases:
            error = await self.failing(case[2], store.open(sample().key))
            self.assertIs(type(error), case[2])
            self.assertLess(len(str(error)), 600)
        self.assertEqual(len(self.server.sessions), 1)

    async def test_wrong_time(self) -> None:
        """A request refused for its date is signed once more by the node's clock."""

        def script(session: Session, request: Request) -> None:
            if len(self.server.requests) == 1:
                session.answer(
                    401,
                    b'{"type": "urn:ostore:problem:wrong-time", "detail": ""}',
                    {"X-Ostore-Now": "1700009999.5"},
                )
            else:
                session.json(NONE)

        store = self.serve(script)
        await store.find(HASH)
        dates = [request.headers["X-Ostore-Date"] for request in self.server.requests]
        self.assertEqual(dates, ["1700000000", "1700009999"])

    async def test_wrong_time_for_ever(self) -> None:
        """Once more, and not again."""

        def script(session: Session, request: Request) -> None:
            session.problem(401, "wrong-time")

        store = self.serve(script)
        await self.failing(NodeUnreachable, store.find(HASH))
        self.assertEqual(len(self.server.requests), 2)

    async def test_cancelled(self) -> None:
        """Who no longer waits for an answer frees the connection."""
        store = self.serve(never)
        for work in (store.find(HASH), store.space(), store.open(sample().key)):
            running = start(work)
            await self.until(lambda: self.server.open)
            running.cancel()
            await self.failing(CancelledError, running)
            await self.free()


class Writing(ClientCase):
    """Sinks."""

    one: Sample
    taken: list[Frame]

    async def sink(self, script: Script = nothing) -> upload.RemoteSink:
        """A temporary at such a node."""
        self.store = self.serve(script)
        return await self.store.create(UPLOAD)

    def framed(self, session: Session) -> None:
        """A node that answers 204 at the end of a body, and says what it took."""
        if session.raw.endswith(b"0\r\n\r\n"):
            session.chunked = False
            self.taken += [f for f in self.one.frames if bytes(f.block) in session.raw]
            held = sum(len(f.block) for f in self.taken)
            session.answer(204, headers={"Upload-Offset": str(held)})

    async def test_deadline(self) -> None:
        """A commit bears the deadline by the node's clock, the age, and the digest."""
        self.one, self.taken = sample(1, 2 * MIB), []
        sink = await self.sink()
        self.server.streamed = self.framed
        self.time.advance(5)
        for frame in self.one.frames:
            await sink.write(frame)
        wall = self.clock.wall()
        self.server.clock = f"{wall + 500:.3f}"
        await sink.commit(self.one.key, self.one.layout, wall + 30, 12.5)
        request = self.server.requests[-1]
        self.assertEqual(
            request.target,
            f"/temp/{UPLOAD}?as={self.one.key.hash}.0&age=12.500"
            f"&deadline={int((wall + 530) * 1000)}",
        )
        self.assertEqual(request.headers["X-Ostore-Layout"], self.one.layout.header())
        self.assertTrue(request.headers["Digest"].startswith("SHA-256="))
        await self.failing(ShardRefused, sink.write(self.one.frames[0]))
        await sink.abort()
        self.assertNotIn(f"DELETE /temp/{UPLOAD}", self.server.asked)

    async def test_clock_is_asked_before_a_deadline(self) -> None:
        """A deadline is never sent to a node whose clock is not known."""
        store, one = self.serve(nothing), sample()
        await store.put_small(one.key, one.layout, one.frames, 1_700_000_030.0, 0)
        self.assertEqual(self.server.asked[0], "GET /node")
        await store.put_small(one.key, one.layout, one.frames, 1_700_000_030.0, 0)
        self.assertEqual(len(self.server.requests), 3)

    async def test_early_answer(self) -> None:
        """A node that refuses in the midst of a body is heard at the next frame."""
        for status, slug, error in (
            (507, "node-full", NodeFull),
            (409, "node-refused", ShardRefused),
            (401, "unsigned", NodeUnreachable),
        ):
            sink = await self.sink()
            one = sample(1, 40 * MIB)

            def script(session: Session, request: Request) -> None:
                if request.method == "PATCH":
                    session.problem(status, slug)  # noqa: B023 - used within the turn
                else:
                    nothing(session, request)

            self.server.script = script

            async def write() -> None:
                for frame in one.frames:  # noqa: B023 - as above
                    await sink.write(frame)  # noqa: B023 - as above
                    await self.turn()

            await self.failing(error, write(), 1)
            await self.failing(error, sink.write(one.frames[0]), 1)
            await sink.abort()
            self.assertEqual(self.server.asked[-1], f"DELETE /temp/{UPLOAD}")
            await self._stop()

    async def test_cut_at_the_end(self) -> None:
        """A node that cuts the body, or took less than was sent, fails the commit."""
        one = sample(1, MIB)

        def cut(session: Session) -> None:
            session.abort()

        def less(session: Session) -> None:
            if session.raw.endswith(b"0\r\n\r\n"):
                session.chunked = False
                session.answer(204, headers={"Upload-Offset": "17"})

        for streamed in (cut, less):
            sink = await self.sink()
            self.server.streamed = streamed
            with_frame = await self.outcome(sink.write(one.frames[0]))
            self.assertNotIsInstance(with_frame, CancelledError)
            await self.failing(
                NodeUnreachable, sink.commit(one.key, one.layout, None, 0)
            )
            await sink.abort()
            await self._stop()

    async def blocked(self, sink: upload.RemoteSink, one: Sample) -> Deferred[None]:
        """A write that waits for a node that does not read."""
        for number in range(1, 100_000):
            frame = one.frames[0]
            sink._frames = 0
            running = start(sink.write(frame))
            for _ in range(5):
                await self.turn()
            if not running.called:
                return running
            await running
            self.assertLess(number, 1000)
        raise AssertionError

    async def test_node_that_does_not_read(self) -> None:
        """The write waits, fails in time, and the connection is cut."""
        sink = await self.sink()
        self.server.open[0].transport.pauseProducing()
        running = await self.blocked(sink, sample(1, MIB))
        await self.failing(NodeUnreachable, running, asking.PROGRESS + 1)
        await sink.abort()

    async def test_cancelled_write(self) -> None:
        """A cancelled write cuts the body; abort removes the temporary."""
        sink = await self.sink()
        self.server.open[0].transport.pauseProducing()
        running = await self.blocked(sink, sample(1, MIB))
        running.cancel()
        await self.failing(CancelledError, running)
        stuck = self.server.open[0]
        await sink.abort()
        stuck.transport.resumeProducing()
        await self.until(lambda: stuck.lost)
        self.assertIn(f"DELETE /temp/{UPLOAD}", self.server.asked)

    async def test_abort_goes_on(self) -> None:
        """The temporary is removed though the one who asked for it was cancelled."""
        sink = await self.sink()
        await sink.write(sample(1, MIB).frames[0])
        running = start(sink.abort())
        running.cancel()
        await self.failing(CancelledError, running)
        await self.until(lambda: f"DELETE /temp/{UPLOAD}" in self.server.asked)
        await sink.abort()
        await sink.abort()

    async def test_abort_of_a_hanging_node(self) -> None:
        """Ends in time, says nothing."""
        sink = await self.sink()
        self.server.script = never
        self.assertIsNone(await self.outcome(sink.abort(), upload.REMOVAL + 1))
        await self.free()

    async def test_abort_after_the_end(self) -> None:
        """A sink that outlives the service is given up at once."""
        sink = await self.sink()
        await self.nodes.stop()
        await self.outcome(sink.abort(), 0)
        await self.failing(NodeUnreachable, sink.write(sample().frames[0]))

    async def test_create_given_up(self) -> None:
        """A temporary that may have been made is removed when its maker goes away."""
        store = self.serve(never)
        running = start(store.create(UPLOAD))
        await self.until(lambda: self.server.requests)
        self.server.script = nothing
        running.cancel()
        await self.failing(CancelledError, running)
        await self.until(lambda: f"DELETE /temp/{UPLOAD}" in self.server.asked)

    async def test_commit_hangs(self) -> None:
        """A node that is silent at the commit is given up."""
        sink, one = await self.sink(), sample(0, 0)
        self.server.script = never
        await self.failing(
            NodeUnreachable,
            sink.commit(one.key, one.layout, None, 0),
            asking.COMMIT + 1,
        )
        self.server.script = nothing
        await sink.abort()
        self.assertEqual(self.server.asked[-1], f"DELETE /temp/{UPLOAD}")

    async def test_rest(self) -> None:
        """A sink that waits for long holds no connection, and goes on where it was."""
        self.one, self.taken = sample(1, 2 * MIB), []
        sink = await self.sink()
        self.server.streamed = self.framed
        await sink.write(self.one.frames[0])
        await self.turn()
        self.time.advance(sending.REST)
        await self.until(lambda: self.taken)
        await self.until(lambda: not self.pool._peers or self.idle())
        await sink.write(self.one.frames[1])
        await sink.commit(self.one.key, self.one.layout, None, 0)
        patches = [r for r in self.server.requests if r.method == "PATCH"]
        self.assertEqual(
            [request.headers["Upload-Offset"] for request in patches],
            ["0", str(len(self.one.frames[0].block))],
        )
        self.assertEqual(len(self.server.sessions), 1)

    def idle(self) -> bool:
        """Whether nobody uses a connection."""
        return all(not peer.busy for peer in self.pool._peers.values())


class Reading(ClientCase):
    """Streams."""

    def shard(self, frames: Script) -> RemoteStore:
        """A node with one shard, whose frames that script sends."""
        self.one = sample(1, 4 * MIB)

        def script(session: Session, request: Request) -> None:
            if "part=index" in request.target:
                opened(session, self.one)
            else:
                frames(session, request)

        return self.serve(script)

    async def stream(self, frames: Script) -> download.RemoteStream:
        """A stream of that shard."""
        reader = await self.shard(frames).open(self.one.key)
        return reader.frames(0, 4)

    def part(self, session: Session, request: Request) -> None:
        """The frames that were asked for."""
        first = int(request.target.rpartition("stripes=")[2].partition("-")[0])
        whole = packed(self.one)
        session.answer(200, whole[first * len(whole) // 4 :])

    async def test_another_shard(self) -> None:
        """A table of another layout, and facts of another shard, are not believed."""
        store = self.shard(never)
        key = self.one.key
        for other in (sample(2, 4 * MIB), sample(1, MIB), sample(1, 4 * MIB, 3)):
            self.one = other
            await self.failing(NodeUnreachable, store.open(key))

    async def test_cut(self) -> None:
        """A cut answer is rot when the node says so afterwards, else the node's."""
        for after, error in (
            ((410, "shard-rotten"), ShardRotten),
            ((404, "shard-missing"), ShardMissing),
            ((503, "node-unreachable"), NodeUnreachable),
            (None, NodeUnreachable),
        ):

            def cut(session: Session, request: Request) -> None:
                session.answer(200, packed(self.one), cut=MIB // 2)
                if after is not None:  # noqa: B023 - used within the turn
                    self.server.script = lambda s, _: s.problem(*after)  # noqa: B023 - as above

            stream = await self.stream(cut)
            frame = await stream.read()
            self.assertEqual(frame, self.one.frames[0])
            await self.failing(error, stream.read(), 1)
            await stream.close()
            await self._stop()

    async def test_damaged_on_the_way(self) -> None:
        """A block that differs from its checksum is never given out."""

        def damaged(session: Session, request: Request) -> None:
            body = bytearray(packed(self.one))
            body[MIB // 2] ^= 1
            session.answer(200, bytes(body))

        stream = await self.stream(damaged)
        await stream.read()
        await self.failing(NodeUnreachable, stream.read(), 1)
        await stream.close()

    async def test_other_frames(self) -> None:
        """Frames that are whole but not those of the table are never given out."""
        right = sample(1, 4 * MIB)
        for other in (sample(2, 4 * MIB), sample(1, 4 * MIB, data=2)):

            def frames(session: Session, request: Request) -> None:
                session.answer(200, packed(other))  # noqa: B023 - used within the turn

            stream = await self.stream(frames)
            self.assertEqual(self.one, right)
            await self.failing(NodeUnreachable, stream.read(), 1)
            await stream.close()
            await self._stop()

    async def test_hangs(self) -> None:
        """A node that stops in the midst of frames is given up."""

        def half(session: Session, request: Request) -> None:
            session.send(
                b"HTTP/1.1 200 OK\r\nX-Ostore-Node: %b\r\nContent-Length: %d\r\n\r\n"
                % (NODE.encode(), len(packed(self.one)))
            )
            session.send(packed(self.one)[: MIB // 2])

        stream = await self.stream(half)
        await stream.read()
        await self.failing(NodeUnreachable, stream.read(), asking.PROGRESS + 3)
        await stream.close()
        running = start(stream.read())
        self.assertIsNone(await running)

    async def test_closed_half_way(self) -> None:
        """Closing, or cancelling a read, frees the connection."""
        stream = await self.stream(self.part)
        await stream.read()
        await stream.close()
        await stream.close()
        self.assertIsNone(await stream.read())
        await self.free()
        self.server.script = lambda session, _: opened(session, self.one)
        reader = await self.nodes.store(NODE).open(self.one.key)
        self.server.script = never
        stream = reader.frames(0, 4)
        running = start(stream.read())
        await self.until(lambda: len(self.server.requests) == 4)
        running.cancel()
        await self.failing(CancelledError, running)
        await stream.close()
        await self.free()

    async def test_whole(self) -> None:
        """A stream that was read to its end leaves its connection for others."""
        stream = await self.stream(self.part)
        for frame in self.one.frames:
            self.assertEqual(await stream.read(), frame)
        self.assertIsNone(await stream.read())
        self.assertEqual(len(self.server.sessions), 1)
        self.assertEqual(len(self.pool), 1)
        await stream.close()

    async def test_read_ahead(self) -> None:
        """A reader that does not read holds what two recvs gave, and no more."""
        await self.stream(self.part)
        self.one = sample(1, 64 * MIB)
        reader = await self.nodes.store(NODE).open(self.one.key)
        stream = reader.frames(0, 64)
        await stream.read()
        assert stream._exchange is not None
        connection = stream._exchange._connection
        for _ in range(50):
            await self.turn()
        self.assertLessEqual(connection._gate.held, HIGH + RECEIVE)
        self.assertLessEqual(len(stream._parser._block), RECEIVE)
        await stream.close()

    async def test_rest(self) -> None:
        """A reader that rests lets go of the answer, and goes on where it was."""
        stream = await self.stream(self.part)
        found = [await stream.read()]
        self.time.advance(download.REST)
        self.assertEqual(len(self.pool), 0)
        for _ in range(3):
            found.append(await stream.read())
        self.assertEqual(found, list(self.one.frames))
        self.assertIsNone(await stream.read())
        self.assertIn("stripes=1-3", self.server.requests[-1].target)
        await stream.close()
