"""One node as requests reach it: signed, sent, answered, and believed or not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from ostore.backends.nodes.pool import Address, Pool
from ostore.backends.nodes.protocol import MAX_ANSWER, NODE, NOW, error_of
from ostore.model.errors import NodeUnreachable, ShardError, ShardRefused
from ostore.model.nodes import Members
from ostore.model.signing import GUARDED, Caller
from ostore.streaming.client import (
    SWITCHED,
    Broken,
    Buffer,
    ClientConnection,
    Head,
    Silent,
)
from ostore.streaming.clock import Clock

ANSWER = 10.0
"""Seconds that a node has to begin an answer."""
COMMIT = 30.0
"""Seconds that it has for one that waits for its disk."""
PROGRESS = 10.0
"""Seconds without any byte after which a body has come to a halt."""

WRONG_TIME: Final = b"urn:ostore:problem:wrong-time"

_NOW = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")


@attrs.frozen
class Ask:
    """A request; `headers` may hold some of those that the signature guards.

    `parts` are its body; one that `streams` sends its body behind its head instead. A
    `repeatable` one may reach the node twice without harm. A `fresh` one goes on a new
    connection: it may not reach it twice, and is not lost to one that was idle.
    """

    method: str
    target: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    parts: Sequence[Buffer] = ()
    streams: bool = False
    repeatable: bool = False
    fresh: bool = False
    patience: float = ANSWER
    limit: int = MAX_ANSWER


@attrs.frozen
class Told:
    """A whole answer that is no error."""

    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises NodeUnreachable."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NodeUnreachable("the node's answer is no JSON") from None


class Exchange:
    """One request on its way and its answer; whoever began it closes it.

    Its errors are those of shards: NodeUnreachable when the connection fails.
    """

    def __init__(
        self,
        ask: Ask,
        connection: ClientConnection,
        pool: Pool,
        peer: Peer,
        authorization: str,
    ) -> None:
        self.authorization = authorization
        self._ask = ask
        self._connection = connection
        self._pool = pool
        self._peer = peer
        self._closed = False

    async def send(self, parts: Sequence[Buffer]) -> None:
        """Send a piece of the body, not empty. Raises NodeUnreachable, EarlyAnswer."""
        size = sum(map(len, parts))
        try:
            await self._connection.send((b"%x\r\n" % size, *parts, b"\r\n"), PROGRESS)
        except Broken as error:
            raise self._broken(error) from None

    def end(self) -> None:
        """The body is whole; does not wait."""
        self._connection.end(b"0\r\n\r\n")

    async def head(self) -> Head:
        """The head of the answer, from the very node that was asked."""
        try:
            head = await self._connection.answer(self._ask.patience)
        except Broken as error:
            raise self._broken(error) from None
        self._peer.heard(head)
        return head

    async def read(self) -> bytes:
        """The next bytes of the answer; b"" at its end."""
        try:
            return await self._connection.read(PROGRESS)
        except Broken as error:
            raise self._broken(error) from None

    async def rest(self) -> bytes:
        """All of it, within the limit."""
        pieces, size = [], 0
        while piece := await self.read():
            size += len(piece)
            if size > self._ask.limit:
                raise NodeUnreachable("the node's answer is too long")
            pieces.append(piece)
        return b"".join(pieces)

    async def success(self) -> Mapping[str, str]:
        """The headers of an answer that is no error; raises what an error stands for."""
        head = await self.head()
        if not 200 <= head.status < 300:
            raise _refusal(head.status, await self.rest())
        return head.headers

    async def told(self) -> Told:
        """The whole answer; raises what it stands for when it is an error."""
        return Told(await self.success(), await self.rest())

    async def switched(
        self, protocol: str
    ) -> tuple[ClientConnection, Mapping[str, str]]:
        """The connection, on which the node speaks that protocol now, and its headers.

        It is the caller's until close(). Raises what any other answer stands for.
        """
        head = await self.head()
        if head.status != SWITCHED or head.headers.get("upgrade") != protocol:
            raise _refusal(head.status, await self.rest())
        return self._connection, head.headers

    def distrust(self) -> None:
        """The node fell silent on this connection."""
        self._pool.distrust(self._connection)

    def close(self) -> None:
        """Give the connection back; it is cut unless the answer was read to its end."""
        if not self._closed:
            self._closed = True
            self._pool.give(self._connection)

    def _broken(self, error: Broken) -> NodeUnreachable:
        connection = self._connection
        if isinstance(error, Silent):
            self._pool.distrust(connection)
        elif connection.requests > 1 and not connection.answered:
            return Stale(str(error))
        return NodeUnreachable(str(error))


class WrongTime(NodeUnreachable):
    """The node refused the date of the request, and has told its own time."""


class Stale(NodeUnreachable):
    """A connection that had lain idle was cut before any byte of the answer came."""


class Peer:
    """Signs and sends the requests to one node; lives as long as HttpNodes.

    Its address is what its last heartbeat said.
    """

    def __init__(
        self,
        node: str,
        members: Callable[[], Members],
        caller: Caller,
        pool: Pool,
        clock: Clock,
    ) -> None:
        self.node = node
        self._members = members
        self._caller = caller
        self._pool = pool
        self._clock = clock
        self._known: tuple[str, Address] | None = None
        self._told = False

    @property
    def address(self) -> Address:
        """Where it listens. Raises NodeUnreachable."""
        member = self._members().by_id.get(self.node)
        if member is None:
            raise NodeUnreachable("no node of that id was heard")
        url = member.beat.url
        if self._known is None or self._known[0] != url:
            self._known = url, Address.parse(url)
        return self._known[1]

    async def ask(self, ask: Ask) -> Told:
        """The whole answer to a request; `answered` says what is tried twice."""
        exchange = await self.answered(ask)
        try:
            return await exchange.told()
        finally:
            exchange.close()

    async def answered(self, ask: Ask) -> Exchange:
        """A request whose answer has begun, and is no error.

        A second try follows when the node told that our clock is off, and when a
        repeatable request met a connection that was dead before it was used.
        """
        try:
            return await self._answered(ask)
        except WrongTime:
            return await self._answered(ask)
        except Stale:
            if not ask.repeatable:
                raise
            return await self._answered(ask, fresh=True)

    async def begin(self, ask: Ask, *, fresh: bool = False) -> Exchange:
        """Send a request as far as it is known. Raises NodeUnreachable."""
        address = self.address
        connection = await self._pool.take(address, fresh=fresh or ask.fresh)
        signed = self._signed(ask, address)
        authorization = signed["Authorization"]
        exchange = Exchange(ask, connection, self._pool, self, authorization)
        try:
            lines = self._lines(ask, address, signed)
            connection.begin(ask.method, lines, ask.parts, whole=not ask.streams)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def heard(self, head: Head) -> None:
        """Take in what every answer bears. Raises NodeUnreachable."""
        if head.headers.get(NODE.lower()) != self.node:
            raise NodeUnreachable("another node answers at that address")
        now = head.headers.get(NOW.lower(), "")
        if _NOW.fullmatch(now):
            self.clock_shows(float(now))

    def clock_shows(self, now: float) -> None:
        """The node has told the time, in seconds since 1970."""
        self._told = True
        self._caller.told(self.node, now)

    def conversation_key(self, exchange: Exchange, salt: bytes) -> bytes:
        """The key of what that request began."""
        return self._caller.conversation_key(exchange.authorization, salt)

    async def by_its_clock(self, wall: float) -> float:
        """A time of our own clock as the node's shows it."""
        if not self._told:
            await self.ask(Ask("GET", "/node", repeatable=True))
        return self._by_its_clock(wall)

    def by_its_known_clock(self, wall: float) -> float | None:
        """The same; None while the node's clock was not heard of."""
        return self._by_its_clock(wall) if self._told else None

    def _by_its_clock(self, wall: float) -> float:
        return wall + self._caller.time_of(self.node) - self._clock.wall()

    async def _answered(self, ask: Ask, *, fresh: bool = False) -> Exchange:
        exchange = await self.begin(ask, fresh=fresh)
        try:
            await exchange.success()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _signed(self, ask: Ask, address: Address) -> Mapping[str, str]:
        guarded = {name: ask.headers[name] for name in GUARDED if name in ask.headers}
        return self._caller.headers(
            self.node, ask.method, address.netloc, ask.target, guarded
        )

    def _lines(self, ask: Ask, address: Address, signed: Mapping[str, str]) -> bytes:
        lines = [
            f"{ask.method} {ask.target} HTTP/1.1",
            f"Host: {address.netloc}",
            f"{NODE}: {self.node}",
        ]
        for headers in (signed, ask.headers):
            lines += [f"{name}: {value}" for name, value in headers.items()]
        if ask.streams:
            lines.append("Transfer-Encoding: chunked")
        elif ask.parts or ask.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {sum(map(len, ask.parts))}")
        return "\r\n".join((*lines, "", "")).encode("ascii")


def _refusal(status: int, body: bytes) -> ShardError:
    """The error that an answer stands for; never one of another family."""
    if status == 401 and WRONG_TIME in body:
        return WrongTime("the node's clock is not ours")
    error = error_of(status, body)
    if isinstance(error, NodeUnreachable) and status in (400, 404, 413):
        return ShardRefused(f"the node refused the request with {status}")
    return error if isinstance(error, ShardError) else ShardRefused(str(error))
