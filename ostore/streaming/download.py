"""The body of an answer as an async stream."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse

from ostore.streaming.gate import Gate

HIGH = 512 * 1024
LOW = 128 * 1024
"""Bytes held at which the sender is paused and resumed."""


class DownloadBroken(Exception):
    """The body ended before it was whole, or its end cannot be known."""


class DownloadTooLong(Exception):
    """The body is longer than the reader allows."""


class Download(Protocol):
    """Reads one answer's body; made by who got the answer, ends with `close`.

    Holds at most 512 KiB and one recv. A body of more than `limit` bytes breaks off.
    """

    transport: Any

    def __init__(self, response: IResponse, limit: int) -> None:
        self.received = 0
        self._limit = limit
        self._over = False
        self._gate = Gate(HIGH, LOW, self._pause, self._resume)
        response.deliverBody(self)  # type: ignore[no-untyped-call]  # zope

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises DownloadBroken, DownloadTooLong."""
        return bytes(await self._gate.read())

    async def read_all(self) -> bytes:
        """The whole rest of the body."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give it up; the connection is cut unless the body had ended."""
        self._gate.close()
        self._cut()

    def dataReceived(self, data: bytes) -> None:
        """Called with each piece of the body."""
        self.received += len(data)
        if self.received > self._limit:
            self._gate.fail(DownloadTooLong(f"more than {self._limit} bytes"))
            self._cut()
        else:
            self._gate.push(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's has a default
        """Called at the end; only ResponseDone means that the body is whole."""
        self._over = True
        if isinstance(reason.value, ResponseDone):
            self._gate.end()
        else:
            self._gate.fail(DownloadBroken("the answer broke off"))

    def _pause(self) -> None:
        self.transport.pauseProducing()

    def _resume(self) -> None:
        if not self._over:
            self.transport.resumeProducing()

    def _cut(self) -> None:
        if not self._over:
            self._over = True
            self.transport.loseConnection()
