"""`ostore-api --workers N`: one port, N processes that serve it."""

from __future__ import annotations

import os
import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ostore.service.falling import GRACE, LEAST
from ostore.service.kinds import Address
from ostore.service.process import Process
from ostore.service.serving import bind, say, url_of
from ostore.service.workers.control import (
    FROM_SUPERVISOR,
    LISTENING,
    TO_SUPERVISOR,
    Message,
)
from ostore.service.workers.running import Running, hand_over
from ostore.service.workers.summing import Page
from ostore.streaming.clock import TimedOut
from ostore.streaming.tasks import Tasks, gather

FIRST_PAUSE = 0.2
LAST_PAUSE = 10.0
"""Seconds before a worker that died is replaced; twice as long each time."""
STEADY = 60.0
"""A worker that lived so many seconds is replaced without such a history."""
END = GRACE - LEAST / 2
"""Seconds that the workers have for their end."""
ANSWER = 2.0
"""Seconds that the others have to say what they count."""


class Supervisor(Process):
    """Holds the port and keeps `workers` processes alive; twistd starts and stops it.

    The workers accept connections themselves. One that ends is replaced; when one
    cannot start for a reason that is the settings' before all were ready once, the
    service ends with its line. The ready line comes when all are ready.
    """

    role = "ostore-api"

    async def rise(self) -> None:
        """Listen, and begin with the workers."""
        self.certificates.server(mutual=False)
        self._socket = bind(self.settings.listen)
        self._running: dict[int, Running] = {}
        self._deaths: dict[int, int] = {}
        self._again: dict[int, IDelayedCall] = {}
        self._buried = Page()
        self._replaced = 0
        self._stopping = False
        self._all_ready: Deferred[None] = Deferred()
        self._tasks = Tasks(self._log)
        self.undo(self._tasks.stop)
        self.undo(self._socket.close)
        self.undo(self._end)
        for number in range(1, self.settings.workers + 1):
            self._begin(number)
        await self._all_ready
        host, port = self._socket.getsockname()[:2]
        secure = self.settings.tls_certificate is not None
        url = url_of(Address(host, port), secure=secure)
        say(f"{self.role} ready on {url}")

    def _begin(self, number: int) -> None:
        self._again.pop(number, None)
        running = Running(number, self.clock, self._heard, self._ended, self._log)
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            self.reactor.spawnProcess(
                running,
                sys.executable,
                [sys.executable, "-m", "ostore.service.workers.worker"],
                env=dict(os.environ),
                childFDs={
                    0: nothing,
                    1: "r",
                    2: "r",
                    FROM_SUPERVISOR: "w",
                    TO_SUPERVISOR: "r",
                    LISTENING: self._socket.fileno(),
                },
            )
        finally:
            os.close(nothing)
        running.say(hand_over(self.settings))
        self._running[number] = running

    def _heard(self, running: Running, message: Message) -> None:
        """A worker says something that is no answer."""
        if "ready" in message:
            ready = sum(each.ready for each in self._running.values())
            if ready == self.settings.workers and not self._all_ready.called:
                self._all_ready.callback(None)
        elif "failed" in message:
            if not self._all_ready.called:
                self.fail(str(message["failed"]).removeprefix(f"{self.role}: "))
            else:
                self._log.error("{line}", line=message["failed"])
        elif "ask" in message:
            self._tasks.spawn(
                "adding up /metrics", lambda: self._add_up(running, message)
            )

    def _ended(self, running: Running, why: str) -> None:
        """A worker's process is gone."""
        number = running.number
        del self._running[number]
        if running.counts is not None:
            self._buried.add(running.counts.growing())
        if self._stopping:
            return
        steady = running.age >= STEADY
        deaths = self._deaths[number] = 0 if steady else self._deaths.get(number, 0) + 1
        pause = min(LAST_PAUSE, FIRST_PAUSE * 2**deaths)
        self._replaced += 1
        self._log.error(
            "worker {number} ended ({why}); another one takes its place in {pause:.1f} s",
            number=number,
            why=why,
            pause=pause,
        )
        self._again[number] = self.clock.call_later(pause, self._begin, number)

    async def _add_up(self, asker: Running, message: Message) -> None:
        """Answer a worker that was asked for /metrics."""
        asker.counts = Page(str(message["text"]))
        others = [each for each in self._running.values() if each is not asker]
        for outcome in await gather(each.scrape(ANSWER) for each in others):
            if isinstance(outcome, Exception) and not isinstance(outcome, TimedOut):
                raise outcome
        page = Page()
        page.add(self._buried)
        for each in self._running.values():
            if each.counts is not None:
                page.add(each.counts)
        text = page.text(
            {
                "ostore_workers": len(self._running),
                "ostore_workers_replaced": self._replaced,
            }
        )
        asker.say({"sum": message["ask"], "text": text.decode()})

    async def _end(self) -> None:
        """Ask all to stop; those that do not are killed."""
        self._stopping = True
        for call in self._again.values():
            call.cancel()
        running = list(self._running.values())
        for each in running:
            each.signal("TERM")
        for each, outcome in zip(
            running,
            await gather(self.clock.within(END, each.ended()) for each in running),
            strict=True,
        ):
            if isinstance(outcome, Exception):
                self._log.error("worker {number} hangs: killed", number=each.number)
                each.signal("KILL")
