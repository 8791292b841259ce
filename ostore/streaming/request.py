"""A request that is handed over when its headers are in, its body as a stream."""

from __future__ import annotations

from twisted.web import http


class RequestBody:
    """The body of one request, with back-pressure up to the client's socket."""

    length: int | None
    """What Content-Length says; None when the body is chunked."""
    received: int
    """Bytes that came from the client so far."""
    complete: bool
    """Whether the last byte came."""

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises ClientGone.

        The first call grants `Expect: 100-continue`.
        """
        raise NotImplementedError


class StreamingRequest(http.Request):
    """One request; `site.handle(request, reply)` gets it before its body came."""

    body: RequestBody
    remote: str
    """Address of the other end, without port."""
    # stock attributes that are set at hand-over, all bytes as sent:
    #   method, uri (target), path (without query, not decoded), clientproto

    query_string: bytes
    """What stood behind the first `?`, not decoded."""

    def header(self, name: str) -> str | None:
        """A header's value, several ones joined by ", "; None when absent.

        Text is UTF-8; other bytes become surrogate escapes, as in `Reply.headers`.
        """
        raise NotImplementedError
