"""The body of an outgoing request, written piece by piece."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from ostore.streaming.clock import Clock


class UploadStopped(Exception):
    """The connection takes no more of the body."""


@implementer(IBodyProducer)
class Upload:
    """Feeds twisted.web's Agent from a writer that awaits; holds no bytes itself.

    Made for one request. The writer calls `write` and then `finish`, or `fail` at any
    time: also when the answer came early or the connection was never made, for then
    nobody else wakes a waiting writer.
    """

    def __init__(self, clock: Clock, length: int | None) -> None:
        self._clock = clock
        self.length = UNKNOWN_LENGTH if length is None else length
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._writer: Deferred[None] | None = None
        self._paused = True
        self._error: Exception | None = None
        self._over = False

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when more is welcome. One writer at a time.

        Waits until the connection is there. Raises UploadStopped or what `fail` got.
        """
        await self._ready()
        if self._consumer is None:
            raise UploadStopped("the body has ended")
        self._consumer.write(data)
        await self._ready()

    def finish(self) -> None:
        """The body is whole. Call it once the last `write` has returned."""
        self._end(None)

    def fail(self, error: Exception) -> None:
        """Break off: the writer gets `error`, and the connection is cut."""
        self._end(error)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Called by the Agent once it is connected.

        The writer is woken a turn later: it may await the very Deferred in whose
        callback the Agent calls us.
        """
        self._consumer = consumer
        if not self._over:
            self._clock.call_later(0, self.resumeProducing)
        return self._done

    def pauseProducing(self) -> None:
        """Called by the transport when it is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Called by the transport when it is empty."""
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        """Called when the connection is gone; `startProducing`'s Deferred stays mute."""
        if not self._over:
            self._over = True
            self._error = UploadStopped("the connection takes no more of the body")
            self._wake()

    async def _ready(self) -> None:
        if self._paused and self._error is None:
            if self._writer is not None:
                raise RuntimeError("an upload has one writer at a time")
            self._writer = Deferred(self._forget)
            await self._writer
        if self._error is not None:
            raise self._error

    def _forget(self, _: Deferred[None]) -> None:
        self._writer = None

    def _wake(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.callback(None)

    def _end(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._error = error
        if error is None:
            self._done.callback(None)
        else:
            self._done.errback(error)
            self._wake()
