"""Data services of this very process, on real loopback sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import SSL4ClientEndpoint, TCP4ClientEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import CertificateOptions

from ostore.backends.nodes.client import HttpNodes
from ostore.backends.nodes.framed import FramedNodes
from ostore.backends.nodes.pool import Pool
from ostore.backends.shards.node import ShardNode
from ostore.model.nodes import Boot, Heartbeat, Members
from ostore.model.signing import Caller, Guard, Nonces
from ostore.streaming.clock import Clock
from ostore.streaming.site import StreamingSite
from ostore.streaming.wire import wired
from ostore.web.data.root import DataApi

SECRET = b"0123456789abcdef0123456789abcdef"

reactor: Any = installed
REAL = Clock(cast("IReactorTime", installed), time.monotonic, time.time)


def connect(host: str, port: int, secure: bool) -> IStreamClientEndpoint:
    """TCP, and TLS that trusts everybody."""
    plain = TCP4ClientEndpoint(reactor, host, port, timeout=5)
    if not secure:
        return plain
    return SSL4ClientEndpoint(reactor, host, port, CertificateOptions(), timeout=5)


def beat(node: str, url: str, seq: int = 1) -> Heartbeat:
    """What a node says of itself."""
    return Heartbeat(
        node=node,
        boot=Boot(1, "0" * 16),
        seq=seq,
        url=url,
        zone=url,
        free=1 << 40,
        total=1 << 41,
        shards=0,
        state="up",
        time=0.0,
    )


class Heard:
    """Who was heard: the `members` of HttpNodes."""

    def __init__(self) -> None:
        self.members = Members(1e9)
        self._seq = 0

    def hear(self, node: str, url: str) -> None:
        """Take in a heartbeat."""
        self._seq += 1
        self.members = self.members.heard(beat(node, url, self._seq), 0.0)

    def __call__(self) -> Members:
        """The members now."""
        return self.members


class ServedNode:
    """One node and its site; `wall` is the clock of the node and of its guard."""

    def __init__(
        self,
        node: ShardNode,
        wall: Callable[[], float],
        tls: CertificateOptions | None = None,
    ) -> None:
        self.node = node
        clock = Clock(REAL.timers, REAL.monotonic, wall)
        self.guard = Guard([SECRET], lambda: {self.host}, wall, Nonces())
        self.lines: list[dict[str, object]] = []
        api = DataApi(node, self.guard, clock, os.urandom, self.lines.append)
        self.site = StreamingSite(api, REAL, os.urandom)
        where = {"interface": "127.0.0.1"}
        self._secure = tls is not None
        self._listening: IListeningPort = (
            reactor.listenTCP(0, self.site, **where)
            if tls is None
            else reactor.listenSSL(0, self.site, tls, **where)
        )
        wired(self._listening)
        self._hung: list[Any] = []
        self.port = cast("IPv4Address", self._listening.getHost()).port

    @property
    def host(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What its heartbeats say."""
        return f"{'https' if self._secure else 'http'}://{self.host}"

    def hang(self) -> None:
        """Neither accept, read nor write any more, like a process that was stopped."""
        self._hung = [self._listening, *(c.transport for c in self.site.connections)]
        for each in self._hung:
            each.stopReading()
            each.startReading = _nothing
            if each is not self._listening:
                each.stopWriting()
                each.startWriting = _nothing

    def go_on(self) -> None:
        """Undo hang()."""
        hung, self._hung = self._hung, []
        for each in hung:
            del each.startReading
            if not each.disconnected:
                each.startReading()
            if each is not self._listening:
                del each.startWriting
                if not each.disconnected:
                    each.startWriting()

    async def die(self) -> None:
        """Listen no longer, and cut every connection."""
        stopped = self._listening.stopListening()
        if stopped is not None:
            await stopped
        for channel in list(self.site.connections):
            channel.abort()

    async def stop(self) -> None:
        """Stop listening, and cut what is connected."""
        self.go_on()
        stopped = self._listening.stopListening()
        if stopped is not None:
            await stopped
        await self.site.drain(0.1)


def framed_nodes(
    members: Callable[[], Members],
    clock: Clock = REAL,
    wall: Callable[[], float] = time.time,
) -> FramedNodes:
    """The client end that prefers conversations."""
    caller = Caller("test", SECRET, wall, os.urandom)
    pool = Pool(connect, clock)
    return FramedNodes(members, caller, pool, clock, os.urandom)


def _nothing() -> None:
    """What a hanging transport does."""


def http_nodes(
    members: Callable[[], Members],
    clock: Clock = REAL,
    wall: Callable[[], float] = time.time,
    pool: Pool | None = None,
) -> HttpNodes:
    """The client end, with real sockets."""
    caller = Caller("test", SECRET, wall, os.urandom)
    return HttpNodes(members, caller, pool or Pool(connect, clock), clock, os.urandom)
