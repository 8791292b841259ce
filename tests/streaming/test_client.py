"""One connection to a server: every byte of an answer counts, however it comes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.streaming.client import HIGH, Broken, ClientConnection, EarlyAnswer, Silent
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1, 2\r\n\r\n"
    b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
GET = b"GET / HTTP/1.1\r\n\r\n"


class Pipe(StringTransport):
    """A transport whose ends are told apart from a clean close."""

    aborted = prompt = False

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802 - Twisted's name
        """Note it."""
        self.prompt = enabled

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Note it."""
        self.aborted = True


class ConnectionCase(SynchronousTestCase):
    """A connection on a transport in memory."""

    def setUp(self) -> None:
        """Connected, nothing asked."""
        self.time = task.Clock()
        self.pipe = Pipe()
        clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.connection = ClientConnection(clock)
        self.connection.makeConnection(self.pipe)

    async def _whole(self) -> tuple[int, str, bytes]:
        head = await self.connection.answer(5)
        pieces = []
        while piece := await self.connection.read(5):
            pieces.append(piece)
        return head.status, head.headers.get("x-a", ""), b"".join(pieces)

    def ask(self, method: str = "GET") -> Deferred[tuple[int, str, bytes]]:
        """A request whose answer is read to its end."""
        self.connection.begin(method, GET)
        return start(self._whole())

    def lose(self) -> None:
        """The other end is gone."""
        self.connection.connectionLost(Failure(ConnectionLost()))

    def fails(self, error: type[Exception], running: Deferred[Any]) -> None:
        """It has failed with just that, and the connection is cut for good."""
        self.assertIs(type(self.failureResultOf(running).value), error)
        self.assertTrue(self.pipe.aborted or self.connection.lost)
        self.assertFalse(self.connection.reusable)


class Answers(ConnectionCase):
    """Parsing."""

    def test_prompt(self) -> None:
        """Small pieces leave at once: the kernel gathers nothing (RFC 896)."""
        self.assertTrue(self.pipe.prompt)

    @given(st.lists(st.integers(0, 400), max_size=12))
    @settings(deadline=None, max_examples=60)
    def test_split_anywhere(self, cuts: list[int]) -> None:
        """Five answers come out the same wherever their bytes are split."""
        self.setUp()
        for answer, method, body in (
            (SIZED, "GET", b"hello world"),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, "GET", b"hello world"),
            (EMPTY, "DELETE", b""),
            (SIZED.partition(b"hello")[0], "HEAD", b""),
            (SIZED, "GET", b"hello world"),
        ):
            running = self.ask(method)
            places = sorted({0, len(answer), *(c for c in cuts if c < len(answer))})
            for at, end in pairwise(places):
                self.assertNoResult(running)
                self.connection.dataReceived(answer[at:end])
            status, repeated, found = self.successResultOf(running)
            self.assertEqual((status, found), (204 if answer is EMPTY else 200, body))
            self.assertEqual(repeated, "" if answer is EMPTY else "1, 2")
            self.assertTrue(self.connection.reusable)
        self.assertFalse(self.pipe.aborted)

    def test_bytes_behind_the_answer(self) -> None:
        """What comes unasked behind an answer ends the connection, not the answer."""
        for answer in (SIZED, CHUNKED, EMPTY):
            self.setUp()
            running = self.ask()
            self.connection.dataReceived(answer + b"HTTP/1.1 200 OK\r\n")
            self.successResultOf(running)
            self.assertFalse(self.connection.reusable)

    def test_not_to_be_kept(self) -> None:
        """HTTP/1.0 and `Connection: close` end the connection with the answer."""
        for answer in (
            SIZED.replace(b"1.1", b"1.0"),
            SIZED.replace(b"X-A: 1", b"Connection: Close"),
        ):
            self.setUp()
            running = self.ask()
            self.connection.dataReceived(answer)
            self.assertEqual(self.successResultOf(running)[2], b"hello world")
            self.assertFalse(self.connection.reusable)

    def test_cut(self) -> None:
        """An answer that is cut anywhere is never taken for a whole one."""
        for answer in (SIZED, CHUNKED):
            for end in range(len(answer)):
                self.setUp()
                running = self.ask()
                self.connection.dataReceived(answer[:end])
                self.lose()
                self.fails(Broken, running)

    def test_cut_behind_the_end(self) -> None:
        """An answer that had come whole is there though the connection is not."""
        self.connection.begin("GET", GET)
        self.connection.dataReceived(SIZED)
        self.lose()
        self.assertEqual(
            self.successResultOf(start(self._whole())), (200, "1, 2", b"hello world")
        )
        self.assertFalse(self.connection.reusable)

    def test_back_pressure(self) -> None:
        """A reader that does not read stops the sender."""
        self.connection.begin("GET", GET)
        self.connection.dataReceived(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * HIGH)
        )
        for _ in range(9):
            self.assertEqual(self.pipe.producerState, "producing")
            self.connection.dataReceived(b"x" * (HIGH // 8))
        self.assertEqual(self.pipe.producerState, "paused")
        for _ in range(9):
            self.successResultOf(start(self.connection.read(5)))
        self.assertEqual(self.pipe.producerState, "producing")


class Waits(ConnectionCase):
    """Time-outs and cancelling."""

    def test_silent(self) -> None:
        """Neither head nor body may stay away for longer than the patience."""
        for came in (b"", SIZED[:20], SIZED[:-3], CHUNKED[:-1]):
            self.setUp()
            running = self.ask()
            self.connection.dataReceived(came)
            self.time.advance(4.9)
            self.assertNoResult(running)
            self.time.advance(0.2)
            self.fails(Silent, running)
            self.assertEqual(self.time.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Whoever stops waiting leaves no timer behind."""
        running = self.ask()
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertFalse(self.connection.reusable)
        self.assertEqual(self.time.getDelayedCalls(), [])

    def test_full(self) -> None:
        """A piece waits until the one before has left, within the patience."""
        connection = self.connection
        connection.begin("PATCH", GET, whole=False)
        self.successResultOf(start(connection.send([b"one"], 5)))
        connection.pauseProducing()
        second = start(connection.send([b"two"], 5))
        self.time.advance(3)
        self.assertNoResult(second)
        connection.resumeProducing()
        self.successResultOf(second)
        self.assertEqual(self.pipe.value(), GET + b"onetwo")
        connection.pauseProducing()
        third = start(connection.send([b"three"], 5))
        self.time.advance(5)
        self.fails(Silent, third)

    def test_early_answer(self) -> None:
        """An answer wakes whoever waits to send more; only a whole request is reused."""
        for whole in (False, True):
            self.setUp()
            connection = self.connection
            connection.begin("PATCH", GET, whole=False)
            connection.pauseProducing()
            sending = start(connection.send([b"more"], 5))
            connection.dataReceived(SIZED)
            self.failureResultOf(sending, EarlyAnswer)
            if whole:
                connection.end(b"end")
            self.assertEqual(self.successResultOf(start(self._whole()))[0], 200)
            self.assertEqual(connection.reusable, whole)

    def test_lost_while_sending(self) -> None:
        """So does the end of the connection, and every later call says the same."""
        connection = self.connection
        connection.begin("PATCH", GET, whole=False)
        connection.pauseProducing()
        sending = start(connection.send([b"more"], 5))
        self.lose()
        self.fails(Broken, sending)
        self.fails(Broken, start(connection.send([b"more"], 5)))
        self.fails(Broken, start(connection.answer(5)))
