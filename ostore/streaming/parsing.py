"""From the bytes of a connection to requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from ostore.streaming.head import LONGEST_LENGTH, Plain, plain
from ostore.streaming.request import RequestBody, StreamingRequest

if TYPE_CHECKING:
    from ostore.streaming.site import StreamingSite


class ParsingChannel(HTTPChannel):
    """Hands requests over to its site when their headers are in.

    A head that is plain and comes in one piece is read as such, any other by Twisted's
    parser, line by line. The half of a StreamingChannel that reads.
    """

    requestFactory = StreamingRequest  # type: ignore[assignment]  # noqa: N815 - Twisted's hook; duck-typed there
    timeOut = None  # noqa: N815 - Twisted's hook
    transport: Any
    site: StreamingSite

    def __init__(self, max_head: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self.totalHeadersSize = self.MAX_LENGTH = max_head
        self._heads = 0
        self._by_line = False
        self._refused = False

    def dataReceived(self, data: bytes) -> None:
        """Take the requests that `data` begins with, or what there is of one."""
        while data and self._at_a_head:
            head = plain(data, self.MAX_LENGTH)
            if head is None:
                break
            data = self._hand_over(head, data)
        if data or self._buffer:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's

    def close(self) -> None:
        """Close once everything written is out."""
        self.loseConnection()  # type: ignore[no-untyped-call]  # Twisted's

    def abort(self) -> None:
        """Cut the connection now."""
        self.transport.abortConnection()

    @property
    def _at_a_head(self) -> bool:
        """Whether the next bytes begin a head, which is to be read now."""
        return bool(
            self.line_mode
            and self.persistent
            and not (self._by_line or self._buffer or self._busyReceiving)
            and not (self.paused or self.transport.disconnecting)
        )

    def _hand_over(self, head: Plain, data: bytes) -> bytes:
        """Hand over the request that `data` begins with; gives what is behind it.

        With its body if all of that is there. `_buffer` has the rest meanwhile, as it
        would line by line: a request that ends at once begins no other from within.
        """
        channel: Any = self
        request = StreamingRequest(channel)
        self.requests.append(request)
        self._heads += 1
        length, stop = head.length, head.end
        whole = len(data) - stop >= length
        if whole:
            stop += length
            body = RequestBody(channel, length, data[head.end : stop])
        else:
            body = RequestBody(channel, length)
        line = head.method, head.target, b"HTTP/1.1"
        request.begin(line, head.fields, body)
        self.persistent = request.persistent
        self.setRawMode()  # type: ignore[no-untyped-call]  # Twisted's
        if whole:
            self._handlingRequest = True
        else:
            self._command, self._path, self._version = line
            self._maybeChooseTransferDecoder(b"Content-Length", b"%d" % length)
        self._buffer, self._busyReceiving = data[stop:], True
        try:
            self.site.dispatch(request)
            if whole and length:
                request.requestReceived(*line)
        finally:
            self._busyReceiving = False
        rest, self._buffer = self._buffer, b""
        return rest

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's hook
        """A line of a head, which is read to its end in this way."""
        self._by_line = True
        super().lineReceived(line)  # type: ignore[no-untyped-call]  # Twisted's

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802 - Twisted's hook
        """A line beyond Twisted's limit is refused like all that does not parse."""
        self._receivedHeaderSize += len(line)
        self._respondToBadRequestAndDisconnect()

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:  # noqa: N802 - Twisted's hook
        if header == b"Content-Length" and len(data) > LONGEST_LENGTH:
            return self._failChooseTransferDecoder()
        chosen: bool = super()._maybeChooseTransferDecoder(header, data)  # type: ignore[no-untyped-call]  # Twisted's
        return chosen

    def allHeadersReceived(self) -> None:  # noqa: N802 - Twisted's hook
        """Hand the request over now, unless it has no body and is over in a moment."""
        self._heads += 1
        request = self.requests[-1]
        line = self._command, self._path, self._version
        channel: Any = self
        request.begin(line, request.gathered(), RequestBody(channel, self.length))
        if not request.names_host:
            self._refused = True
            self._respondToBadRequestAndDisconnect()
            return
        self.persistent = request.persistent
        if self.length != 0:
            self.site.dispatch(request)

    def allContentReceived(self) -> None:
        """The end of a request that was refused as a whole is none."""
        if self._refused:
            return
        self._by_line = False
        super().allContentReceived()  # type: ignore[no-untyped-call]  # Twisted's

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's hook
        request = self.requests[-1] if self.requests else None
        if request is not None and request.reply is None and self._head_is_large():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n"
            )
            self.close()
        elif request is None or request.reply is None:
            super()._respondToBadRequestAndDisconnect()  # type: ignore[no-untyped-call]  # Twisted's
        elif request.reply.started:
            self.abort()
        else:
            super()._respondToBadRequestAndDisconnect()  # type: ignore[no-untyped-call]  # Twisted's
            request.connectionLost(Failure(ConnectionError("malformed body")))  # type: ignore[no-untyped-call]  # Twisted's

    def _head_is_large(self) -> bool:
        """Whether the headers are too long or too many (RFC 6585, 5)."""
        return bool(
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        )
