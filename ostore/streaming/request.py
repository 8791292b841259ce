"""A request that is handed over when its headers are in, its body as a stream."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from ostore.erasure.geometry import Buffer
from ostore.model.errors import ClientGone
from ostore.streaming.gate import Gate, Whole
from ostore.streaming.head import Fields, right_host

if TYPE_CHECKING:
    from ostore.streaming.channel import StreamingChannel, Successor
    from ostore.streaming.reply import Reply

BODY_HIGH = 512 * 1024
"""Bytes of a body held before the client is paused; one recv may come on top."""

BODY_LOW = 128 * 1024
"""Bytes held at which the client is resumed."""

SMALL_REST = 256 * 1024
"""An unread rest up to this size is read and dropped to keep the connection."""


class RequestBody:
    """The body of one request, with back-pressure up to the client's socket.

    `length` is what Content-Length says, None when the body is chunked; `received`
    counts what came so far; `complete` says that the last byte came.
    """

    def __init__(
        self, channel: StreamingChannel, length: int | None, data: bytes = b""
    ) -> None:
        """`data` came with the head: nothing of the body, or all there is."""
        self.length = length
        self.received = len(data)
        self.complete = length == 0
        self.withheld = False
        self._channel = channel
        self._gate = (
            Whole(data)
            if length == len(data)
            else Gate(BODY_HIGH, BODY_LOW, channel.pause_body, channel.resume_body)
        )

    def read(self) -> Coroutine[Any, Any, Buffer]:
        """The next bytes, b"" at the end. One reader at a time.

        The first call grants `Expect: 100-continue`. Raises ClientGone behind the last
        bytes that came, GateClosed once the request is answered.
        """
        if self.withheld:
            self.withheld = False
            self._channel.grant()
        return self._gate.read()

    @property
    def held(self) -> int:
        """Bytes that came and were not read yet."""
        return self._gate.held

    @property
    def worth_draining(self) -> bool:
        """Whether the rest is known, small and certain to come."""
        if self.complete:
            return True
        if self.withheld or self.length is None:
            return False
        return self.length - self.received <= SMALL_REST

    def push(self, data: Buffer) -> None:
        """Bytes from the channel; a client that sends them waits for no 100."""
        self.withheld = False
        self.received += len(data)
        self._gate.push(data)

    def hold(self) -> None:
        """Let the rest wait until somebody reads it."""
        self._gate.hold()

    def end(self) -> None:
        """The last byte came."""
        self.complete = True
        self._gate.end()

    def fail(self, error: Exception) -> None:
        """No more will come."""
        self._gate.fail(error)

    def close(self) -> None:
        """Drop what was not read; the client may send the rest."""
        self._gate.close()


class StreamingRequest:
    """One request, made by its channel; the site's `handle` gets it before its body.

    All bytes attributes are as sent: `method`, `uri` (the target), `path` (the target
    without query, not decoded), `query_string` (what stands behind the first `?`) and
    `version`; `fields` are the headers.
    """

    method = uri = path = query_string = version = b""
    fields: Fields
    body: RequestBody
    reply: Reply | None = None

    def __init__(self, channel: StreamingChannel, queued: object = None) -> None:
        self.channel: StreamingChannel | None = channel
        self.remote = channel.remote
        self.finished = False

    @cached_property
    def requestHeaders(self) -> Headers:  # noqa: N802 - Twisted's name
        """What Twisted's parser gathers; of a head that came in one piece, nothing."""
        return Headers()

    def gathered(self) -> Fields:
        """The headers that Twisted's parser has gathered."""
        lines = self.requestHeaders.getAllRawHeaders()
        return {name.lower(): values for name, values in lines}

    def header(self, name: str) -> str | None:
        """A header's value, several ones joined by ", "; None when absent.

        Text is UTF-8; other bytes become surrogate escapes, as in `Reply.headers`.
        """
        values = self.fields.get(name.lower().encode("ascii"))
        if values is None:
            return None
        value = values[0] if len(values) == 1 else b", ".join(values)
        return value.decode("utf-8", "surrogateescape")

    def begin(
        self, head: tuple[bytes, bytes, bytes], fields: Fields, body: RequestBody
    ) -> None:
        """All headers are in; `head` is the request line's three parts."""
        self.method, self.uri, self.version = head
        self.path, _, self.query_string = self.uri.partition(b"?")
        self.fields = fields
        self.body = body
        expect = fields.get(b"expect")
        if expect and self.version == b"HTTP/1.1" and body.length != 0:
            body.withheld = expect[0].lower() == b"100-continue"

    @property
    def names_host(self) -> bool:
        """Whether the Host header is right; HTTP/1.0 may leave it out."""
        if b"host" not in self.fields:
            return self.version == b"HTTP/1.0"
        return right_host(self.fields)

    @property
    def persistent(self) -> bool:
        """Whether the client lets the connection live on (RFC 9112, 9.3).

        HTTP/1.0 is answered with a close: its bodies may have no other end.
        """
        if self.version != b"HTTP/1.1":
            return False
        values = self.fields.get(b"connection")
        if values is None:
            return True
        options = b",".join(values).lower().split(b",")
        return b"close" not in [option.strip() for option in options]

    def conclude(self) -> None:
        """The answer is out: leave the channel, or see to what is left of the body."""
        channel = self.channel
        if channel is None:
            return
        self.finished = True
        self.body.close()
        if self.body.complete:
            self._leave(channel)
        elif not channel.persistent and self.body.received != self.body.length:
            channel.linger()

    def leave_to(self, successor: Successor) -> None:
        """The answer is out and was a 101: HTTP ends here."""
        channel, self.channel, self.reply = self.channel, None, None
        self.finished = True
        if channel is not None:
            channel.switch(successor)

    def handleContentChunk(self, data: Buffer) -> None:
        """Called by the decoder with framing already taken off."""
        self.body.push(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Called by the channel at the end of the body."""
        channel = self.channel
        if channel is None:
            return
        if self.reply is None:
            channel.site.dispatch(self)
        elif self.finished:
            self.body.complete = True
            self._leave(channel)
        else:
            self.body.end()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone: fail who reads, then who writes."""
        self.channel = None
        if self.reply is not None:
            self.body.fail(ClientGone("the client closed the connection"))
            self.reply.lost()

    def _leave(self, channel: StreamingChannel) -> None:
        self.channel = None
        self.reply = None  # its reply outlives it alone: no cycle to collect
        channel.requestDone(self)
