"""What a connection sends, with a limit to what may wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IPushProducer, ITransport
from zope.interface import implementer

MAX_BACKLOG: Final = 1 << 20
"""Bytes that may wait behind a full transport (which holds 64 KiB itself)."""


@implementer(IPushProducer)
class Outflow:
    """Writes to the transport of one client and knows when that is full.

    The transport says by `pauseProducing` that the broker reads too slowly. What is
    written afterwards is counted until everything has gone out.
    """

    def __init__(self, transport: ITransport, changed: Callable[[], None]) -> None:
        self.full = False
        self.wrote = False
        self._transport = transport
        self._changed = changed
        self._paused = False
        self._backlog = 0
        transport.registerProducer(self, True)  # type: ignore[attr-defined]  # IConsumer too

    def write(self, data: bytes) -> None:
        """Send it; whoever has a choice looks at `full` before."""
        self.wrote = True
        self._transport.write(data)
        if self._paused:
            self._backlog += len(data)
            if self._backlog > MAX_BACKLOG and not self.full:
                self.full = True
                self._changed()

    def end(self) -> None:
        """Let go of the transport, so that it may close once all is written."""
        self._transport.unregisterProducer()  # type: ignore[attr-defined]  # IConsumer too

    def pauseProducing(self) -> None:
        """Called by the transport when it holds too much."""
        self._paused, self._backlog = True, 0

    def resumeProducing(self) -> None:
        """Called by the transport when it holds nothing more."""
        self._paused = False
        if self.full:
            self.full = False
            self._changed()

    def stopProducing(self) -> None:
        """Called by the transport when the connection is gone."""
        self._paused = False
