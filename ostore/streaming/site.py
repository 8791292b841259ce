"""The server's end of HTTP: connections, limits, and a graceful end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.model.errors import ClientGone
from ostore.streaming.buffers import Buffers
from ostore.streaming.channel import StreamingChannel
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.tasks import Tasks
from ostore.streaming.wire import PIECE

Handle = Callable[[StreamingRequest, Reply], Awaitable[None]]

SPARE = 8
"""Pieces of memory for large bodies that are kept when they are not used."""

GLANCES = 4
"""How often a connection is looked at within its shortest time limit."""


class TurnedAway(Protocol):
    """A connection beyond the limits: it is cut before anything is read."""

    transport: Any

    def connectionMade(self) -> None:
        """Cut it; over TLS before the handshake."""
        self.transport.abortConnection()


@implementer(IProtocolNegotiationFactory)
class StreamingSite(ServerFactory):
    """Makes a channel for each connection and hands each request to `handle`.

    A client that sends and takes less than `least_progress` bytes in `idle` seconds,
    while it owes us bytes or has some of ours to take, is let go; so is one that needs
    more than `head_time` for the head of a request. Both may take a quarter longer. A
    head has at most `max_head` bytes. Connections beyond `max_connections`, or beyond
    `max_per_address` from one address, are cut at once and counted in `turned_away`;
    None is no limit. After an answer that came before the body's end, up to
    `linger_bytes` are read in `linger_time` seconds. `in_flight` counts requests whose
    `handle` has not returned.
    """

    noisy = False

    def __init__(
        self,
        handle: Handle,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        idle: float = 60,
        head_time: float = 30,
        least_progress: int = 1,
        max_head: int = 16 * 1024,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        linger_time: float = 5,
        linger_bytes: int = 64 * 1024 * 1024,
        server: str = "ostore",
    ) -> None:
        self.clock = clock
        self.idle = idle
        self.head_time = head_time
        self.least_progress = least_progress
        self.max_head = max_head
        self.linger_time = linger_time
        self.linger_bytes = linger_bytes
        self.draining = False
        self.in_flight = 0
        self.turned_away = 0
        self.connections: set[StreamingChannel] = set()
        self.buffers = Buffers(PIECE, SPARE)
        self._most = max_connections
        self._most_each = max_per_address
        self._each: Counter[str] = Counter()
        self._told = 0
        self._handle = handle
        self._entropy = entropy
        self._server = server
        self._log = Logger()
        self._tasks = Tasks(self._log)
        self._glance: IDelayedCall | None = None
        self._empty: list[Deferred[None]] = []
        self._second = -1
        self._common = ""

    def buildProtocol(self, addr: IAddress | None) -> StreamingChannel | TurnedAway:
        """A channel; what cuts the connection once draining, and beyond the limits."""
        if self.draining:
            return TurnedAway()
        if _reached(self._most, len(self.connections)) or _reached(
            self._most_each, self._each[getattr(addr, "host", "")]
        ):
            self.turned_away += 1
            return TurnedAway()
        channel = StreamingChannel(self)
        channel.factory = self
        return channel

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        """HTTP/1.1 alone: HTTP/2 has other hooks and would buffer bodies."""
        return [b"http/1.1"]

    def dispatch(self, request: StreamingRequest) -> None:
        """Called by the channel with each request: run `handle` beside it."""
        reply = Reply(request, self._entropy(16).hex(), self._now())
        request.reply = reply
        self._tasks.spawn("a request", lambda: self._serve(request, reply))

    def opened(self, channel: StreamingChannel) -> None:
        """Called by each channel when it is connected."""
        self.connections.add(channel)
        self._each[channel.remote] += 1
        if self._glance is None:
            self._look_later()

    def closed(self, channel: StreamingChannel) -> None:
        """Called by each channel when its connection is gone."""
        self.connections.discard(channel)
        self._each[channel.remote] -= 1
        if not self._each[channel.remote]:
            del self._each[channel.remote]
        if self.connections:
            return
        if self._glance is not None:
            self._glance.cancel()
            self._glance = None
        empty, self._empty = self._empty, []
        for each in empty:
            each.callback(None)

    def stop_accepting(self) -> None:
        """Refuse new connections, close idle ones; busy ones end with their answer."""
        self.draining = True
        for channel in list(self.connections):
            if channel.idle:
                channel.close()

    async def drain(self, seconds: float) -> None:
        """stop_accepting, wait for what is under way, abort it after `seconds`."""
        self.stop_accepting()
        try:
            await self.clock.within(seconds, self._done())
        except TimedOut:
            for channel in list(self.connections):
                channel.abort()
            await self._tasks.stop()
            await self._done()

    async def _done(self) -> None:
        while self.connections or len(self._tasks):
            await self._tasks.idle()
            await self._unconnected()

    async def _unconnected(self) -> None:
        if self.connections:
            empty: Deferred[None] = Deferred(self._empty.remove)
            self._empty.append(empty)
            await empty

    async def _serve(self, request: StreamingRequest, reply: Reply) -> None:
        self.in_flight += 1
        try:
            await self._handle(request, reply)
            if not reply.finished and not reply.gone:
                raise RuntimeError("the request was left without an answer")
        except CancelledError:
            reply.abort()
            raise
        except ClientGone:
            reply.abort()
        except Exception:  # noqa: BLE001 - the last stop of a handler's failure
            failure = Failure()  # type: ignore[no-untyped-call]  # Twisted's
            self._log.failure("request {id} failed", failure, id=reply.request_id)
            if reply.started:
                reply.abort()
            else:
                reply.headers.clear()
                reply.send(500)
        finally:
            self.in_flight -= 1

    def _look_later(self) -> None:
        pause = min(self.idle, self.head_time) / GLANCES
        self._glance = self.clock.call_later(pause, self._look)

    def _look(self) -> None:
        self._glance = None
        now = self.clock.monotonic()
        for channel in list(self.connections):
            channel.examine(now)
        if self.turned_away > self._told:
            count, self._told = self.turned_away - self._told, self.turned_away
            self._log.warn(
                "{count} connections beyond the limits were cut", count=count
            )
        if self.connections:
            self._look_later()

    def _now(self) -> str:
        """The header lines of this second."""
        second = int(self.clock.wall())
        if second != self._second:
            self._second = second
            date = formatdate(second, usegmt=True)
            self._common = f"Server: {self._server}\r\nDate: {date}\r\n"
        return self._common


def _reached(most: int | None, count: int) -> bool:
    return most is not None and count >= most
