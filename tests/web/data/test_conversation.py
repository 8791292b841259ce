"""Conversations with a node: signed at the beginning, bounded, each operation alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.nodes import operations as ops
from ostore.backends.nodes.operations import Operation, Status
from ostore.backends.nodes.protocol import NODE
from ostore.backends.nodes.records import (
    ANSWERED,
    CREDIT,
    LENGTH,
    PROTOCOL,
    SALT,
    TARGET,
    Credit,
    answered,
    sealed,
)
from ostore.erasure.geometry import Buffer
from ostore.model.signing import conversation_key
from ostore.streaming.channel import StreamingChannel
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import start
from ostore.web.data import conversation
from ostore.web.data.conversation import GRANTED, Conversation, Conversations
from ostore.web.data.operations import Operations
from tests.contracts.shards import put, sample
from tests.support.http import Answer, Connection, Cut
from tests.web.data.serving import SECRET, ServedNode, StalledWorkers, stream

ONE = sample(1, 2500, stripe=1000)
UPGRADE = {"Connection": "Upgrade", "Upgrade": PROTOCOL}
FIND = ops.pack_hash(ONE.key.hash)


@attrs.define
class Caller:
    """The other end of a conversation: says what it is told, right or wrong."""

    connection: Connection
    key: bytes
    last: int = 0

    def record(
        self, operation: int, *parts: Buffer, number: int | None = None
    ) -> bytes:
        """The next operation as it travels."""
        self.last += 1
        given = self.last if number is None else number
        return b"".join(sealed(self.key, given, operation, parts))

    def send(self, operation: int, *parts: Buffer) -> int:
        """Ask it; gives its number."""
        self.connection.send(self.record(operation, *parts))
        return self.last

    async def answer(self) -> tuple[int, int, bytes]:
        """Number, status and result of the next answer. Raises Cut."""
        (length,) = LENGTH.unpack(await self.connection.take(LENGTH.size))
        record = await self.connection.take(length)
        number, status, _ = ANSWERED.unpack_from(record)
        return number, status, record[ANSWERED.size :]

    async def asked(self, operation: int, *parts: Buffer) -> tuple[int, bytes]:
        """Status and result of one operation, asked alone."""
        number = self.send(operation, *parts)
        found = await self.answer()
        assert found[0] == number, found
        return found[1:]


class Conversing(ServedNode):
    """One node, and callers."""

    async def begun(self) -> Caller:
        """A conversation."""
        head, connection = await self.begin(self.signed("GET", TARGET, UPGRADE))
        self.assertEqual(head.status, 101, head)
        return self.caller_of(head, connection)

    async def begin(
        self, headers: Sequence[tuple[str, str]]
    ) -> tuple[Answer, Connection]:
        """The head of the answer, and where it came."""
        self.authorization = dict(headers).get("Authorization", "")
        connection = await self.connected()
        connection.ask("GET", TARGET, headers)
        return await connection.head(), connection

    def caller_of(self, head: Answer, connection: Connection) -> Caller:
        """Whoever has got that answer."""
        salt = bytes.fromhex(head.get(SALT) or "")
        key = conversation_key(SECRET, self.authorization, salt)
        return Caller(connection, key)

    async def cut(self, caller: Caller) -> None:
        """The node ends it."""
        with self.assertRaises(Cut):
            while True:
                await caller.answer()


class BeginningTests(Conversing):
    """What a conversation begins with."""

    async def test_begins(self) -> None:
        """101 names the node, its credit and its share in the key; then records go."""
        head, connection = await self.begin(self.signed("GET", TARGET, UPGRADE))
        self.assertEqual(head.status, 101)
        self.assertEqual(head.get("upgrade"), PROTOCOL)
        self.assertEqual(head.get("connection"), "Upgrade")
        self.assertEqual(head.get(NODE), self.node.node_id)
        self.assertEqual(Credit.parse(head.get(CREDIT) or ""), GRANTED)
        caller = self.caller_of(head, connection)
        status, found = await caller.asked(Operation.FIND, FIND)
        self.assertEqual(status, Status.DONE)
        self.assertEqual(ops.read_holding(memoryview(found)).state, "none")

    async def test_signed_like_all(self) -> None:
        """Unsigned, forged, seen before or for another node: nothing begins."""
        self.assert_problem(
            await self.ask_as([("Host", self.host), *UPGRADE.items()]), 401, "unsigned"
        )
        forged = [
            (n, v[:-1] + "x" if n == "Authorization" else v)
            for n, v in self.signed("GET", TARGET, UPGRADE)
        ]
        self.assert_problem(await self.ask_as(forged), 401, "unsigned")
        for other in ("/node", f"{TARGET}?x=1"):
            moved = self.signed("GET", other, UPGRADE)
            self.assert_problem(await self.ask_as(moved), 401, "unsigned")
        again = self.signed("GET", TARGET, UPGRADE)
        head, _ = await self.begin(again)
        self.assertEqual(head.status, 101)
        self.assert_problem(await self.ask_as(again), 401, "unsigned")
        elsewhere = self.signed("GET", TARGET, {**UPGRADE, NODE: "ab" * 16})
        self.assert_problem(await self.ask_as(elsewhere), 421, "other-node")

    async def ask_as(self, headers: Sequence[tuple[str, str]]) -> Answer:
        """The whole answer to a request for a conversation."""
        return await self.send("GET", TARGET, headers)

    async def test_other_protocols(self) -> None:
        """Who asks for nothing, or for another protocol, is told what there is."""
        for headers in ({}, {**UPGRADE, "Upgrade": "ostore-frames/2"}):
            answer = await self.ask("GET", TARGET, headers)
            self.assert_problem(answer, 426, "upgrade-required")
            self.assertEqual(answer.get("upgrade"), PROTOCOL)
        answer = await self.ask("GET", f"{TARGET}?x=1", UPGRADE)
        self.assert_problem(answer, 400, "malformed")
        self.assertEqual((await self.ask("POST", TARGET, UPGRADE)).status, 405)

    async def test_body(self) -> None:
        """A request with a body begins no conversation."""
        headers = self.signed("GET", TARGET, UPGRADE)
        answer = await self.send("GET", TARGET, headers, b"body")
        self.assert_problem(answer, 400, "malformed")

    async def test_nothing_before_the_101(self) -> None:
        """Bytes that come before it was said are read as nothing: the connection ends."""
        headers = self.signed("GET", TARGET, UPGRADE)
        connection = await self.connected()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.send(f"GET {TARGET} HTTP/1.1\r\n{lines}\r\nGET / HT".encode())
        with self.assertRaises(Cut):
            while True:
                await connection.take(1)

    async def test_limit(self) -> None:
        """A node has so many conversations; the next caller makes requests instead."""
        self.patch_most(1)
        await self.begun()
        answer = await self.ask("GET", TARGET, UPGRADE)
        self.assert_problem(answer, 503, "unavailable")

    def patch_most(self, most: int) -> None:
        """Let a node have so many."""
        self.addCleanup(setattr, conversation, "MOST", conversation.MOST)
        conversation.MOST = most


class OperationTests(Conversing):
    """Many at once, each by itself."""

    async def test_put_open_and_all_the_rest(self) -> None:
        """Each operation does what it says."""
        caller, key = await self.begun(), ONE.key
        head = ops.pack_put(key, ONE.layout, None, 0)
        done = (Status.DONE, b"")
        put_ = (Operation.PUT, head, stream(ONE.frames))
        self.assertEqual(await caller.asked(*put_), done)
        asked = ops.pack_open(key, bad=False, room=1 << 16)
        status, data = await caller.asked(Operation.OPEN, asked)
        opened = ops.read_opened(memoryview(data))
        self.assertEqual((status, opened.frames), (Status.DONE, list(ONE.frames)))
        renew = ops.pack_renew(key.hash, key.layout)
        for operation, words in ((Operation.FIND, FIND), (Operation.RENEW, renew)):
            _, data = await caller.asked(operation, words)
            (facts,) = ops.read_holding(memoryview(data)).shards
            self.assertEqual(facts.key, key)
        _, token = await caller.asked(Operation.CONDEMN, ops.pack_order(key, 0, None))
        discard = ops.pack_discard(key, token.hex(), None)
        self.assertEqual(await caller.asked(Operation.DISCARD, discard), (0, b"\1"))
        self.assertEqual(await caller.asked(Operation.DISCARD, discard), (0, b"\0"))
        _, data = await caller.asked(Operation.RESTORE, FIND)
        self.assertEqual(ops.read_holding(memoryview(data)).state, "have")
        self.assertEqual(await caller.asked(Operation.BAD, ops.pack_key(key)), done)
        status, _ = await caller.asked(Operation.OPEN, asked)
        self.assertEqual(status, Status.ROTTEN)
        self.assertEqual(self.found_rotten, [key])
        erase = ops.pack_order(key, 0, None)
        self.assertEqual((await caller.asked(Operation.ERASE, erase))[0], Status.DONE)

    async def test_room(self) -> None:
        """What has no room for its frames comes without them; without a table, not at all."""
        await put(self.node.store, ONE)
        caller = await self.begun()
        asked = ops.pack_open(ONE.key, bad=False, room=500)
        status, data = await caller.asked(Operation.OPEN, asked)
        self.assertEqual(status, Status.DONE)
        self.assertLessEqual(len(data), 500)
        self.assertIsNone(ops.read_opened(memoryview(data)).frames)
        asked = ops.pack_open(ONE.key, bad=False, room=50)
        self.assertEqual(await caller.asked(Operation.OPEN, asked), (7, b""))

    async def test_failures_are_alone(self) -> None:
        """What is missing, malformed, unknown or contradicts itself fails by itself."""
        await put(self.node.store, ONE)
        caller = await self.begun()
        head = ops.pack_put(ONE.key, ONE.layout, None, 0)
        absent = attrs.evolve(ONE.key, index=5)
        expected: dict[int, int] = {}
        for wanted, operation, parts in (
            (Status.DONE, Operation.FIND, (FIND,)),
            (Status.REFUSED, Operation.FIND, (FIND, b"x")),
            (Status.REFUSED, Operation.PUT, (head, b"frames")),
            (Status.REFUSED, Operation.PUT, (head, stream(ONE.frames[:1]))),
            (
                Status.MISSING,
                Operation.OPEN,
                (ops.pack_open(absent, bad=False, room=9),),
            ),
            (Status.MISSING, Operation.CONDEMN, (ops.pack_order(absent, 0, None),)),
            (Status.ELSEWHERE, 99, (b"later",)),
            (Status.DONE, Operation.FIND, (FIND,)),
        ):
            expected[caller.send(operation, *parts)] = wanted
        found: dict[int, int] = {}
        while len(found) < len(expected):
            number, status, _ = await caller.answer()
            found[number] = status
        self.assertEqual(found, expected)

    async def test_defect(self) -> None:
        """A mistake of the node's own is logged, and fails one operation."""
        caller = await self.begun()

        async def find(_: str) -> None:
            raise ZeroDivisionError

        self.node.store.find = find  # type: ignore[method-assign,assignment]  # the defect
        status, sentence = await caller.asked(Operation.FIND, FIND)
        self.assertEqual(status, Status.UNREACHABLE)
        self.assertIn(b"mistake", sentence)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        status, _ = await caller.asked(Operation.BAD, ops.pack_key(ONE.key))
        self.assertEqual(status, Status.DONE)


class HostileTests(Conversing):
    """A caller that breaks the rules loses its connection; nobody else does."""

    async def both(self) -> tuple[Caller, Caller]:
        """A good caller and a bad one."""
        return await self.begun(), await self.begun()

    async def still(self, good: Caller, broken: int = 1) -> None:
        """The good one goes on, and the other was counted."""
        self.assertEqual((await good.asked(Operation.FIND, FIND))[0], Status.DONE)
        await self.until(lambda: len(self.api.conversations) == 1)
        self.assertEqual(self.api.conversations.broken, broken)

    async def test_wrong_seal(self) -> None:
        """A record of another key, or changed on its way, ends it."""
        good, bad = await self.both()
        bad.key = good.key
        bad.send(Operation.FIND, FIND)
        await self.cut(bad)
        await self.still(good)

    async def test_replay(self) -> None:
        """A record is taken once, in its turn, in its own conversation."""
        good, bad = await self.both()
        record = bad.record(Operation.FIND, FIND)
        bad.connection.send(record)
        self.assertEqual((await bad.answer())[:2], (1, Status.DONE))
        bad.connection.send(record)
        await self.cut(bad)
        await self.still(good)
        bad = await self.begun()
        bad.connection.send(record)
        await self.cut(bad)
        await self.still(good, 2)

    async def test_out_of_turn(self) -> None:
        """Numbers go up by one."""
        good, bad = await self.both()
        bad.connection.send(bad.record(Operation.FIND, FIND, number=2))
        await self.cut(bad)
        await self.still(good)

    async def test_lengths(self) -> None:
        """A record has a length that is possible."""
        for count, length in enumerate(
            (0, 24, (1 << 20) + (16 << 10) + 1, 2**32 - 1), 1
        ):
            good, bad = await self.both()
            bad.connection.send(LENGTH.pack(length))
            await self.cut(bad)
            await self.still(good, count)
            await good.connection.close()
            await self.until(lambda: not len(self.api.conversations))

    async def test_room_beyond_credit(self) -> None:
        """The room for an answer counts."""
        good, bad = await self.both()
        asked = ops.pack_open(ONE.key, bad=False, room=GRANTED.bytes)
        bad.send(Operation.OPEN, asked)
        await self.cut(bad)
        await self.still(good)

    async def test_half_a_record(self) -> None:
        """Whoever stops within a record, or says nothing at all, is let go."""
        self.site.idle = 0.2
        for sent in (b"", b"\0\0\0"):
            caller = await self.begun()
            caller.connection.send(sent)
            number, status, _ = await caller.answer()
            self.assertEqual((number, status), (0, Status.LEAVING))
            await self.cut(caller)
        self.assertEqual(self.api.conversations.broken, 0)

    async def test_takes_no_answers(self) -> None:
        """From whoever takes no answers nothing more is read: what is held is bounded."""
        await put(self.node.store, sample(2, 900_000, data=16))
        caller = await self.begun()
        asked = ops.pack_open(sample(2, 900_000, data=16).key, bad=False, room=1 << 16)
        caller.connection.pause()
        operations = self.api.conversations.operations
        for _ in range(400):
            caller.send(Operation.OPEN, asked)
        await self.until(lambda: operations.done == 400)
        for _ in range(100):
            caller.send(Operation.OPEN, asked)
        for _ in range(50):
            await self.clock.sleep(0.001)
        self.assertEqual(operations.done, 400)
        caller.connection.resume()
        for _ in range(500):
            self.assertEqual((await caller.answer())[1], Status.DONE)


class EndTests(Conversing):
    """How a conversation ends when nobody did wrong."""

    def workers(self) -> Workers:
        """Threads that a test can hold up."""
        self.stalled = StalledWorkers(super().workers())
        return self.stalled

    async def test_drained(self) -> None:
        """At the stop callers are told to go; what is under way is still answered."""
        await put(self.node.store, ONE)
        caller = await self.begun()
        self.stalled.stall()
        asked = caller.send(Operation.FIND, FIND)
        await self.until(lambda: self.stalled.waiting == 1)
        ended = start(self.site.drain(20))
        self.assertEqual((await caller.answer())[:2], (0, Status.LEAVING))
        more = caller.send(Operation.FIND, FIND)
        self.stalled.go_on()
        found = [(await caller.answer())[:2] for _ in range(2)]
        self.assertEqual(sorted(found), [(asked, Status.DONE), (more, Status.DONE)])
        self.assertFalse(ended.called)
        await caller.connection.close()
        await ended
        answer = None
        with self.assertRaises((Cut, OSError)):
            answer = await self.ask("GET", TARGET, UPGRADE)
        self.assertIsNone(answer)

    async def test_caller_dies(self) -> None:
        """What a caller asked that is gone is done all the same."""
        caller = await self.begun()
        self.stalled.stall()
        head = ops.pack_put(ONE.key, ONE.layout, None, 0)
        caller.send(Operation.PUT, head, stream(ONE.frames))
        await self.until(lambda: self.stalled.waiting == 1)
        await caller.connection.close()
        await self.until(lambda: not len(self.api.conversations))
        self.stalled.go_on()
        await self.until(lambda: self.api.conversations.operations.done == 1)
        found = await self.node.store.find(ONE.key.hash)
        self.assertEqual(found.state, "have")

    async def test_counted(self) -> None:
        """/metrics tells how many there are, and what was asked."""
        caller = await self.begun()
        for _ in range(3):
            await caller.asked(Operation.FIND, FIND)
        await caller.asked(Operation.FIND, b"")
        text = (await self.ask("GET", "/metrics")).body.decode()
        for shown in (
            "ostore_conversations 1.0",
            "ostore_conversation_operations_total 3.0",
            "ostore_failed_conversation_operations_total 1.0",
            "ostore_broken_conversations_total 0.0",
        ):
            self.assertIn(shown, text)
        (line,) = [each for each in self.lines if each["target"] == TARGET]
        self.assertEqual((line["status"], line["complete"]), (101, True))


class _Channel:
    """What a conversation asks of its connection."""

    def __init__(self) -> None:
        self.sent = b""
        self.cut = False

    def send(self, *pieces: bytes) -> None:
        """Keep it."""
        self.sent += b"".join(pieces)

    def abort(self) -> None:
        """Note it."""
        self.cut = True


class _Echo:
    """Answers every operation with what it was given, at once or when told."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bytes]] = []

    async def run(
        self, operation: int, data: memoryview
    ) -> tuple[int, Sequence[Buffer]]:
        """Note it and echo."""
        self.asked.append((operation, bytes(data)))
        return Status.DONE, (bytes(data),)


RECORDS = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=8)


class FuzzTests(SynchronousTestCase):
    """A stream of records, spoilt anywhere and cut anyhow."""

    @settings(deadline=None, max_examples=150)
    @given(
        RECORDS,
        st.sampled_from(("nothing", "flip", "drop", "double", "swap", "insert")),
        st.data(),
    )
    def test_spoilt(
        self, records: list[tuple[int, bytes]], how: str, data: st.DataObject
    ) -> None:
        """Nothing behind the damage is done; the connection is cut, or waits for more."""
        key = b"k" * 32
        pieces = [
            b"".join(sealed(key, number, operation, (body,)))
            for number, (operation, body) in enumerate(records, 1)
        ]
        good = self._spoil(pieces, how, data)
        stream_ = b"".join(pieces)
        echo, channel = _Echo(), _Channel()
        clock = Clock(task.Clock(), lambda: 0.0, lambda: 1.5)
        every = Conversations(cast("Operations", echo), clock, bytes)
        one = Conversation(every, cast("StreamingChannel", channel), key)
        while stream_:
            cut = data.draw(st.integers(1, len(stream_)))
            one.took(stream_[:cut])
            stream_ = stream_[cut:]

        def expected(count: int) -> bytes:
            return b"".join(
                answered(number, Status.DONE, 1.5, (body,))
                for number, (_, body) in enumerate(records[:count], 1)
            )

        done = len(echo.asked)
        self.assertEqual(echo.asked, records[:done])
        self.assertTrue(done == good or (channel.cut and done < good))
        self.assertEqual(channel.sent, expected(done))
        self.assertTrue(good == len(records) or channel.cut or one.owes)
        one.lost()
        self.assertEqual((len(every), every.broken), (0, channel.cut))

    def _spoil(self, pieces: list[bytes], how: str, data: st.DataObject) -> int:
        """Do it; gives how many records stand before the damage."""
        if not pieces or how == "nothing":
            return len(pieces)
        at = data.draw(st.integers(0, len(pieces) - 1))
        piece = pieces[at]
        if how == "flip":
            bit = data.draw(st.integers(0, 8 * len(piece) - 1))
            spoilt = bytearray(piece)
            spoilt[bit // 8] ^= 1 << bit % 8
            pieces[at] = bytes(spoilt)
        elif how == "drop":
            del pieces[at]
        elif how == "double":
            pieces.insert(at, piece)
            at += 1
        elif how == "swap" and at + 1 < len(pieces):
            pieces[at : at + 2] = reversed(pieces[at : at + 2])
        elif how == "insert":
            pieces.insert(at, data.draw(st.binary(min_size=1, max_size=40)))
        else:
            return len(pieces)
        return at
