"""What was asked of maintenance and what became of it: notes that all services share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from ostore.interfaces import IMetadataStore
from ostore.model.errors import MetadataUnavailable, NotFound, Refused
from ostore.model.runs import WAITING, Record, Run
from ostore.streaming.clock import Clock

TRIES = 8
"""Times that a change is tried while others change the same note."""

Change = Callable[[Record], Record]


class JobBook:
    """A note in the metadata for each job; any service reads and writes them.

    One for an engine. `records` is what was read last; `failures` counts runs that
    failed in this process.
    """

    def __init__(
        self,
        metadata: IMetadataStore,
        clock: Clock,
        entropy: Callable[[int], bytes],
        jobs: Sequence[str],
    ) -> None:
        self.records: dict[str, Record] = {job: Record() for job in jobs}
        self.failures = 0
        self._metadata = metadata
        self._clock = clock
        self._entropy = entropy

    async def refresh(self) -> None:
        """Read all of them. Raises MetadataUnavailable."""
        for job in self.records:
            await self._read(job)

    async def ask(self, job: str, *, dry_run: bool, force: bool) -> Run:
        """Have a job run as soon as may be.

        Raises NotFound for an unknown job, Refused when too many runs of it wait.
        """
        if job not in self.records:
            raise NotFound(f"no such job; there are {', '.join(sorted(self.records))}")
        run = self.new_run(job, asked=True, dry_run=dry_run, force=force)

        def add(record: Record) -> Record:
            if len(record.running) >= WAITING:
                raise Refused(f"{WAITING} runs of this job wait already")
            return record.with_run(run)

        await self.change(job, add)
        return run

    def new_run(self, job: str, **given: Any) -> Run:
        """A run that begins now."""
        return Run(self._entropy(16).hex(), job, self._clock.wall(), **given)

    async def find(self, id: str) -> Run:
        """The run of that id. Raises NotFound."""
        await self.refresh()
        for record in self.records.values():
            if (run := record.find(id)) is not None:
                return run
        raise NotFound("no run of that id is remembered")

    async def change(self, job: str, change: Change) -> Record:
        """Apply `change` to the job's record, again when others were faster."""
        for _ in range(TRIES):
            record, mark = await self._read(job)
            changed = change(record)
            if changed == record or await self._metadata.set_note(
                f"job-{job}", changed.to_json(), mark
            ):
                self.records[job] = changed
                return changed
        raise MetadataUnavailable(f"the note of the job {job} changes too fast")

    async def save(self, run: Run) -> None:
        """Write down how far a run is."""
        await self.change(run.job, lambda record: record.with_run(run))

    async def remember(self, job: str, memory: Any) -> None:
        """Write down what a job wants to know at its next run."""
        await self.change(job, lambda record: attrs.evolve(record, memory=memory))

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock.wall()

    def shown(self) -> dict[str, Any]:
        """The jobs of /cluster, as they were read last."""
        return {job: record.shown() for job, record in self.records.items()}

    def moves(self) -> dict[str, Any]:
        """How far the run of rebalance is that is under way; zeros without one."""
        running = self.records["rebalance"].running
        counts = running[0].counts if running else {}
        return {
            "moved": counts.get("moved", 0),
            "left_bytes": counts.get("left_bytes", 0),
            "eta_seconds": counts.get("eta_seconds", 0),
        }

    async def _read(self, job: str) -> tuple[Record, str]:
        note = await self._metadata.note(f"job-{job}")
        if note is None:
            found, mark = Record(), ""
        else:
            found, mark = Record.from_json(note.value), note.mark
        self.records[job] = found
        return found, mark
