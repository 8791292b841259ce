"""A network in memory, upon a clock that only tests move."""

# ruff: noqa: N802, N803 - the names are Twisted's

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import (
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTCP,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

HIGH_WATER = 65_536
"""Bytes in a transport above which it pauses its producer."""


@implementer(ITransport)
class End:
    """One end of a connection; what is written arrives in a later turn."""

    def __init__(self, net: FakeNet) -> None:
        self.peer: End
        self.protocol: Protocol
        self.producer: Any = None
        self.lost = False
        self.disconnecting = False
        self.frozen = False
        self._net = net
        self._waiting = bytearray()
        self._paused = False

    def write(self, data: bytes) -> None:
        """Send it in a moment; for ever kept while frozen."""
        assert type(data) is bytes
        if self.lost or self.disconnecting:
            return
        self._waiting += data
        if len(self._waiting) > HIGH_WATER and self.producer and not self._paused:
            self._paused = True
            self.producer.pauseProducing()
        self._net.callLater(0, self.flush)

    def flush(self) -> None:
        """Let what waits arrive."""
        if self.lost or self.frozen:
            return
        data, self._waiting = bytes(self._waiting), bytearray()
        if self._paused and self.producer:
            self._paused = False
            self.producer.resumeProducing()
        if data and not self.peer.lost:
            self.peer.protocol.dataReceived(data)
        if self.disconnecting and not self.lost:
            self._over(ConnectionDone(), ConnectionDone())

    def thaw(self) -> None:
        """Go on after `frozen`."""
        self.frozen = False
        self.flush()

    def loseConnection(self) -> None:
        """Close once all is sent; a real one with a paused producer might never."""
        assert self.producer is None
        self.disconnecting = True
        self._net.callLater(0, self.flush)

    def abortConnection(self) -> None:
        """Close at once."""
        if not self.lost:
            self.disconnecting = True
            self._net.callLater(0, self._over, ConnectionAborted(), ConnectionLost())

    def _over(self, ours: Exception, theirs: Exception) -> None:
        for end, reason in ((self, ours), (self.peer, theirs)):
            if not end.lost:
                end.lost = True
                end.producer = None
                end.protocol.connectionLost(Failure(reason))

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """As of IConsumer; one that pushes."""
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        """As of IConsumer."""
        self.producer = None

    def writeSequence(self, data: Any) -> None:
        """As of ITransport."""
        self.write(b"".join(data))

    def getPeer(self) -> IPv4Address:
        """As of ITransport."""
        return IPv4Address("TCP", "127.0.0.1", 1)

    def getHost(self) -> IPv4Address:
        """As of ITransport."""
        return IPv4Address("TCP", "127.0.0.1", 2)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Too late."""


class _Resolver:
    """Every host is this one."""

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> _Resolution:
        """As of IHostnameResolver."""
        resolution = _Resolution(hostName)
        receiver.resolutionBegan(resolution)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return resolution


class _Connector:
    """One attempt to connect."""

    def __init__(self, net: FakeNet, port: int, factory: Any, timeout: float) -> None:
        self._net = net
        self._port = port
        self._factory = factory
        self._timeout = net.callLater(timeout, self._fail, ConnectTimeoutError())
        self._call = net.callLater(0, self._connect)

    def _connect(self) -> None:
        server = self._net.servers.get(self._port)
        if self._port in self._net.deaf:
            return
        self._timeout.cancel()
        if server is None:
            self._factory.clientConnectionFailed(
                self, Failure(ConnectError(string="refused"))
            )
            return
        near, far = End(self._net), End(self._net)
        near.peer, far.peer = far, near
        far.protocol = server()
        near.protocol = self._factory.buildProtocol(
            HostnameAddress(b"localhost", self._port)
        )
        self._net.ends.append(near)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)

    def _fail(self, error: Exception) -> None:
        self._factory.clientConnectionFailed(self, Failure(error))

    def stopConnecting(self) -> None:
        """As of IConnector."""
        for call in (self._timeout, self._call):
            if call.active():
                call.cancel()

    disconnect = stopConnecting


@implementer(IReactorTCP, IReactorPluggableNameResolver)
class FakeNet(Clock):
    """A reactor for client endpoints: `servers` makes a protocol for each port.

    Nobody on a port refuses; a port in `deaf` answers nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[int, Callable[[], Protocol]] = {}
        self.deaf: set[int] = set()
        self.ends: list[End] = []
        self.attempts: list[tuple[float, int]] = []
        self.nameResolver: Any = _Resolver()

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        """As of IReactorTCP."""
        self.attempts.append((self.seconds(), port))
        return _Connector(self, port, factory, timeout)

    def listenTCP(self, *_: Any, **__: Any) -> Any:
        """As of IReactorTCP; `servers` are here."""
        raise NotImplementedError

    def installNameResolver(self, resolver: Any) -> Any:
        """As of IReactorPluggableNameResolver."""
        raise NotImplementedError

    def turn(self) -> None:
        """Let everything arrive that needs no time."""
        for _ in range(200):
            due = [c for c in self.getDelayedCalls() if c.getTime() <= self.seconds()]
            if not due:
                return
            self.advance(0)
        raise AssertionError("it never comes to rest")

    def pass_(self, seconds: float, step: float = 0.05) -> None:
        """Time, in small steps."""
        for _ in range(round(seconds / step)):
            self.advance(step)
            self.turn()
