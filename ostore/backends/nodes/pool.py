"""Connections to data nodes: kept alive, bounded, lent to one request at a time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import cast

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from ostore.model.errors import NodeUnreachable
from ostore.streaming.client import ClientConnection
from ostore.streaming.clock import Clock, TimedOut

LIMIT = 256
"""Connections to one node that are in use at once; further requests wait."""
SPARE = 32
"""Connections to one node that are kept when nobody uses them."""
IDLE = 30.0
"""Seconds after which an unused connection is closed; nodes do so after 60."""
CONNECT = 1.0
"""Seconds that a node has to accept a connection."""
QUEUE = 5.0
"""Seconds that a request waits for others to give back a connection."""

Connect = Callable[[str, int, bool], IStreamClientEndpoint]
"""(host, port, secure) -> where to connect."""

_URL = re.compile(
    r"(https?)://([0-9A-Za-z](?:[0-9A-Za-z.-]{0,252}[0-9A-Za-z])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::([0-9]{1,5}))?/?"
)


@attrs.frozen
class Address:
    """Where a node listens; `host` without brackets, `netloc` as `Host` says it."""

    host: str
    port: int
    secure: bool
    netloc: str

    @property
    def place(self) -> str:
        """host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read an http or https URL without path. Raises NodeUnreachable."""
        match = _URL.fullmatch(url)
        secure = match is not None and match[1] == "https"
        port = 0 if match is None else int(match[3] or (443 if secure else 80))
        if match is None or not 1 <= port <= 65535:
            raise NodeUnreachable("the node advertises no address")
        netloc = match[2] if match[3] is None else f"{match[2]}:{match[3]}"
        return cls(match[2].strip("[]"), port, secure, netloc)


@attrs.define(eq=False)
class _Peer:
    """The connections to one address."""

    busy: int = 0
    idle: list[ClientConnection] = attrs.field(factory=list)
    waiting: deque[Deferred[None]] = attrs.field(factory=deque)


class Pool:
    """All connections of one service to its nodes; made and stopped by the service.

    What `take` gave goes back by `give`, whatever came of it. The one used last is
    lent first, so that a quiet hour leaves few.
    """

    def __init__(
        self,
        connect: Connect,
        clock: Clock,
        *,
        limit: int = LIMIT,
        spare: int = SPARE,
        idle: float = IDLE,
        connect_time: float = CONNECT,
        queue_time: float = QUEUE,
    ) -> None:
        self._endpoint = connect
        self._clock = clock
        self._limit = limit
        self._spare = spare
        self._idle = idle
        self._connect_time = connect_time
        self._queue_time = queue_time
        self._peers: dict[Address, _Peer] = {}
        self._of: dict[ClientConnection, Address] = {}
        self._sweeper: IDelayedCall | None = None
        self._stopped = False

    def __len__(self) -> int:
        """Connections that are open or being made."""
        return sum(peer.busy + len(peer.idle) for peer in self._peers.values())

    async def take(self, address: Address, *, fresh: bool = False) -> ClientConnection:
        """A connection nobody uses; a `fresh` one closes those that lie idle.

        Raises NodeUnreachable.
        """
        if self._stopped:
            raise NodeUnreachable("the service is stopping")
        peer = self._peers.setdefault(address, _Peer())
        await self._admitted(peer)
        try:
            if fresh:
                self._close_idle(peer)
            while peer.idle:
                connection = peer.idle.pop()
                if connection.reusable:
                    return connection
                del self._of[connection]
            connection = await self._connected(address)
        except BaseException:
            self._left(address)
            raise
        self._of[connection] = address
        return connection

    def give(self, connection: ClientConnection) -> None:
        """Take it back: kept when its answer was read to the end, else cut."""
        address = self._of[connection]
        peer = self._peers[address]
        keep = connection.reusable and not self._stopped
        if keep and len(peer.idle) < self._spare:
            connection.since = self._clock.monotonic()
            peer.idle.append(connection)
            self._sweep_later()
        else:
            connection.abort()
            del self._of[connection]
        self._left(address)

    def distrust(self, connection: ClientConnection) -> None:
        """It fell silent, so what lies idle to the same node is closed as well."""
        address = self._of.get(connection)
        if address is not None:
            self._close_idle(self._peers[address])

    def stop(self) -> None:
        """Close what lies idle; what is in use is cut when it is given back."""
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for peer in list(self._peers.values()):
            self._close_idle(peer)

    async def _admitted(self, peer: _Peer) -> None:
        """Be counted among those who use a connection, when there is room."""
        if peer.busy < self._limit:
            peer.busy += 1
            return
        turn: Deferred[None] = Deferred(peer.waiting.remove)
        peer.waiting.append(turn)
        try:
            await self._clock.within(self._queue_time, turn)
        except TimedOut:
            raise NodeUnreachable(
                "too many requests to the node are under way"
            ) from None

    def _left(self, address: Address) -> None:
        """One user less; the next in line takes the place."""
        peer = self._peers[address]
        if peer.waiting:
            peer.waiting.popleft().callback(None)
            return
        peer.busy -= 1
        self._forget(address, peer)

    def _forget(self, address: Address, peer: _Peer) -> None:
        if not peer.busy and not peer.idle and self._peers.get(address) is peer:
            del self._peers[address]

    async def _connected(self, address: Address) -> ClientConnection:
        factory = Factory.forProtocol(lambda: ClientConnection(self._clock, self._gone))
        factory.noisy = False
        endpoint = self._endpoint(address.host, address.port, address.secure)
        begun = self._clock.monotonic()
        try:
            made = await self._clock.within(
                self._connect_time, endpoint.connect(factory)
            )
        except CancelledError:
            raise
        except ConnectingCancelledError:
            if self._clock.monotonic() - begun < self._connect_time:
                raise CancelledError from None
            raise NodeUnreachable("the node accepts no connection in time") from None
        except Exception as error:  # noqa: BLE001 - whatever an endpoint may raise
            name = type(error).__name__
            raise NodeUnreachable(f"no connection to the node: {name}") from None
        return cast("ClientConnection", made)

    def _gone(self, connection: ClientConnection) -> None:
        """An idle one was closed by the node."""
        address = self._of.get(connection)
        peer = None if address is None else self._peers.get(address)
        if address is not None and peer is not None and connection in peer.idle:
            peer.idle.remove(connection)
            del self._of[connection]
            self._forget(address, peer)

    def _close_idle(self, peer: _Peer, before: float | None = None) -> None:
        for connection in list(peer.idle):
            if before is None or connection.since <= before:
                peer.idle.remove(connection)
                address = self._of.pop(connection)
                connection.abort()
                self._forget(address, peer)

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = self._clock.call_later(self._idle / 2, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        before = self._clock.monotonic() - self._idle / 2
        for peer in list(self._peers.values()):
            self._close_idle(peer, before)
        if any(peer.idle for peer in self._peers.values()):
            self._sweep_later()
