"""What a caller makes of conversations that fail, hang, lie or are not to be had."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet.defer import CancelledError

from ostore.backends.nodes import operations as ops
from ostore.backends.nodes import talking
from ostore.backends.nodes.framed import FramedNodes, FramedStore
from ostore.backends.nodes.operations import Operation, Status
from ostore.backends.nodes.pool import Pool
from ostore.backends.nodes.records import (
    CREDIT,
    LEAST_ASKED,
    LENGTH,
    PROTOCOL,
    SALT,
    TARGET,
    Cutter,
    answered,
    unsealed,
)
from ostore.model.errors import (
    NodeFull,
    NodeUnreachable,
    ShardMissing,
    ShardRefused,
)
from ostore.model.layouts import Holding, ShardFacts
from ostore.model.signing import Caller, conversation_key
from ostore.streaming.tasks import gather, start
from tests.backends.test_nodes_client import HASH, ClientCase, nothing
from tests.contracts.shards import sample
from tests.support.nodes import SECRET
from tests.support.scripted import NODE, Request, ScriptedNode, Session

EMPTY = b"".join(ops.pack_holding(Holding("none")))
NONE = Holding("none")
CREDITS = "operations=8; bytes=400000"

Answering = Callable[[Session, int, int, bytes], None]


def done(session: Session, number: int, result: bytes = EMPTY) -> None:
    """Answer one operation."""
    session.send(answered(number, Status.DONE, 1_700_000_000.0, (result,)))


def finds(session: Session, number: int, operation: int, data: bytes) -> None:
    """Answer every operation with an empty holding."""
    done(session, number)


class TalkingCase(ClientCase):
    """One scripted node that knows conversations, unless told otherwise."""

    store: FramedStore

    def setUp(self) -> None:
        """Nothing was asked yet."""
        super().setUp()
        self.credit = CREDITS
        self.asked: list[tuple[int, bytes]] = []
        self.answering: Answering = finds
        self.talkers: list[Session] = []

    def reach(self, pool: Pool) -> FramedStore:
        """The store of the node through that pool, in conversation."""
        caller = Caller("test", SECRET, self.clock.wall, self.chance)
        self.nodes = FramedNodes(self.heard, caller, pool, self.clock, self.chance)
        store = self.nodes.store(NODE)
        assert isinstance(store, FramedStore)
        return store

    def chance(self, count: int) -> bytes:
        """No chance at all."""
        return b"\x7f" * count

    def script(self, session: Session, request: Request) -> None:
        """Begin a conversation; hold nothing."""
        if request.target != TARGET:
            nothing(session, request)
            return
        salt = b"\x07" * 16
        key = conversation_key(SECRET, request.headers["Authorization"], salt)
        lines = {
            "X-Ostore-Node": NODE,
            "X-Ostore-Now": self.server.clock,
            "Connection": "Upgrade",
            "Upgrade": PROTOCOL,
            SALT: salt.hex(),
            CREDIT: self.credit,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        session.send(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode())
        session.chunked, session.raw = True, b""
        self.talkers.append(session)
        cutter = Cutter(LEAST_ASKED)

        def streamed(session: Session) -> None:
            data, session.raw = session.raw, b""
            for record in cutter.feed(data):
                number, operation, words = unsealed(key, record)
                self.asked.append((operation, bytes(words)))
                self.answering(session, number, operation, bytes(words))

        self.server.streamed = streamed

    async def begun(self) -> FramedStore:
        """A store that is in conversation with its node."""
        store = self.serve(self.script)
        assert isinstance(store, FramedStore)
        await store.talk.begin()
        self.assertTrue(store.talk.stands)
        return store

    def requests(self) -> list[str]:
        """Ordinary requests, that is."""
        return [each for each in self.server.asked if each != f"GET {TARGET}"]


class Beginning(TalkingCase):
    """Conversations are had, or not, without anybody waiting."""

    async def test_made_at_first_need(self) -> None:
        """The first operation is a request; a conversation is begun beside it, once."""
        store = self.serve(self.script)
        assert isinstance(store, FramedStore)
        for each in await gather([store.find(HASH), store.find(HASH)]):
            self.assertEqual(each, NONE)
        self.assertEqual(self.requests(), [f"GET /objects/{HASH}"] * 2)
        await self.until(lambda: store.talk.stands)
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(self.asked, [(Operation.FIND, bytes.fromhex(HASH))])
        self.assertEqual(len(self.requests()), 2)
        self.assertEqual(
            self.nodes_figures(),
            {"ostore_node_conversations": 1, "ostore_node_operations_total": 1},
        )

    def nodes_figures(self) -> dict[str, float]:
        """What /metrics would show."""
        assert isinstance(self.nodes, FramedNodes)
        return dict(self.nodes.figures())

    async def test_near(self) -> None:
        """A node is near while a question to it is one record."""
        store = self.serve(self.script)
        assert isinstance(store, FramedStore)
        assert isinstance(self.nodes, FramedNodes)
        self.assertFalse(self.nodes.near("cd" * 16))
        self.assertFalse(self.nodes.near(NODE))
        await self.until(lambda: store.talk.stands)
        self.assertTrue(self.nodes.near(NODE))
        self.answering = lambda *_: None
        running = [start(store.find(HASH)) for _ in range(8)]
        self.assertFalse(self.nodes.near(NODE))
        await self.until(lambda: len(self.asked) == 8)
        self.talkers[0].abort()
        self.assertEqual(await gather(running), [NONE] * 8)
        self.assertFalse(self.nodes.near(NODE))

    async def test_older_node(self) -> None:
        """A node that knows no conversations is asked for one once a minute."""
        store = self.serve(nothing_but_http)
        assert isinstance(store, FramedStore)
        for seconds, tries in ((0, 1), (40, 1), (40, 2)):
            self.time.advance(seconds)
            for _ in range(3):
                self.assertEqual(await self.outcome(store.find(HASH), 1), NONE)
            await self.until(lambda: not len(self.nodes._tasks))
            self.assertEqual(self.server.asked.count(f"GET {TARGET}"), tries)

    async def test_nobody_listens(self) -> None:
        """Tries come further and further apart, and never hold up a request."""
        store = self.serve(self.script)
        assert isinstance(store, FramedStore)
        await self.server.close()
        begun, tries = self.time.seconds(), []
        beginning = store.talk.begin

        async def begin() -> None:
            tries.append(round(self.time.seconds() - begun, 1))
            await beginning()

        store.talk.begin = begin  # type: ignore[method-assign]  # to see it called
        while self.time.seconds() - begun < 40:
            await self.failing(NodeUnreachable, store.find(HASH), 1)
            await self.until(lambda: not len(self.nodes._tasks))
            self.time.advance(0.1)
        self.assertEqual(len(tries), 10)
        gaps = [b - a for a, b in pairwise(tries)]
        self.assertEqual(gaps, sorted(gaps))
        self.assertLess(gaps[-1], talking.LONGEST * 1.25 + 0.2)

    async def test_never_answered(self) -> None:
        """A node that accepts and says nothing has only the requests it is given."""

        def silent(session: Session, request: Request) -> None:
            if request.target != TARGET:
                nothing(session, request)

        store = self.serve(silent)
        assert isinstance(store, FramedStore)
        self.assertEqual(await self.outcome(store.find(HASH), 0.1), NONE)
        self.assertEqual(await self.outcome(store.find(HASH), 0.1), NONE)
        self.assertEqual(self.server.asked.count(f"GET {TARGET}"), 1)

    async def test_strange_101(self) -> None:
        """A 101 that grants nothing, or another protocol, begins nothing."""
        for wrong in ("", "operations=8", "bytes=1; operations=1"):
            self.credit = wrong
            store = self.serve(self.script)
            assert isinstance(store, FramedStore)
            await store.talk.begin()
            self.assertFalse(store.talk.stands)
            self.assertEqual(await store.find(HASH), NONE)
            await self._stop()

    async def test_wrong_time(self) -> None:
        """A node on another clock tells it, and is asked once more."""
        refused: list[int] = []

        def strict(session: Session, request: Request) -> None:
            if request.target == TARGET and not refused:
                refused.append(1)
                session.problem(401, "wrong-time")
            else:
                self.script(session, request)

        store = self.serve(strict)
        assert isinstance(store, FramedStore)
        await store.talk.begin()
        self.assertTrue(store.talk.stands)

    async def test_new_address(self) -> None:
        """A node that moved is talked to where it is now; the old conversation ends."""
        store = await self.begun()
        other = ScriptedNode(self.script)
        self.addCleanup(other.stop)
        self.heard.hear(NODE, other.url)
        first, self.server = self.server, other
        self.addCleanup(first.stop)
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(self.requests(), [f"GET /objects/{HASH}"])
        await self.until(lambda: store.talk.stands)
        await self.until(lambda: not first.open)
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(len(self.talkers), 2)

    async def test_forgotten(self) -> None:
        """A conversation ends with the last word of its node."""
        await self.begun()
        self.nodes.keep(())
        await self.free()


def nothing_but_http(session: Session, request: Request) -> None:
    """A node of before conversations."""
    if request.target == TARGET:
        session.problem(404, "not-found")
    else:
        nothing(session, request)


class Failing(TalkingCase):
    """What is asked fails alone, in time, or is asked again."""

    async def test_errors(self) -> None:
        """What the node says is raised, and the next operation goes on."""
        statuses = iter((Status.MISSING, Status.FULL, Status.REFUSED_NOW, 42))

        def refusing(session: Session, number: int, *_: Any) -> None:
            session.send(answered(number, next(statuses), 0.0, (b"so it is",)))

        store, one = await self.begun(), sample()
        self.answering = refusing
        await self.failing(ShardMissing, store.open(one.key), 1)
        put = store.put_small(one.key, one.layout, one.frames, None, 0)
        found = await self.failing(NodeFull, put, 1)
        self.assertEqual(str(found), "so it is")
        await self.failing(ShardRefused, store.mark_bad(one.key), 1)
        await self.failing(NodeUnreachable, store.find(HASH), 1)
        self.answering = finds
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(self.requests(), [])

    async def test_elsewhere(self) -> None:
        """What a node does not do in a conversation is a request."""

        def refusing(session: Session, number: int, *_: Any) -> None:
            session.send(answered(number, Status.ELSEWHERE, 0.0))

        store = await self.begun()
        self.answering = refusing
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(self.requests(), [f"GET /objects/{HASH}"])
        self.assertTrue(store.talk.stands)

    async def test_cut(self) -> None:
        """What was under way when it was cut is requested at once, if it may be."""
        store, one = await self.begun(), sample()
        self.answering = lambda *_: None
        put = start(store.put_small(one.key, one.layout, one.frames, None, 0))
        find = start(store.find(HASH))
        discard = start(store.discard(one.key, "0" * 32))
        await self.until(lambda: len(self.asked) == 3)
        self.talkers[0].abort()
        await put
        self.assertEqual(await find, NONE)
        await self.failing(NodeUnreachable, discard, 1)
        name = f"/objects/{one.key.hash}.0"
        self.assertEqual(
            sorted(self.requests()), [f"GET /objects/{HASH}", f"POST {name}"]
        )
        self.answering = finds
        self.time.advance(1)
        self.assertEqual(await store.find(HASH), NONE)
        await self.until(lambda: store.talk.stands)

    async def test_silent_node(self) -> None:
        """A node that hangs fails its operations in their time, and loses the rest."""
        store, one = await self.begun(), sample()
        self.answering = lambda *_: None
        put = start(store.put_small(one.key, one.layout, one.frames, None, 0))
        await self.failing(NodeUnreachable, store.find(HASH), 11)
        await self.failing(NodeUnreachable, put, 1)
        self.assertFalse(store.talk.stands)
        self.assertEqual(self.requests(), [])
        await self.free()

    async def test_silent_and_forgotten(self) -> None:
        """A node that hangs is found out though nobody had the patience to wait for it."""
        store = await self.begun()
        self.answering = lambda *_: None
        for _ in range(8):
            running = start(store.find(HASH))
            self.time.advance(1)
            running.cancel()
            await self.failing(CancelledError, running, 1)
        self.assertTrue(store.talk.stands)
        self.time.advance(2.5)
        self.assertFalse(store.talk.stands)
        await self.free()

    async def test_late_alone(self) -> None:
        """One that is late fails alone while the node answers others; a late answer is dropped."""
        late: list[int] = []

        def first_is_late(session: Session, number: int, *_: Any) -> None:
            if number == 1:
                late.append(number)
            else:
                done(session, number)

        store = await self.begun()
        self.answering = first_is_late
        running = start(store.find(HASH))
        for _ in range(18):
            self.time.advance(0.5)
            self.assertEqual(await store.find(HASH), NONE)
        self.assertFalse(running.called)
        await self.failing(NodeUnreachable, running, 3)
        self.assertTrue(store.talk.stands)
        done(self.talkers[0], 1)
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(self.requests(), [])

    async def test_cancelled(self) -> None:
        """Whoever waits no longer takes nothing with him."""
        store = await self.begun()
        held: list[int] = []
        self.answering = lambda _, number, *__: held.append(number)
        running, other = start(store.find(HASH)), start(store.find(HASH))
        await self.until(lambda: len(held) == 2)
        running.cancel()
        await self.failing(CancelledError, running, 1)
        for number in reversed(held):
            done(self.talkers[0], number)
        self.assertEqual(await other, NONE)
        self.assertTrue(store.talk.stands)

    async def test_bounded(self) -> None:
        """What the node's credit has no room for is a request."""
        store = await self.begun()
        self.answering = lambda *_: None
        running = [start(store.find(HASH)) for _ in range(8)]
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(self.requests(), [f"GET /objects/{HASH}"])
        for number in range(1, 9):
            done(self.talkers[0], number)
        await gather(running)
        one = sample(1, 1 << 20, data=1)
        await store.put_small(one.key, one.layout, one.frames, None, 0)
        self.assertEqual(self.requests()[1], f"POST /objects/{one.key.hash}.0")

    async def test_told_to_leave(self) -> None:
        """A node that stops is answered to the end, and asked no more."""
        store = await self.begun()
        self.answering = lambda *_: None
        running = start(store.find(HASH))
        await self.until(lambda: len(self.asked) == 1)
        self.talkers[0].send(answered(0, Status.LEAVING, 0.0))
        await self.until(
            lambda: (
                store.talk._conversation is None or not store.talk._conversation.open
            )
        )
        self.answering = finds
        self.assertEqual(await store.find(HASH), NONE)
        self.assertEqual(len(self.requests()), 1)
        done(self.talkers[0], 1)
        self.assertEqual(await running, NONE)
        await self.until(lambda: self.talkers[0].lost)

    async def test_stopped(self) -> None:
        """At the stop of the service what is under way fails, and nothing is left."""
        store = await self.begun()
        self.answering = lambda *_: None
        running = start(store.find(HASH))
        await self.until(lambda: len(self.asked) == 1)
        await self._stop()
        await self.failing(NodeUnreachable, running, 2)


class Lying(TalkingCase):
    """A node that breaks the rules loses the conversation, and nothing else."""

    async def broken(self, said: bytes) -> None:
        """It says that; the operation under way is asked for by a request."""
        store = await self.begun()
        self.answering = lambda session, *_: session.send(said)
        self.assertEqual(await self.outcome(store.find(HASH), 1), NONE)
        self.assertEqual(self.requests(), [f"GET /objects/{HASH}"])
        self.assertFalse(store.talk.stands)
        await self._stop()

    async def test_nonsense(self) -> None:
        """Lengths that cannot be, answers nobody asked for, more than there is room for."""
        for said in (
            LENGTH.pack(0),
            LENGTH.pack(16) + bytes(16),
            LENGTH.pack(2**32 - 1),
            b"HTTP/1.1 200 OK\r\n\r\n",
            answered(2, Status.DONE, 0.0, (EMPTY,)),
            answered(0, Status.DONE, 0.0),
            answered(1, Status.DONE, 0.0, (bytes(20_000),)),
        ):
            await self.broken(said)

    async def test_twice(self) -> None:
        """An answer comes once."""
        store = await self.begun()

        def twice(session: Session, number: int, *_: Any) -> None:
            done(session, number)
            done(session, number)

        self.answering = twice
        self.assertEqual(await store.find(HASH), NONE)
        await self.until(lambda: not store.talk.stands)

    async def test_results(self) -> None:
        """Results that are none fail their operation alone."""
        store, one = await self.begun(), sample()
        for result in (b"", b"\7", b"\1x", bytes(99)):
            self.answering = lambda session, number, *_, r=result: done(
                session, number, r
            )
            for work in (store.find(HASH), store.open(one.key), store.condemn(one.key)):
                await self.failing(NodeUnreachable, work, 1)
        self.assertTrue(store.talk.stands)

    async def test_another_content(self) -> None:
        """What a node says of another content is not believed."""
        store, one = await self.begun(), sample()
        said = ShardFacts(one.key.hash, one.key.index, one.layout, 1, 0.0)
        facts = ops.pack_holding(Holding("have", (said,)))
        self.answering = lambda session, number, *_: done(
            session, number, b"".join(facts)
        )
        await self.failing(NodeUnreachable, store.find(HASH), 1)
        self.assertEqual((await store.find(one.key.hash)).state, "have")
