"""One worker of an api service: a process that its supervisor starts.

It gets its settings, its port and its end from there; its log goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from ostore.service.allocation import give_back_memory
from ostore.service.api import ApiService
from ostore.service.failing import StartError
from ostore.service.secret import read
from ostore.service.workers.control import (
    FROM_SUPERVISOR,
    LISTENING,
    TO_SUPERVISOR,
    Lines,
    Message,
    packed,
)
from ostore.service.workers.running import taken_over
from ostore.streaming.clock import TimedOut

ANSWER = 5.0
"""Seconds that the supervisor has to add up."""


class Worker(ApiService):
    """An api service on a port that it was given, under a supervisor."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.listening = LISTENING
        self._supervisor: Supervision | None = None

    def announce(self, url: str) -> None:
        """The supervisor says it, once all are ready."""
        self._tell({"ready": url})

    async def page(self, own: bytes) -> bytes:
        """What all workers count together; our own when the supervisor is silent."""
        if self._supervisor is None:
            return own
        try:
            return await self.clock.within(ANSWER, self._supervisor.sum(own))
        except TimedOut:
            return own

    def fail(self, why: object) -> None:
        """End the process; the supervisor says why."""
        failed(f"{self.role}: {why}")
        super().fail(why)

    def _tell(self, message: Message) -> None:
        if self._supervisor is not None:
            self._supervisor.say(message)

    def supervised(self, supervisor: Supervision) -> None:
        """Report to this one."""
        self._supervisor = supervisor


class Supervision(Protocol):
    """The way to the supervisor; when it is gone the worker ends in good order."""

    transport: Any

    def __init__(self, worker: Worker, reactor: Any) -> None:
        self._worker = worker
        self._reactor = reactor
        self._lines = Lines(self._take)
        self._sums: dict[int, Deferred[bytes]] = {}
        self._asked = 0

    def say(self, message: Message) -> None:
        """Send a message."""
        self.transport.write(packed(message))

    async def sum(self, own: bytes) -> bytes:
        """What all workers count together."""
        self._asked += 1
        asked = self._asked
        self._sums[asked] = Deferred()
        self.say({"ask": asked, "text": own.decode()})
        try:
            return await self._sums[asked]
        finally:
            del self._sums[asked]

    def dataReceived(self, data: bytes) -> None:
        """Called with what the supervisor says."""
        self._lines.feed(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted's has a default
        """The supervisor is gone: so are we, in good order."""
        if self._reactor.running:
            self._reactor.stop()

    def _take(self, message: Message) -> None:
        if "scrape" in message:
            own = b"" if self._worker.api is None else self._worker.api.metrics()
            self.say({"counts": message["scrape"], "text": own.decode()})
        elif (waiting := self._sums.get(message["sum"])) and not waiting.called:
            waiting.callback(str(message["text"]).encode())


def main() -> None:
    """Serve until the supervisor says otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells everybody
    give_back_memory()
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    settings = taken_over(json.loads(_first_line()))

    from twisted.internet import reactor as installed  # noqa: PLC0415 - as everywhere: late

    reactor: Any = installed
    try:
        worker = Worker(settings, read(settings.cluster_secret_file), reactor)
    except StartError as error:
        failed(str(error))
        raise SystemExit(1) from None
    supervision = Supervision(worker, reactor)
    worker.supervised(supervision)
    StandardIO(supervision, FROM_SUPERVISOR, TO_SUPERVISOR, reactor)  # type: ignore[no-untyped-call, call-arg] # it does take a reactor
    reactor.callWhenRunning(worker.startService)
    reactor.addSystemEventTrigger("before", "shutdown", worker.stopService)
    reactor.run()


def failed(line: str) -> None:
    """Tell the supervisor at once: the reactor ends before it would."""
    with suppress(OSError):  # it is gone as well
        os.write(TO_SUPERVISOR, packed({"failed": line}))


def _first_line() -> bytes:
    """The settings; byte by byte, what follows belongs to the reactor."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(FROM_SUPERVISOR, 1)
        if not piece:
            raise SystemExit(1)
        line += piece
    return line


if __name__ == "__main__":
    main()
