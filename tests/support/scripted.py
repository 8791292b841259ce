"""A data service that does what a test says, right or wrong, on a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure

from tests.support.nodes import reactor

NODE = "ab" * 16


@attrs.frozen
class Request:
    """A request whose head is there, and its body too unless it is chunked."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[["Session", Request], None]


class Session(Protocol):
    """One connection; `raw` collects what comes behind the head of a chunked request."""

    transport: Any

    def __init__(self, server: ScriptedNode) -> None:
        self.server = server
        self.lost = False
        self.raw = b""
        self._head: Request | None = None
        self._buffer = b""
        self.chunked = False

    def connectionMade(self) -> None:
        """Be counted."""
        self.server.sessions.append(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # has a default there
        """Be gone."""
        self.lost = True

    def dataReceived(self, data: bytes) -> None:
        """Take requests one by one."""
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        if self.chunked:
            self.raw += self._buffer
            self._buffer = b""
            self.server.streamed(self)
            return False
        if self._head is None:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return False
            self._buffer = rest
            first, *lines = head.decode().split("\r\n")
            method, target, _ = first.split(" ")
            headers = dict(line.split(": ", 1) for line in lines)
            self._head = Request(method, target, headers, b"")
            if "Transfer-Encoding" in headers:
                self.chunked, self.raw = True, b""
                self._take(b"")
                return True
        length = int(self._head.headers.get("Content-Length", "0"))
        if len(self._buffer) < length:
            return False
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        self._take(body)
        return bool(self._buffer)

    def _take(self, body: bytes) -> None:
        assert self._head is not None
        request, self._head = attrs.evolve(self._head, body=body), None
        self.server.requests.append(request)
        self.server.script(self, request)

    def send(self, data: bytes) -> None:
        """Write as it is."""
        self.transport.write(data)

    def answer(
        self,
        status: int = 200,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        cut: int | None = None,
    ) -> None:
        """A whole answer, or one that ends after `cut` bytes of its body."""
        told = {
            "X-Ostore-Node": NODE,
            "X-Ostore-Now": self.server.clock,
            **(headers or {}),
        }
        if status != 204:
            told["Content-Length"] = str(len(body))
        lines = [f"HTTP/1.1 {status} X", *(f"{n}: {v}" for n, v in told.items())]
        head = "\r\n".join([*lines, "", ""]).encode()
        self.send(head + (body if cut is None else body[:cut]))
        if cut is not None:
            self.transport.loseConnection()

    def json(self, value: object, status: int = 200) -> None:
        """An answer of JSON."""
        self.answer(status, json.dumps(value).encode())

    def problem(self, status: int, slug: str, detail: str = "it is so") -> None:
        """An error."""
        self.json({"type": f"urn:ostore:problem:{slug}", "detail": detail}, status)

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()


class Sessions(ServerFactory):
    """Makes the connections of one node."""

    noisy = False

    def __init__(self, server: ScriptedNode) -> None:
        self._server = server

    def buildProtocol(self, addr: object) -> Any:
        """One more."""
        return Session(self._server)


class ScriptedNode:
    """Listens; `script` answers each request, `streamed` sees chunked bodies come."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streamed: Callable[[Session], None] = lambda _: None
        self.sessions: list[Session] = []
        self.requests: list[Request] = []
        self.clock = "1700000000.000"
        self._listening: IListeningPort = reactor.listenTCP(
            0, Sessions(self), interface="127.0.0.1"
        )
        port = cast("IPv4Address", self._listening.getHost()).port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def open(self) -> list[Session]:
        """Connections that stand."""
        return [session for session in self.sessions if not session.lost]

    @property
    def asked(self) -> list[str]:
        """Method and path of each request."""
        return [f"{r.method} {r.target.split('?')[0]}" for r in self.requests]

    async def close(self) -> None:
        """Listen no longer."""
        stopped = self._listening.stopListening()
        if stopped is not None:
            await stopped

    async def stop(self) -> None:
        """End everything."""
        await self.close()
        for session in self.open:
            session.abort()
