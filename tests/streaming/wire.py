"""Real loopback sockets for the tests of this room."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import Clock as FakeTime
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ostore.streaming.channel import RECEIVE
from ostore.streaming.clock import Clock
from ostore.streaming.request import BODY_HIGH
from ostore.streaming.site import Handle, StreamingSite
from ostore.streaming.wire import PIECE, wired

reactor: Any = _reactor
REAL = Clock(reactor, reactor.seconds, time.time)


def fake_clock() -> tuple[FakeTime, Clock]:
    """A clock that moves by hand, and the same as the product sees it."""
    fake = FakeTime()
    return fake, Clock(fake, fake.seconds, fake.seconds)


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until the condition holds; trial's timeout ends it."""
    while not condition():
        await deferLater(reactor, 0)


async def turns(count: int = 1) -> None:
    """Let the reactor turn that often."""
    for _ in range(count):
        await deferLater(reactor, 0)


class Socket(StringTransport):
    """A transport in memory, with what a channel wants of TCP."""

    def setTcpNoDelay(self, on: bool) -> None:  # noqa: N802 - Twisted's name
        """Nothing waits here."""

    def unregisterProducer(self) -> None:
        """As often as one likes, as with sockets."""
        self.producer = None

    def loseWriteConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Before a close, which is what counts."""


@attrs.frozen
class Response:
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawClient(Protocol):
    """Sends what it is told, keeps what it gets."""

    transport: Any

    def __init__(self) -> None:
        self.inbox = b""
        self.lost = False
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.inbox += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # has a default there
        """Remember why."""
        self.lost = True
        self.reason = reason

    def send(self, *data: bytes) -> None:
        """Write at once."""
        self.transport.write(b"".join(data))

    @property
    def backlog(self) -> int:
        """Bytes the socket has not taken."""
        queued = len(self.transport.dataBuffer) - self.transport.offset
        return int(queued + self.transport._tempDataLen)

    async def closed(self) -> None:
        """Wait for the end of the connection."""
        await until(lambda: self.lost)

    async def response(self, *, head_only: bool = False) -> Response:
        """Take the next whole answer from the inbox."""
        await until(lambda: b"\r\n\r\n" in self.inbox or self.lost)
        head, found, rest = self.inbox.partition(b"\r\n\r\n")
        if not found:
            raise AssertionError(f"closed after {self.inbox!r}")
        first, *lines = head.decode("utf-8").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        self.inbox = rest
        body = b"" if head_only else await self._body(headers)
        return Response(int(first.split(" ")[1]), headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "Transfer-Encoding" in headers:
            return await self._chunks()
        length = int(headers.get("Content-Length", "0"))
        return await self._exactly(length)

    async def _exactly(self, length: int) -> bytes:
        await until(lambda: len(self.inbox) >= length or self.lost)
        if len(self.inbox) < length:
            raise AssertionError("the body broke off")
        body, self.inbox = self.inbox[:length], self.inbox[length:]
        return body

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            await until(lambda: b"\r\n" in self.inbox or self.lost)
            size, found, self.inbox = self.inbox.partition(b"\r\n")
            if not found:
                raise AssertionError("the body broke off")
            body += await self._exactly(int(size, 16))
            await self._exactly(2)
            if size == b"0":
                return body


class SiteCase(TestCase):
    """Serves a handler on a real port; ends clean.

    As the services do, `without_copies`; test_ways.py runs all of it the other way too.
    """

    timeout = 20
    without_copies = True

    async def serve(
        self, handle: Handle, clock: Clock = REAL, **limits: Any
    ) -> StreamingSite:
        """Listen on a free port of 127.0.0.1."""
        self.site = StreamingSite(handle, clock, os.urandom, **limits)
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        if self.without_copies:
            wired(self.port)
        self.clients: list[RawClient] = []
        self.addCleanup(self._end)
        return self.site

    @property
    def most_held(self) -> int:
        """Bytes of one body that are held at most while nobody reads it."""
        return PIECE if self.without_copies else BODY_HIGH + RECEIVE

    async def client(self, from_address: str = "") -> RawClient:
        """A new connection, from any address of this machine or that one."""
        made: Deferred[RawClient] = Deferred()

        class Connected(RawClient):
            def connectionMade(self) -> None:
                made.callback(self)

        factory = ClientFactory.forProtocol(Connected)
        factory.noisy = False
        port, bind = self.port.getHost().port, (from_address, 0)
        reactor.connectTCP("127.0.0.1", port, factory, bindAddress=bind)
        client = await made
        self.clients.append(client)
        return client

    @property
    def url(self) -> bytes:
        """Where the site listens."""
        return b"http://127.0.0.1:%d/" % self.port.getHost().port

    async def still_alive(self, client: RawClient) -> None:
        """The connection answers one more plain request."""
        client.send(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n")
        response = await client.response()
        self.assertEqual(response.status, 200)

    def _end(self) -> Deferred[None]:
        async def end() -> None:
            await self.port.stopListening()
            for client in self.clients:
                if not client.lost:
                    client.transport.abortConnection()
            self.site.stop_accepting()
            for channel in list(self.site.connections):
                channel.abort()
            await until(lambda: not self.site.connections)
            await until(lambda: all(client.lost for client in self.clients))
            await self.site._tasks.stop()

        return Deferred.fromCoroutine(end())
