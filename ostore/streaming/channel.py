"""One HTTP/1.1 connection from a client."""

from __future__ import annotations

import fcntl
import sys
import termios
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.erasure.geometry import Buffer
from ostore.streaming.parsing import ParsingChannel
from ostore.streaming.patience import Patience
from ostore.streaming.request import StreamingRequest
from ostore.streaming.wire import Inlet, Wire

if TYPE_CHECKING:
    from ostore.streaming.site import StreamingSite

RECEIVE = 256 * 1024
"""Bytes of one recv, and the high-water mark of the transport's write buffer."""

HEAD = 16 * 1024
"""Bytes of one recv while a head is expected; what stands behind it is moved about."""


def unsent(transport: Any) -> int:
    """Bytes that the peer has not taken yet, in our buffers and the kernel's."""
    wire = getattr(transport, "transport", transport)
    queued: int = len(wire.dataBuffer) - wire.offset + wire._tempDataLen  # noqa: SLF001 - Twisted has no public name for it
    left = bytearray(4)
    try:
        fcntl.ioctl(wire.getHandle(), termios.TIOCOUTQ, left)
    except OSError:
        return queued
    return queued + int.from_bytes(left, sys.byteorder)


class Successor(Protocol):
    """What a connection speaks once it speaks HTTP no longer (RFC 9110, 7.8).

    Made by whoever answers 101; ends with the connection, which stays the channel's:
    `send`, `abort`, its pauses while the peer takes nothing, and its site's limits.
    """

    @property
    def owes(self) -> bool:
        """Whether the peer has to send something, or to go."""
        ...

    def took(self, data: bytes) -> None:
        """Bytes came."""

    def leave(self) -> None:
        """The service would be rid of the connection: see to its end."""

    def lost(self) -> None:
        """The connection is gone."""


@implementer(IHalfCloseableProtocol)
class StreamingChannel(ParsingChannel):
    """Owns a connection: what is read and written, and when it ends.

    Made by its site, ends with its connection. Three parties may stop the reading:
    the request's body (`pause_body`), the transport's full write buffer, and Twisted's
    own limit on what comes behind a request under way. Twisted's idle timer is not
    used: the site looks at each connection every now and then (`examine`).
    """

    remote = ""
    _networkProducer: Any

    def __init__(self, site: StreamingSite) -> None:
        super().__init__(site.max_head)
        self.site = site
        self.lingering = False
        self._heard_all = False
        self._body_paused = False
        self._lingered = 0
        self._linger_end: IDelayedCall | None = None
        self._received = 0
        self._written = 0
        self._ends = 0
        self._patience = Patience(site, site.clock.monotonic())
        self._successor: Successor | None = None
        self._inlet = Inlet(site.buffers)
        self._wired = False

    # -- Twisted's hooks

    def connectionMade(self) -> None:
        """Set up the socket and tell the site."""
        super().connectionMade()  # type: ignore[no-untyped-call]  # Twisted's
        wire = getattr(self.transport, "transport", self.transport)
        wire.bufferSize = RECEIVE
        self._wired = isinstance(self.transport, Wire)
        wire.setTcpNoDelay(True)  # the last bytes of a body wait for no acknowledgement
        self.remote = getattr(self.transport.getPeer(), "host", "")
        self.site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Count it as progress; while lingering only up to the limit."""
        self._received += len(data)
        if self.lingering:
            self._lingered += len(data)
            if self._lingered > self.site.linger_bytes:
                self.abort()
                return
        if self._successor is not None:
            self._successor.took(data)
            return
        super().dataReceived(data)

    def rawDataReceived(self, data: Buffer) -> None:  # noqa: N802 - Twisted's hook
        """A part of a body, or what comes too early; nothing may precede a 101."""
        if self._successor is not None:
            self.abort()
            return
        super().rawDataReceived(data)  # type: ignore[arg-type]  # it only cuts it

    def allContentReceived(self) -> None:
        """Take back our own pause: from here on Twisted keeps the rules of reading."""
        self.resume_body()
        super().allContentReceived()

    def resumeProducing(self) -> None:
        """The write buffer is empty: the producer may go on, and maybe the reading."""
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        if not self._handlingRequest and not self._body_paused:
            self._networkProducer.resumeProducing()
        if self.paused:
            self.paused = False
            self.dataReceived(b"")
            self._close_when_served()

    def readConnectionLost(self) -> None:  # noqa: N802 - Twisted's hook
        """The client sends no more; what it asked for in full it still gets."""
        self._heard_all = True
        if not (self.requests or self.lingering or self._successor):
            self.close()
        elif not self._answering():
            wire = getattr(self.transport, "transport", self.transport)
            wire.connectionLost(Failure(ConnectionDone()))  # type: ignore[no-untyped-call]  # Twisted's

    def writeConnectionLost(self) -> None:  # noqa: N802 - Twisted's hook
        """Our own half-close, while lingering."""

    def _close_when_served(self) -> None:
        """Close when a client that sends no more has all its answers.

        Not while requests are taken out of what it sent: others may stand behind.
        """
        if self._heard_all and not (
            self.paused or self._busyReceiving or self._answering()
        ):
            self.close()

    def _answering(self) -> bool:
        request = self.requests[0] if self.requests and not self.lingering else None
        return bool(request and request.reply is not None and request.body.complete)

    def requestDone(self, request: StreamingRequest) -> None:  # noqa: N802 - Twisted's hook
        """Parse the next request, but not while answers pile up unread.

        An answer that began before the drain promised no close, and gets one.
        """
        self._ends += 1
        if self.site.draining:
            self.persistent = False
        if self._waitingForTransport and self.persistent:
            self.paused = True
            self._networkProducer.pauseProducing()
        super().requestDone(request)  # type: ignore[no-untyped-call]  # Twisted's
        self._close_when_served()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's is untyped
        """Fail what is under way and leave the site."""
        if self._linger_end is not None and self._linger_end.active():
            self._linger_end.cancel()
        if self._inlet.count and not self.lingering:
            self.rawDataReceived(self._inlet.take())
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted's
        self.site.closed(self)
        if self._successor is not None:
            self._successor.lost()

    # -- for its wire

    @property
    def appetite(self) -> int:
        """Bytes of one receive: behind a head little of the body, that goes elsewhere."""
        return HEAD if self.line_mode else RECEIVE

    def room(self) -> memoryview | None:
        """Where the next bytes of a large body go; None: the ordinary way."""
        if (
            not self.length
            or self.line_mode
            or self._handlingRequest
            or self.lingering
            or self._refused
            or self._successor is not None
        ):
            return None
        received = self.requests[-1].body.received
        return self._inlet.room(received, self.length - received)

    def filled(self, count: int) -> None:
        """So many bytes came into the room; a full piece goes to the body's reader."""
        self._received += count
        if self._inlet.filled(count):
            body = self.requests[-1].body
            self.rawDataReceived(self._inlet.take())
            body.hold()

    # -- for the request and its body

    def grant(self) -> None:
        """Send `100 Continue`, unless the final answer has begun."""
        request = self.requests[-1]
        if request.reply is not None and not request.reply.started:
            self._send100Continue()  # type: ignore[no-untyped-call]  # Twisted's

    def keeps(self, request: StreamingRequest) -> bool:
        """Decide, as the answer begins, whether the connection outlives it."""
        if self.site.draining or not request.body.worth_draining:
            self.persistent = False
        return bool(self.persistent)

    def send(self, *pieces: Buffer) -> None:
        """Write a part of an answer; nobody may change it from now on."""
        self._written += sum(map(len, pieces))
        if not self._wired:
            pieces = tuple(map(bytes, pieces))
        self.transport.writeSequence(pieces)

    def switch(self, successor: Successor) -> None:
        """Speak HTTP no longer: the 101 is out. What came before it ends it all."""
        self.requests.clear()
        self._handlingRequest = False
        self._successor = successor
        if self._dataBuffer:
            self.abort()

    def pause_body(self) -> None:
        """Stop reading: the body's reader is behind."""
        self._body_paused = True
        self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Read again, unless the transport wants its write buffer emptied first."""
        if self._body_paused:
            self._body_paused = False
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def linger(self) -> None:
        """Close, yet read on for a while: a plain close would destroy the answer.

        Unread input makes the kernel send RST, upon which the client loses what it
        has received. TLS knows no half-close, but its own close reads on likewise.
        """
        self.lingering = True
        if self.isSecure():  # type: ignore[no-untyped-call]  # Twisted's
            self.close()
        else:
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()
        self._networkProducer.resumeProducing()
        self._linger_end = self.site.clock.call_later(self.site.linger_time, self.abort)

    # -- for the site

    @property
    def idle(self) -> bool:
        """Whether it stands between two requests."""
        return not self.requests and not self._buffer

    def close(self) -> None:
        """Close once everything written is out; a successor sees to that itself."""
        if self._successor is not None:
            self._successor.leave()
            return
        super().close()

    def examine(self, now: float) -> None:
        """Let go of a client that owed us something for too long.

        What it sent and what it took count together; a head that is whole and an
        answer that is out are progress enough.
        """
        waiting = unsent(self.transport)
        if self._patience.ends(
            now,
            self._heads + self._ends,
            self._received + self._written - waiting,
            owed=bool(waiting or self._owes()),
            head=self._heads if self._in_head and not self.paused else None,
        ):
            if waiting or self.transport.disconnecting:
                self.abort()
            else:
                self.close()

    @property
    def _in_head(self) -> bool:
        if self.requests:
            return self.requests[0].reply is None
        return bool(self._buffer)

    def _owes(self) -> bool:
        if self._successor is not None:
            return self._successor.owes
        if not self.requests or self.transport.disconnecting:
            return True
        request = self.requests[0]
        if request.reply is None:
            return True
        body = request.body
        return not (body.complete or self._body_paused or body.withheld)
