"""The one way to answer a request."""

from __future__ import annotations

from collections.abc import Mapping


class Reply:
    """The answer to one request; every answer bears `X-Request-Id`, Date and Server."""

    request_id: str
    """32 hex digits."""
    status: int
    """200 until set; fixed with the first byte."""
    headers: dict[str, str]
    """Name to value, read at the first byte. Values are UTF-8 (surrogate escapes kept)."""
    started: bool
    """Whether the head was given to the transport."""
    finished: bool
    gone: bool
    """Whether the connection was lost or aborted before the answer was finished."""
    sent: int
    """Body bytes given to the transport."""

    async def write(self, data: bytes) -> None:
        """Send a piece of the body (head first); waits while the client reads slowly.

        Without a Content-Length header the body is chunked. Does nothing but start the
        answer for HEAD, 204 and 304. Raises ClientGone, and ValueError for more bytes
        than Content-Length says.
        """
        raise NotImplementedError

    async def finish(self) -> None:
        """End the answer (head only when nothing was written).

        A body shorter than its Content-Length aborts the connection and raises
        ValueError. Raises ClientGone.
        """
        raise NotImplementedError

    def send(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """A whole small answer at once: Content-Length set, `headers` added to ours.

        HEAD gets the same head without the body. Silent when the client is gone.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the connection, so that a body that broke off never looks whole."""
        raise NotImplementedError
