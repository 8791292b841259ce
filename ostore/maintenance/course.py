"""What a job gets for one run: how to go on, when to stop, where to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

import attrs
from twisted.logger import Logger

from ostore.engine.jobbook import JobBook
from ostore.maintenance.pace import Pace
from ostore.model.errors import OstoreError
from ostore.model.runs import Run
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import gather

T = TypeVar("T")

OFTEN = 1.0
"""Seconds between two looks at the brakes, and two savings of the progress."""
PATIENCE = 30.0
"""Seconds for which a run waits for a doubt to go away."""


class Stopped(OstoreError):
    """The run must not go on; says why."""


class LeaseLost(OstoreError):
    """Another service does it now, or may; the run is that one's."""


class Job(Protocol):
    """One kind of maintenance; `interval` is in seconds, from end to begin.

    `fresh_epoch`: the cluster's epoch grows before each run of it. `removes`: it waits
    while nothing may be removed because metadata was adopted. `news` is compared
    from time to time; when it has changed, the job is due at once.
    """

    name: str
    interval: float
    fresh_epoch: bool
    removes: bool

    def news(self) -> Any:
        """What calls for a run when it changes; of JSON."""

    async def run(self, course: Course) -> None:
        """Do it once; raises to fail."""


class Course:
    """One run under way; made by the runner of the service that has the lease.

    `counts` and `cursor` are the job's to change; both are kept in the metadata, so a
    run that another service takes over begins with them. A dry run takes no notice of
    the brakes.
    """

    def __init__(
        self,
        run: Run,
        clock: Clock,
        pace: Pace,
        book: JobBook,
        brakes: Callable[[], Awaitable[list[str]]],
        epoch: Callable[[], int],
    ) -> None:
        self.dry_run = run.dry_run
        self.asked = run.asked
        self.force = run.force
        self.counts: Counter[str] = Counter(run.counts)
        self.cursor: Any = run.cursor
        self.clock = clock
        self.book = book
        self._run = run
        self._pace = pace
        self._brakes = brakes
        self._epoch = epoch
        self._looked: float | None = None
        self._log = Logger()

    @property
    def epoch(self) -> int:
        """That of the lease. Raises LeaseLost."""
        return self._epoch()

    @property
    def run(self) -> Run:
        """The run as it is now."""
        return attrs.evolve(self._run, counts=dict(self.counts), cursor=self.cursor)

    @property
    def memory(self) -> Any:
        """What the job remembered at an earlier run."""
        return self.book.records[self._run.job].memory

    async def remember(self, memory: Any) -> None:
        """Keep this for later runs."""
        await self.book.remember(self._run.job, memory)

    async def go_on(self, steps: float = 1) -> None:
        """Called before each piece of work; `steps` is about how many files it touches.

        Raises Stopped when a brake stays on, LeaseLost when the lease is.
        """
        await self._pace.take(steps)
        self._epoch()
        now = self.clock.monotonic()
        if self._looked is None or now - self._looked >= OFTEN:
            self._looked = now
            if not self.dry_run:
                await self._while_in_doubt()
            await self._save()

    async def _while_in_doubt(self) -> None:
        """Nothing goes on while a brake is on; it may be off again in a moment."""
        end = self.clock.monotonic() + PATIENCE
        while why := await self._brakes():
            if self.clock.monotonic() >= end:
                raise Stopped("; ".join(why))
            await self.clock.sleep(OFTEN)
            self._epoch()

    async def wait(self, seconds: float) -> None:
        """Let so much time go by (monotonic seconds), under the same conditions."""
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 0:
            await self.clock.sleep(min(left, OFTEN))
            await self.go_on(0)

    async def each(
        self,
        items: Iterable[T],
        work: Callable[[T], Awaitable[object]],
        steps: Callable[[T], float],
    ) -> None:
        """Do `work` for every item, several at once; the first error ends it."""
        left: Iterator[T] = iter(items)
        while some := list(islice(left, self._pace.together)):
            await self.go_on(sum(map(steps, some)))
            for outcome in await gather(work(item) for item in some):
                if isinstance(outcome, Exception):
                    raise outcome

    async def _save(self) -> None:
        """A store that takes no notes now (a full disk) does not stop the work."""
        try:
            await self.book.save(self.run)
        except OstoreError as error:
            self._log.warn("progress not saved: {error}", error=error)
