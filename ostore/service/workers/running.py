"""One worker, as its supervisor sees it."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.service.settings import Settings
from ostore.service.workers.control import (
    FROM_SUPERVISOR,
    TO_SUPERVISOR,
    Lines,
    Message,
    TooLong,
    packed,
)
from ostore.service.workers.summing import Page
from ostore.streaming.clock import Clock

MAX_SAID = 64 << 10
"""Bytes of a line of a worker's log; longer ones are cut."""


def hand_over(settings: Settings) -> Message:
    """The first message to a worker."""
    return {"settings": base64.b64encode(pickle.dumps(settings)).decode()}


def taken_over(message: Message) -> Settings:
    """The settings in the first message; only a supervisor can have sent it."""
    settings = pickle.loads(base64.b64decode(message["settings"]))  # noqa: S301 - from the parent process, through a pipe of its own
    assert isinstance(settings, Settings)
    return settings


class Running(ProcessProtocol):
    """One process of a worker; made at its start, over when it has ended.

    `heard` gets its messages, `ended` why it is gone. `counts` is what it last said.
    """

    transport: IProcessTransport

    def __init__(
        self,
        number: int,
        clock: Clock,
        heard: Callable[[Running, Message], None],
        ended: Callable[[Running, str], None],
        log: Logger,
    ) -> None:
        self.number = number
        self.ready = False
        self.counts: Page | None = None
        self._clock = clock
        self._born = clock.monotonic()
        self._heard = heard
        self._ended = ended
        self._log = log
        self._said = b""
        self._lines = Lines(self._take)
        self._scraping: Deferred[None] | None = None
        self._gone: list[Deferred[None]] = []
        self._over = False

    @property
    def age(self) -> float:
        """Seconds that it has lived."""
        return self._clock.monotonic() - self._born

    def say(self, message: Message) -> None:
        """Send a message; it may be lost when the process ends."""
        if not self._over:
            self.transport.writeToChild(FROM_SUPERVISOR, packed(message))

    def signal(self, name: str) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    async def ended(self) -> None:
        """Wait until the process is gone."""
        if not self._over:
            gone: Deferred[None] = Deferred(self._gone.remove)
            self._gone.append(gone)
            await gone

    async def scrape(self, seconds: float) -> None:
        """Ask for its `counts`. Raises TimedOut; the old ones stand then."""
        if self._scraping is None:
            self._scraping = Deferred()
            self.say({"scrape": 0})
        asked: Deferred[None] = Deferred()
        _ = self._scraping.addCallback(_pass_on, asked)
        await self._clock.within(seconds, asked)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Called with what it writes: messages, or lines of its log."""
        if childFD != TO_SUPERVISOR:
            self._log_lines(data)
            return
        try:
            self._lines.feed(data)
        except (TooLong, ValueError) as error:
            self._log.error(
                "worker {number} talks nonsense ({error}): killed",
                number=self.number,
                error=error,
            )
            self.signal("KILL")

    def processEnded(self, reason: Failure) -> None:
        """Called when it is gone and all it wrote was read."""
        self._over = True
        self._log_lines(b"\n")
        self._end_scraping()
        gone, self._gone = self._gone, []
        for each in gone:
            each.callback(None)
        self._ended(self, str(reason.value))

    def _take(self, message: Message) -> None:
        if "counts" in message:
            self.counts = Page(str(message["text"]))
            self._end_scraping()
            return
        if "ready" in message:
            self.ready = True
        self._heard(self, message)

    def _end_scraping(self) -> None:
        scraping, self._scraping = self._scraping, None
        if scraping is not None:
            scraping.callback(None)

    def _log_lines(self, data: bytes) -> None:
        *lines, self._said = (self._said + data).split(b"\n")
        if len(self._said) > MAX_SAID:
            lines.append(self._said)
            self._said = b""
        for line in lines:
            if line:
                self._log.info(
                    "worker {number}: {line}",
                    number=self.number,
                    line=line[:MAX_SAID].decode("utf-8", "backslashreplace"),
                )


def _pass_on(_: None, to: Deferred[None]) -> None:
    if not to.called:
        to.callback(None)
