"""One process of ostore: it rises step by step, and falls the other way round."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.model.errors import OstoreError
from ostore.model.messages import Signer
from ostore.service.accesslog import AccessLog
from ostore.service.entropy import Entropy
from ostore.service.failing import StartError, fail_start
from ostore.service.falling import GRACE, undo_all
from ostore.service.settings import Settings
from ostore.service.tls import Certificates
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers
from ostore.streaming.schedule import Repeated
from ostore.streaming.tasks import start

FLUSHERS = 2
"""Threads that append to segments while none of them hangs."""


class Process(Service):
    """What the three roles share; twistd starts and stops it.

    A role overrides `rise()`: what it has begun it notes with `undo()`, and at the
    stop the last is undone first. What cannot start says so in one line and ends the
    process. Raises StartError when it is made with certificates that do not fit.
    """

    role = "ostore"

    def __init__(self, settings: Settings, keys: list[bytes], reactor: Any) -> None:
        self.settings = settings
        self.reactor = reactor
        self.keys = keys
        self.clock = Clock(reactor, time.monotonic, time.time)
        self.entropy = Entropy()
        self.signer = Signer(keys)
        self.certificates = Certificates(settings)
        self.risen: Callable[[], None] = lambda: None
        """Called when everything has started; set by who has the process for it alone."""
        self._log = Logger()
        self._undo: list[Callable[[], Any]] = []
        self._starting: Deferred[None] | None = None

    async def rise(self) -> None:
        """Start everything; the role's own."""
        raise NotImplementedError

    def undo(self, step: Callable[[], Any]) -> None:
        """Call `step` at the stop; it may be a coroutine function."""
        self._undo.append(step)

    def flushers(self, nodes: int) -> ThreadWorkers:
        """Threads that append to the segments of so many nodes; ended at the stop.

        One that hangs on a disk keeps no other disk waiting for long.
        """
        workers = ThreadWorkers(self.reactor, 2 * nodes, "flusher", few=FLUSHERS)
        workers.start()
        self.undo(workers.stop)
        return workers

    def fail(self, why: object) -> None:
        """End the process with one line."""
        fail_start(self.reactor, f"{self.role}: {why}")

    def startService(self) -> None:
        """Begin to start; the ready line says when it is done."""
        super().startService()  # type: ignore[no-untyped-call] # Twisted has none
        self._starting = start(self._start())

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish what is under way, let everything go."""
        super().stopService()  # type: ignore[no-untyped-call] # Twisted has none
        return start(self._stop())

    def repeat(self, every: float, work: Callable[[], Any], what: str) -> Repeated:
        """Do `work` again and again until the stop."""
        repeated = Repeated(self.clock, every, work, self.entropy, self._log, what=what)
        repeated.start()
        self.undo(repeated.stop)
        return repeated

    def access_log(self) -> Callable[[dict[str, object]], None]:
        """Where the line of a request goes: the file of the settings, or nowhere."""
        path = self.settings.access_log
        if path is None:
            return lambda _: None
        try:
            access = AccessLog(path)
        except OSError as error:
            raise StartError(
                f"access-log {path} cannot be written ({error.strerror}): allowed is "
                "the path of a file"
            ) from error
        self.undo(access.close)

        async def flush() -> None:
            access.flush()

        self.repeat(1.0, flush, "writing the access log")
        return access.write

    async def _start(self) -> None:
        try:
            await self.rise()
            self.risen()
        except CancelledError:
            return
        except (OstoreError, StartError, OSError) as error:
            self.fail(error)
        except Exception:  # noqa: BLE001 - a defect: its traceback goes to the log
            self._log.failure("the start failed", Failure())  # type: ignore[no-untyped-call]
            self.fail("the start failed, see the log")

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await starting
        await undo_all(self._undo, self.clock, self._log, GRACE)
