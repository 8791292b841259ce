"""The one way to answer a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ostore.erasure.geometry import Buffer
from ostore.model.errors import ClientGone, Unavailable
from ostore.streaming.channel import StreamingChannel, Successor
from ostore.streaming.request import StreamingRequest
from ostore.streaming.wire import AT_ONCE

PHRASES = {status.value: status.phrase for status in HTTPStatus}

_LENGTH = "content-length"

BODILESS = (101, 204, 304)
"""Statuses that never have a body (RFC 9110, 6.4.1)."""


@implementer(IPushProducer)
class Outflow:
    """Knows whether the transport is full, and holds the one writer meanwhile."""

    def __init__(self) -> None:
        self._paused = False
        self._gone = False
        self._writer: Deferred[None] | None = None

    async def wait(self) -> None:
        """Return when the transport takes more. Raises ClientGone."""
        if self._paused and not self._gone:
            if self._writer is not None:
                raise RuntimeError("a reply has one writer at a time")
            self._writer = Deferred(self._forget)
            await self._writer
        if self._gone:
            raise ClientGone("the client closed the connection")

    def pauseProducing(self) -> None:
        """Called by the channel when the transport is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Called by the channel when the transport is empty."""
        self._paused = False
        self._release()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._gone = True
        self._release()

    def _forget(self, _: Deferred[None]) -> None:
        self._writer = None

    def _release(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.callback(None)


class Reply:
    """The answer to one request; ends with `finish`, `send` or `abort`.

    Set `status` and `headers` before the first byte. Header values are sent as UTF-8,
    surrogate escapes as the bytes they came from. X-Request-Id, Date, Server,
    Connection and Transfer-Encoding are set here. `started` says that the head is out,
    `gone` that the connection was lost or cut before the end, `sent` counts body bytes.
    """

    def __init__(self, request: StreamingRequest, request_id: str, common: str) -> None:
        """`common`: header lines that every answer of this second bears."""
        self.request_id = request_id
        self.status = 200
        self.headers: dict[str, str] = {}
        self.started = False
        self.finished = False
        self.gone = False
        self.sent = 0
        self._request = request
        self._common = common
        self._promised: int | None = None
        self._chunked = False
        self._flow: Outflow | None = None

    async def write(self, *pieces: Buffer) -> None:
        """Send pieces of the body (head first); waits while the client reads slowly.

        Nobody may change them afterwards.

        Without a Content-Length header the body is chunked. For HEAD, 204 and 304 only
        the head is sent. Raises ClientGone, and ValueError (connection cut) for more
        bytes than Content-Length says.
        """
        channel = self._channel()
        length = 0 if self._mute else sum(map(len, pieces))
        head = b""
        if not self.started:
            head = self._head(channel)
            if self._mute or length != self._promised or length > AT_ONCE:
                self._flow = Outflow()
                channel.registerProducer(self._flow, True)  # type: ignore[no-untyped-call]  # Twisted's
        if not length:
            if head:
                channel.send(head)
            return
        if self._promised is not None and self.sent + length > self._promised:
            self.abort()
            raise ValueError(f"more than the promised {self._promised} bytes")
        self.sent += length
        if self._chunked:
            channel.send(head, b"%x\r\n" % length, *pieces, b"\r\n")
        else:
            channel.send(head, *pieces)
        if self._flow is not None:
            await self._flow.wait()

    async def finish(self) -> None:
        """End the answer; only a head when nothing was written.

        A body shorter than its Content-Length cuts the connection and raises
        ValueError. Raises ClientGone.
        """
        channel = self._channel()
        if not self.started:
            if not self._mute:
                self.headers.setdefault("Content-Length", "0")
            channel.send(self._head(channel))
        if self._promised not in {None, self.sent} and not self._mute:
            self.abort()
            raise ValueError(f"{self.sent} of the promised {self._promised} bytes")
        if self._chunked:
            channel.send(b"0\r\n\r\n")
        self._conclude(channel)

    def send(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """A whole small answer at once: Content-Length set, `headers` added to ours.

        HEAD gets the same head without the body. Silent when the client is gone.
        """
        if self.started:
            raise RuntimeError("the answer has begun already")
        if self.gone:
            return
        channel = self._channel()
        self.status = status
        self.headers.update(headers or {})
        if self._request.method == b"HEAD":
            self.headers.setdefault("Content-Length", str(len(body)))
        elif status not in BODILESS:
            self.headers["Content-Length"] = str(len(body))
        head = self._head(channel)
        if self._mute:
            channel.send(head)
        else:
            self.sent = len(body)
            channel.send(head, body)
        self._conclude(channel)

    def switch(
        self,
        protocol: str,
        headers: Mapping[str, str],
        make: Callable[[StreamingChannel], Successor],
    ) -> None:
        """101: what `make` gives takes over the connection, and speaks `protocol`.

        For requests without a body. Raises Unavailable when the connection is to end,
        ClientGone when it has.
        """
        channel = self._channel()
        if not channel.keeps(self._request):
            raise Unavailable("the connection is about to end")
        self.status = 101
        self.headers.update(headers)
        self.headers |= {"Connection": "Upgrade", "Upgrade": protocol}
        channel.send(self._head(channel))
        self.finished = True
        self._request.leave_to(make(channel))

    def abort(self) -> None:
        """Cut the connection, so that a body that broke off never looks whole."""
        if not self.finished and not self.gone:
            self.gone = True
            if self._request.channel is not None:
                self._request.channel.abort()

    def lost(self) -> None:
        """Called by the request when its connection is gone."""
        if not self.finished:
            self.gone = True
            if self._flow is not None:
                self._flow.stopProducing()

    @property
    def _mute(self) -> bool:
        return self._request.method == b"HEAD" or self.status in BODILESS

    def _channel(self) -> StreamingChannel:
        if self.finished:
            raise RuntimeError("the answer is over")
        if self.gone or self._request.channel is None:
            raise ClientGone("the client closed the connection")
        return self._request.channel

    def _head(self, channel: StreamingChannel) -> bytes:
        """The head as bytes; from here on the answer has started."""
        request, headers, status = self._request, self.headers, self.status
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        self._promised = _promised(headers)
        current = request.version == b"HTTP/1.1"
        if self._promised is None and current and not self._mute:
            self._chunked = True
            lines.append("Transfer-Encoding: chunked\r\n")
        if not channel.keeps(request):
            lines.append("Connection: close\r\n")
        text = (
            f"{'HTTP/1.1' if current else 'HTTP/1.0'} {status} "
            f"{PHRASES.get(status, 'Unknown')}\r\n"
            f"{self._common}X-Request-Id: {self.request_id}\r\n{''.join(lines)}\r\n"
        )
        if not text.count("\r") == text.count("\n") == len(lines) + 5 or "\0" in text:
            raise ValueError("a header holds a line break or NUL")
        self.started = True
        return text.encode("utf-8", "surrogateescape")

    def _conclude(self, channel: StreamingChannel) -> None:
        if self._flow is not None:
            channel.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted's
        self.finished = True
        self._request.conclude()


def _promised(headers: Mapping[str, str]) -> int | None:
    """The Content-Length, however it is spelt."""
    value = headers.get("Content-Length")
    if value is None:
        value = next((v for k, v in headers.items() if k.lower() == _LENGTH), None)
    return None if value is None else int(value)
