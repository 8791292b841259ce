"""A TCP proxy that can go deaf, or drop all connections."""

# ruff: noqa: N802 - the names are Twisted's

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure


class _Side(Protocol):
    """One end of a proxied connection."""

    def __init__(self, proxy: Proxy) -> None:
        self.other: _Side | None = None
        self.lost = False
        self._proxy = proxy
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        self._proxy.sides.append(self)
        if self._proxy.hole:
            self.transport.pauseProducing()  # type: ignore[union-attr]  # a TCP transport

    def join(self, other: _Side) -> None:
        """What comes here goes there."""
        self.other = other
        early, self._early = self._early, []
        for data in early:
            self._pass(data)
        if self.lost and other.transport is not None:
            other.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        assert self.other is not None
        if not self._proxy.hole and self.other.transport is not None:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = True
        if self in self._proxy.sides:
            self._proxy.sides.remove(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()


class _Far(Factory):
    """Joins both sides of one connection once the far one is made."""

    noisy = False

    def __init__(self, reactor: Any, near: _Side, far: _Side) -> None:
        self._reactor = reactor
        self._near = near
        self._far = far

    def buildProtocol(self, addr: object) -> Protocol:
        self._reactor.callLater(0, _join, self._near, self._far)
        return self._far

    def startedConnecting(self, connector: object) -> None:
        """Nothing to do."""

    def clientConnectionLost(self, connector: object, reason: object) -> None:
        """The side knows."""

    def clientConnectionFailed(self, connector: object, reason: object) -> None:
        """Nobody there: the client must see it."""
        if self._near.transport is not None:
            self._near.transport.loseConnection()


class Proxy:
    """Stands between clients and a server on this machine, on a port of its own.

    A test makes it, and adds `close` to its cleanups.
    """

    def __init__(self, reactor: Any, port: int) -> None:
        self.hole = False
        self.sides: list[_Side] = []
        self._reactor = reactor
        self._to = port
        factory = Factory.forProtocol(self._accept)
        factory.noisy = False
        self._listening: IListeningPort = reactor.listenTCP(
            0, factory, interface="127.0.0.1"
        )
        self.port: int = self._listening.getHost().port

    def _accept(self) -> _Side:
        near, far = _Side(self), _Side(self)

        self._reactor.connectTCP("127.0.0.1", self._to, _Far(self._reactor, near, far))
        return near

    def swallow(self) -> None:
        """Black hole: connections stay open, and nothing passes any more."""
        self.hole = True
        for side in list(self.sides):
            side.transport.pauseProducing()  # type: ignore[union-attr]  # a TCP transport

    def cut(self) -> None:
        """Drop every connection; new ones are welcome and work."""
        self.hole = False
        for side in list(self.sides):
            side.transport.abortConnection()  # type: ignore[union-attr]  # a TCP transport

    async def close(self) -> None:
        """Drop all and listen no more."""
        self.cut()
        closing = self._listening.stopListening()
        if closing is not None:
            await closing


def _join(near: _Side, far: _Side) -> None:
    near.join(far)
    far.join(near)
