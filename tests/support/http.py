"""A raw HTTP/1.1 client over a real socket: it sends what it is told, right or wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IPushProducer, IReactorTCP, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

Headers = Sequence[tuple[str, str | bytes]]


class Cut(Exception):
    """The connection ended in the middle; `got` is what came of the body before."""

    def __init__(self, got: bytes = b"") -> None:
        super().__init__("the connection was cut")
        self.got = got


@attrs.frozen
class Answer:
    """One whole answer; header names are lower-case, values ISO 8859-1."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """The one value of a header; None without it."""
        found = [value for key, value in self.headers if key == name.lower()]
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Connection(Protocol):
    """One connection: `send` bytes, read answers piece by piece; ends with `close`."""

    transport: ITCPTransport

    def __init__(self) -> None:
        self.lost: Failure | None = None
        self._held = bytearray()
        self._waiting: Deferred[None] | None = None
        self._ended: list[Deferred[None]] = []

    def dataReceived(self, data: bytes) -> None:
        """Hold it for whoever reads."""
        self._held += data
        self._wake()

    def connectionLost(self, reason: Failure = Failure(Cut())) -> None:  # noqa: B008 - never used, only Twisted's signature
        """Nothing more comes."""
        self.lost = reason
        self._wake()
        ended, self._ended = self._ended, []
        for each in ended:
            each.callback(None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _more(self) -> None:
        if self.lost is not None:
            raise Cut(bytes(self._held))
        self._waiting = Deferred()
        await self._waiting

    @property
    def held(self) -> int:
        """Bytes that came and were not read."""
        return len(self._held)

    async def take(self, count: int) -> bytes:
        """Exactly so many bytes. Raises Cut."""
        while len(self._held) < count:
            await self._more()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    async def take_through(self, mark: bytes) -> bytes:
        """Everything up to the mark, which is dropped. Raises Cut."""
        while mark not in self._held:
            await self._more()
        taken = bytes(self._held[: self._held.index(mark)])
        del self._held[: len(taken) + len(mark)]
        return taken

    def send(self, data: bytes) -> None:
        """Write as it is."""
        self.transport.write(data)

    def pause(self) -> None:
        """Read nothing from the socket: the other side's buffers fill."""
        cast("IPushProducer", self.transport).pauseProducing()

    def resume(self) -> None:
        """Read again."""
        cast("IPushProducer", self.transport).resumeProducing()

    def ask(self, method: str, target: str, headers: Headers = ()) -> None:
        """Send a head; Host is added unless it is among the headers."""
        lines = [f"{method} {target} HTTP/1.1".encode()]
        if not any(name.lower() == "host" for name, _ in headers):
            lines.append(b"Host: test")
        for name, value in headers:
            raw = value if isinstance(value, bytes) else value.encode("latin-1")
            lines.append(name.encode() + b": " + raw)
        self.send(b"\r\n".join(lines) + b"\r\n\r\n")

    async def head(self) -> Answer:
        """Status and headers of the next answer."""
        first, *rest = (await self.take_through(b"\r\n\r\n")).split(b"\r\n")
        headers = []
        for line in rest:
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.lower(), value.strip()))
        return Answer(int(first.split()[1]), tuple(headers))

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its proper end. Raises Cut."""
        size = int(await self.take_through(b"\r\n"), 16)
        data = await self.take(size)
        await self.take(2)
        return data

    async def answer(self, method: str = "GET") -> Answer:
        """The next whole answer to a request of that method. Raises Cut."""
        head = await self.head()
        if method == "HEAD" or head.status in (204, 304) or head.status < 200:
            return head
        if head.get("transfer-encoding") == "chunked":
            body = bytearray()
            try:
                while chunk := await self.chunk():
                    body += chunk
            except Cut as cut:
                raise Cut(bytes(body) + cut.got) from None
            return attrs.evolve(head, body=bytes(body))
        length = head.get("content-length")
        if length is None:
            await self.ended()
            return attrs.evolve(head, body=await self.take(self.held))
        return attrs.evolve(head, body=await self.take(int(length)))

    async def ended(self) -> None:
        """Wait until the other side has closed."""
        if self.lost is None:
            waiting: Deferred[None] = Deferred()
            self._ended.append(waiting)
            await waiting

    async def close(self) -> None:
        """Cut the connection and wait until it is gone."""
        if self.lost is None:
            self.transport.abortConnection()
        await self.ended()


async def connect(reactor: IReactorTCP, port: int) -> Connection:
    """A connection to 127.0.0.1."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=10)
    connection: Connection = await connectProtocol(endpoint, Connection())
    return connection


async def exchange(
    reactor: IReactorTCP,
    port: int,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own; `body` goes with Content-Length."""
    connection = await connect(reactor, port)
    try:
        sized = () if body is None else (("Content-Length", str(len(body))),)
        connection.ask(method, target, [*headers, *sized])
        if body:
            connection.send(body)
        return await connection.answer(method)
    finally:
        await connection.close()
