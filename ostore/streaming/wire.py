"""Bodies between a socket and memory without a copy on the way.

The one place that goes below Twisted's own buffers. What is written is gathered by the
kernel from where it lies (sendmsg(2)); large parts of a body that comes are scattered
into memory that its reader gets as it is (recv_into). TLS and everything else that
stands between a connection and its socket does without, by the ordinary ways.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from twisted.internet import main, tcp

from ostore.erasure.geometry import Buffer
from ostore.streaming.buffers import Buffers

AT_ONCE = 64 * 1024
"""Bytes up to which an answer is sent as it is written, if nothing waits before it."""

TURN = 4
"""How often the queue may be emptied and filled again in one turn of the reactor."""

PIECES = 64
"""Most pieces given to one sendmsg; the kernel takes 1024."""

PIECE = 1 << 20
"""Pieces of a body end where a multiple of so many bytes of it have come."""

WORTH = 256 * 1024
"""Bytes that a body must still have for its next ones to come this way."""


class Scattered(Protocol):
    """What a protocol has that takes bytes where it wants them."""

    appetite: int
    """Bytes of one receive the ordinary way."""

    def room(self) -> memoryview | None:
        """Where the next bytes go; None when they come the ordinary way."""

    def filled(self, count: int) -> None:
        """So many bytes came into the room."""


class Wire(tcp.Server):
    """One connection of a client; made by a port that was wired().

    To Twisted it is any other: pauses, disconnects and closes are its. The queue holds
    on to what was written until the kernel has a copy of it: nobody may change that.
    """

    def __init__(self, sock: Any, protocol: Any, *rest: Any) -> None:
        super().__init__(sock, protocol, *rest)
        self._queue: deque[memoryview] = deque()
        scattered = hasattr(protocol, "room")
        self._scattered: Scattered | None = protocol if scattered else None

    # Out. `_tempDataLen` counts the bytes of the queue: Twisted pauses producers by it.

    def write(self, data: Buffer) -> None:
        """Send it when the kernel takes it."""
        self.writeSequence((data,))

    def writeSequence(self, pieces: Iterable[Buffer]) -> None:  # noqa: N802 - Twisted's name
        """Send all of them when the kernel takes them."""
        if not self.connected or self._writeDisconnected or self._aborting:
            return
        pieces = tuple(pieces)
        length, sent = sum(map(len, pieces)), 0
        if not self._queue and length <= AT_ONCE:
            try:
                sent = self.socket.sendmsg(pieces)
            except OSError:
                sent = 0  # what goes wrong goes wrong again in the reactor's turn
            if sent == length:
                return
        self._queue.extend(memoryview(piece) for piece in pieces if piece)
        self._tempDataLen += length
        self._taken(sent)
        self._maybePauseProducer()  # type: ignore[no-untyped-call]  # Twisted's
        self.startWriting()  # type: ignore[no-untyped-call]  # Twisted's

    def doWrite(self) -> Any:  # noqa: N802 - Twisted's name
        """The socket takes more: called by the reactor."""
        for _ in range(TURN):
            lost = self._send()
            if lost is not None or self._queue:
                return lost
            producer: Any = self.producer
            if producer is None or not (
                self.producerPaused or not self.streamingProducer
            ):
                break
            self.producerPaused = False
            producer.resumeProducing()
            if not self._queue or self._aborting:
                break
        else:
            return None
        return self._drained()

    def _send(self) -> Any:
        """Give the kernel what it takes; what the reactor is told when that fails."""
        if not self._queue:
            return None
        try:
            sent = self.socket.sendmsg(list(islice(self._queue, PIECES)))
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        self._taken(sent)
        return None

    def _taken(self, sent: int) -> None:
        """So many bytes of the queue are with the kernel."""
        self._tempDataLen -= sent
        while sent:
            piece = self._queue[0]
            if len(piece) > sent:
                self._queue[0] = piece[sent:]
                break
            sent -= len(piece)
            self._queue.popleft()

    def _drained(self) -> Any:
        """Nothing is left to send, and nobody wants to send more now."""
        if self._aborting or self.disconnected:
            return None
        self.stopWriting()  # type: ignore[no-untyped-call]  # Twisted's
        if self.disconnecting:
            return self._postLoseConnection()  # type: ignore[no-untyped-call]  # Twisted's
        if self._writeDisconnecting and not self._writeDisconnected:
            self._writeDisconnected = True
            self._closeWriteConnection()
        return None

    def connectionLost(self, reason: Any) -> None:
        """Let go of what was not sent."""
        self._queue.clear()
        self._tempDataLen = 0
        super().connectionLost(reason)

    # In

    def doRead(self) -> Any:  # noqa: N802 - Twisted's name
        """Bytes came: called by the reactor."""
        scattered = self._scattered
        if scattered is None:
            return super().doRead()
        room, data, count = scattered.room(), b"", 0
        try:
            if room is None:
                data = self.socket.recv(scattered.appetite)
            else:
                count = self.socket.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if data:
            self.protocol.dataReceived(data)
        elif count:
            scattered.filled(count)
        else:
            return main.CONNECTION_DONE
        return None


def wired(port: Any) -> None:
    """Have a TCP port of Twisted's make its connections here."""
    if isinstance(port, tcp.Port):
        port.transport = Wire  # type: ignore[assignment]  # any factory will do


class Inlet:
    """The piece of a body that is being filled from the socket; owned by a channel."""

    def __init__(self, buffers: Buffers) -> None:
        self.count = 0
        """Bytes that came and were not taken."""
        self._buffers = buffers
        self._piece: memoryview | None = None

    def room(self, received: int, left: int) -> memoryview | None:
        """Where the bytes behind `received` go, with `left` to come, `count` included.

        None when so few are left that it does not pay.
        """
        if self._piece is None:
            if left < WORTH:
                return None
            self._piece = self._buffers.take(min(PIECE - received % PIECE, left))
        return self._piece[self.count :]

    def filled(self, count: int) -> bool:
        """So many more came; whether the piece is full."""
        self.count += count
        return self._piece is not None and self.count == len(self._piece)

    def take(self) -> memoryview:
        """What came, which is whoever's took it."""
        piece, self._piece = self._piece, None
        count, self.count = self.count, 0
        return (piece or memoryview(b""))[:count].toreadonly()
