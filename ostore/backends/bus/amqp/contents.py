"""Messages put together from the frames of one channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ostore.backends.bus.amqp.codec import BadFrame
from ostore.backends.bus.amqp.frames import read_header

MAX_BODY: Final = 64 * 1024
DELIVER: Final = b"\x00\x3c\x00\x3c"
"""How the payload of basic.deliver begins."""

Take = Callable[[bytes, bytes, bytes], None]
"""What gets a message: its exchange, its reply-to (or empty), its body."""


class Contents:
    """Gives each message of a channel to `take`; what is unfit goes to `drop`.

    Unfit: without a body, larger than 64 KiB, with properties that cannot be read.
    Its bytes are not kept. Owned by a Channel, called by its Client.
    """

    def __init__(self, take: Take, drop: Callable[[], None]) -> None:
        self._take = take
        self._drop = drop
        self._open = False
        self._headed = False
        self._unfit = False
        self._exchange = b""
        self._reply_to = b""
        self._missing = 0
        self._parts: list[bytes] = []

    def begin(self, payload: bytes) -> None:
        """The method basic.deliver. Raises BadFrame, IndexError."""
        at = 14 + payload[4]  # consumer tag, delivery tag (8 bytes), redelivered
        end = at + 1 + payload[at]
        self._begin(payload[at + 1 : end], unfit=end > len(payload))

    def skip(self) -> None:
        """Another method that bears content: nobody here wants it."""
        self._begin(b"", unfit=True)

    def _begin(self, exchange: bytes, *, unfit: bool) -> None:
        if self._open:
            raise BadFrame("a message within a message")
        self._open, self._headed = True, False
        self._exchange, self._unfit = exchange, unfit

    def header(self, payload: bytes) -> None:
        """The content header. Raises BadFrame."""
        if not self._open or self._headed:
            raise BadFrame("a content header out of place")
        size, reply_to = read_header(payload)
        self._headed = True
        self._missing = size
        if reply_to is None or not 0 < size <= MAX_BODY:
            self._unfit = True
        else:
            self._reply_to = reply_to
        if size == 0:
            self._end()

    def body(self, payload: bytes) -> None:
        """A piece of the body. Raises BadFrame."""
        if not self._open or not self._headed or len(payload) > self._missing:
            raise BadFrame("a body out of place")
        self._missing -= len(payload)
        if not self._unfit:
            self._parts.append(payload)
        if not self._missing:
            self._end()

    def _end(self) -> None:
        self._open = False
        parts, self._parts = self._parts, []
        if self._unfit:
            self._drop()
            return
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._take(self._exchange, self._reply_to, body)
