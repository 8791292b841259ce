"""Runs the jobs: one service at a time, each job when it is due or asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.engine.collecting import Collecting
from ostore.engine.jobbook import JobBook
from ostore.interfaces import IMetadataStore
from ostore.maintenance.course import Course, Job, LeaseLost
from ostore.maintenance.pace import Pace
from ostore.model.errors import MetadataUnavailable, OstoreError
from ostore.model.runs import DONE, FAILED, Record, Run
from ostore.model.versions import Lease
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import start

LEASE = 30.0
"""Seconds for which the lease is taken; it is renewed after a third of them."""
REST = 60.0
"""Seconds before a run whose end could not be saved is begun anew."""
JITTER = 0.1
"""The largest part of an interval by which a pause is longer or shorter."""


class Runner:
    """Begins runs and ends them; made by the service, which calls turn() all the time.

    Every service with an engine has one. Who has the lease in the metadata runs the
    jobs, the others show what it does; when it is gone, another goes on with the runs
    that it left. Without `planned` only what is asked for is run.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        book: JobBook,
        hands: Collecting,
        metadata: IMetadataStore,
        pace: Pace,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        planned: bool = True,
    ) -> None:
        self._jobs = jobs
        self._book = book
        self._hands = hands
        self._metadata = metadata
        self._pace = pace
        self._clock = clock
        self._entropy = entropy
        self._planned = planned
        self._owner = entropy(16).hex()
        self._lease: Lease | None = None
        self._until = 0.0
        self._under_way: dict[str, Deferred[None]] = {}
        self._rest: dict[str, float] = {}
        self._log = Logger()

    @property
    def owner(self) -> bool:
        """Whether this service runs the jobs."""
        return self._lease is not None and self._clock.monotonic() < self._until

    async def turn(self) -> None:
        """Take or keep the lease, and begin what is due."""
        try:
            await self._turn()
        except MetadataUnavailable:
            return  # readiness tells of it; the lease runs out by itself

    async def _turn(self) -> None:
        await self._book.refresh()
        if why := await self._hands.brakes(whose=True):
            await self._refuse("; ".join(why))
            return
        await self._hold()
        if not self.owner:
            return
        for job in self._jobs:
            if job.name not in self._under_way:
                await self._consider(job)

    async def stop(self) -> None:
        """Leave the runs as they are, for the next start or another service."""
        for run in list(self._under_way.values()):
            run.cancel()
            await run
        if self._lease is not None:
            self._lease = None
            with suppress(OstoreError, TimedOut):
                await self._clock.within(5.0, self._metadata.release(self._owner))

    # The lease

    async def _hold(self) -> None:
        """Take the lease, or renew it when a third of it has gone by."""
        now = self._clock.monotonic()
        if self._lease is None or self._until - now < LEASE * 2 / 3:
            self._lease = await self._metadata.lease(self._owner, LEASE)
            self._until = now + LEASE

    async def _renewed(self) -> None:
        """Begin a new epoch: give the lease back and take it. Raises LeaseLost."""
        self._until = 0.0
        await self._metadata.release(self._owner)
        self._lease = None
        await self._hold()
        await self._hands.announce(self._epoch())

    def _epoch(self) -> int:
        if self._lease is None or not self.owner:
            raise LeaseLost("the lease on maintenance is lost")
        return self._lease.epoch

    # Runs

    async def _refuse(self, why: str) -> None:
        """Nothing may be run: what was asked for fails at once, the lease is free."""
        if self._lease is not None:
            self._lease = None
            await self._metadata.release(self._owner)
        for name, record in list(self._book.records.items()):
            for run in record.running:
                if run.asked and name not in self._under_way:
                    await self._end(run, FAILED, why)

    async def _consider(self, job: Job) -> None:
        if self._clock.monotonic() < self._rest.get(job.name, 0.0):
            return
        record = self._book.records[job.name]
        if record.running:
            self._begin(job, record.running[0])
            return
        if not self._planned:
            return
        now = self._clock.wall()
        news = job.news()
        if record.due is None:
            await self._book.change(job.name, partial(_planned, due=self._soon(job)))
        elif record.is_due(now, job.interval) or news != record.news:
            run = self._book.new_run(job.name)

            def begun(record: Record) -> Record:
                return attrs.evolve(record.with_run(run), news=news)

            await self._book.change(job.name, begun)
            self._begin(job, run)

    def _begin(self, job: Job, run: Run) -> None:
        brakes = partial(self._hands.brakes, removes=job.removes)
        course = Course(run, self._clock, self._pace, self._book, brakes, self._epoch)
        under_way = start(self._run(job, course))
        if not under_way.called:
            self._under_way[job.name] = under_way

    async def _run(self, job: Job, course: Course) -> None:
        """What is given up by the stop, or with the lease, is still running."""
        try:
            state, why = await self._outcome(job, course)
            self._book.failures += state == FAILED
            await self._end(course.run, state, why, job)
        except (CancelledError, LeaseLost):
            return
        except OstoreError as error:
            self._rest[job.name] = self._clock.monotonic() + REST
            self._log.warn("the end of {job} not saved: {why}", job=job.name, why=error)
        finally:
            self._under_way.pop(job.name, None)

    async def _outcome(self, job: Job, course: Course) -> tuple[str, str]:
        """How a run ended, and why it failed."""
        try:
            if job.fresh_epoch and not course.dry_run:
                await self._renewed()
            await job.run(course)
        except (CancelledError, LeaseLost):
            raise
        except (OstoreError, TimedOut) as error:
            self._log.warn("{job} failed: {why}", job=job.name, why=error)
            return FAILED, str(error)
        except Exception:  # noqa: BLE001 - the next run may do better
            self._log.failure("{job} failed", Failure(), job=job.name)  # type: ignore[no-untyped-call]  # Twisted's
            return FAILED, "a defect of the service; its log knows more"
        return DONE, ""

    async def _end(
        self, run: Run, state: str, why: str, job: Job | None = None
    ) -> None:
        now = self._clock.wall()
        ended = attrs.evolve(run, state=state, ended=now, why=why)

        def change(record: Record) -> Record:
            record = record.with_run(ended)
            if job is None or run.asked:
                return record
            pause = record.due_after(now, job.interval) - now
            return attrs.evolve(record, due=now + pause * self._chance())

        await self._book.change(run.job, change)

    def _soon(self, job: Job) -> float:
        """When a job that never ran is due: jobs do not all begin at once."""
        part = int.from_bytes(self._entropy(4), "big") / 2**32
        return self._clock.wall() + job.interval * part

    def _chance(self) -> float:
        return 1 + JITTER * (int.from_bytes(self._entropy(4), "big") / 2**31 - 1)


def _planned(record: Record, due: float) -> Record:
    return record if record.due is not None else attrs.evolve(record, due=due)
