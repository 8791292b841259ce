"""One HTTP/1.1 connection to a server (RFC 9112), from the client's side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.http import (
    _ChunkedTransferDecoder,
    _DataLoss,
    _MalformedChunkedDataError,
)
from zope.interface import implementer

from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.gate import Gate

RECEIVE = 128 * 1024
"""Bytes of one recv, and the high-water mark of the transport's write buffer."""
HIGH, LOW = 64 * 1024, 0
"""Bytes of an answer held at which the sender is paused and resumed.

Few, for many slow readers may hold an answer each; the kernel's buffers read ahead.
"""
MAX_HEAD = 32 * 1024
"""Bytes of an answer's head, interim answers before it included."""

SWITCHED = 101
"""The status behind which a connection speaks another protocol (RFC 9110, 15.2.2)."""

Buffer = bytes | bytearray | memoryview

_BEGIN = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,18}")


class Broken(Exception):
    """The connection ended, or what came is no answer."""


class Silent(Broken):
    """Nothing moved for as long as the caller was willing to wait."""


class EarlyAnswer(Exception):
    """The answer came before the request was whole: nothing more is to be sent."""


@attrs.frozen
class Head:
    """Status and headers: lower-case names, repeated ones joined by a comma."""

    status: int
    headers: Mapping[str, str]


@implementer(IPushProducer)
class ClientConnection(Protocol):
    """Carries one request after the other; made by a pool, lent to one user at a time.

    The user calls `begin`, `send` and `end` for a body that is written piece by piece,
    then `answer` and `read` up to b"". Each wait is bounded by its `patience`, in
    seconds without any progress; what goes wrong cuts the connection for good. Whoever
    stops half-way calls `abort`.
    """

    transport: Any

    def __init__(
        self, clock: Clock, gone: Callable[[ClientConnection], None] | None = None
    ) -> None:
        self.lost = False
        self.requests = 0
        self.answered = False
        """Whether any byte came since the request began."""
        self.since = 0.0
        """When it fell idle; the pool's own note."""
        self._clock = clock
        self._gone = gone
        self._lost: Callable[[], None] | None = None
        self._error: Broken | None = None
        self._waiter: Deferred[None] | None = None
        self._full = False
        self._sent = self._ended = True
        self._persistent = True
        self._head: Head | None = None
        self._bodiless = False
        self._left = 0
        self._buffer = bytearray()
        self._gate = self._new_gate()
        self._take: Callable[[bytes], None] = self._unasked

    @property
    def reusable(self) -> bool:
        """Whether request and answer are whole and another request may follow."""
        whole = self._sent and self._ended and not self._gate.held
        return whole and self._persistent and not self.lost and self._error is None

    # The request

    def begin(
        self,
        method: str,
        head: bytes,
        parts: Sequence[Buffer] = (),
        *,
        whole: bool = True,
    ) -> None:
        """Send a head (with its blank line), and the body if it is `whole`."""
        self.requests += 1
        self.answered = False
        self._head = None
        self._bodiless = method == "HEAD"
        self._sent, self._ended = whole, False
        self._gate = self._new_gate()
        self._take = self._take_head
        self.transport.write(b"".join((head, *parts)))

    async def send(self, parts: Sequence[Buffer], patience: float) -> None:
        """Send more of the body, once what was sent before has left for the kernel.

        Raises Broken, and EarlyAnswer when nothing more is wanted.
        """
        while self._full and self._error is None and self._head is None:
            await self._wait(patience)
        if self._error is not None:
            raise self._error
        if self._head is not None:
            raise EarlyAnswer
        self.transport.write(b"".join(parts))

    def end(self, tail: bytes) -> None:
        """Send the last of the body, without waiting."""
        self._sent = True
        if self._error is None:
            self.transport.write(tail)

    # The answer

    async def answer(self, patience: float) -> Head:
        """The head of the answer; the time counts anew whenever bytes move."""
        while self._head is None and self._error is None:
            await self._wait(patience)
        if self._head is None:
            assert self._error is not None
            raise self._error
        return self._head

    async def read(self, patience: float) -> bytes:
        """The next bytes of the answer's body, b"" at its end. Raises Broken."""
        if self._gate.held or self._ended:
            return bytes(await self._gate.read())
        try:
            return bytes(await self._clock.within(patience, self._gate.read()))
        except TimedOut:
            self._fail(Silent("the answer came to a halt"))
            raise Silent("the answer came to a halt") from None

    def switch(self, take: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """The answer was a 101: from here on bytes go to `take`, which may refuse them.

        Its ValueError cuts the connection. `lost` is called when that is gone, at once
        if it is. `write` sends.
        """
        if self._error is not None:
            lost()
            return
        self._lost, self._take = lost, take

    def write(self, *parts: Buffer) -> None:
        """Send what belongs to no request, without waiting."""
        if self._error is None:
            self.transport.write(b"".join(parts))

    def abort(self) -> None:
        """Cut the connection, whatever it is at."""
        self._fail(Broken("the request was given up"))

    # Twisted's side

    def connectionMade(self) -> None:
        """Set up the socket."""
        wire = getattr(self.transport, "transport", self.transport)
        wire.bufferSize = RECEIVE
        wire.setTcpNoDelay(True)  # the last bytes of a body wait for no acknowledgement
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Parse it."""
        self.answered = True
        try:
            self._take(data)
        except (ValueError, _MalformedChunkedDataError, _DataLoss):
            self._fail(Broken("the answer is no HTTP"))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # has a default there
        """Whatever is under way ends here."""
        self.lost = True
        self._fail(Broken("the connection was cut"))
        if self._gone is not None:
            self._gone(self)
        lost, self._lost = self._lost, None
        if lost is not None:
            lost()

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport is empty."""
        self._full = False
        self._wake()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says the rest."""

    # Waiting

    async def _wait(self, patience: float) -> None:
        """Until something moves. The connection is cut when nothing does."""
        if self._waiter is not None:
            raise RuntimeError("a connection has one user at a time")
        waiter: Deferred[None] = Deferred()
        self._waiter = waiter
        timer = self._clock.call_later(patience, self._late)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer.active():
                timer.cancel()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    def _late(self) -> None:
        self._fail(Silent("nothing moved in time"))

    def _fail(self, error: Broken) -> None:
        if self._error is None:
            self._error = error
            self._take = self._drop
            if not self._ended:
                self._gate.fail(error)
        if not self.lost:
            self.transport.abortConnection()
        self._wake()

    # Parsing

    def _new_gate(self) -> Gate:
        return Gate(HIGH, LOW, self._pause, self._resume)

    def _pause(self) -> None:
        if not self.lost:
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if not self.lost:
            self.transport.resumeProducing()

    def _unasked(self, data: bytes) -> None:
        raise ValueError("bytes without a request")

    def _drop(self, data: bytes) -> None:
        """After the end nothing counts."""

    def _take_head(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.startswith(_BEGIN[: len(self._buffer)]):
            raise ValueError("no status line")
        while self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    raise ValueError("the head is too long")
                return
            head, version = _parse(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if head.status >= 200 or head.status == SWITCHED:
                self._begin_body(head, version)
                self._head = head
        rest, self._buffer = bytes(self._buffer), bytearray()
        if rest:
            self._take(rest)
        self._wake()

    def _begin_body(self, head: Head, version: bytes) -> None:
        headers = head.headers
        connection = headers.get("connection", "").lower()
        self._persistent = version == b"1" and "close" not in connection
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if head.status == SWITCHED:
            self._persistent = False
        if self._bodiless or head.status in (SWITCHED, 204, 304):
            self._finish()
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise ValueError("the length of the answer is in doubt")
            decoder = _ChunkedTransferDecoder(self._gate.push, self._finish)
            self._take = decoder.dataReceived
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise ValueError("the length of the answer is in doubt")
            self._left = int(length)
            self._take = self._take_sized
            if not self._left:
                self._finish()
        else:
            raise ValueError("the length of the answer is in doubt")

    def _take_sized(self, data: bytes) -> None:
        piece = data if len(data) <= self._left else data[: self._left]
        self._left -= len(piece)
        if self._left:
            self._gate.push(piece)
        else:
            self._finish(data[len(piece) :], piece)

    def _finish(self, rest: bytes = b"", last: bytes = b"") -> None:
        """The answer is whole; nothing may come behind it unasked.

        Whoever reads the last piece may begin the next request at once.
        """
        gate = self._gate
        self._ended = True
        self._persistent = self._persistent and not rest
        self._take = self._unasked
        gate.push(last)
        gate.end()


def _parse(data: bytes) -> tuple[Head, bytes]:
    """A head without its blank line, and the minor version. Raises ValueError."""
    first, *lines = data.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise ValueError("no status line")
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ValueError("no header")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(int(status[2]), headers), status[1]
