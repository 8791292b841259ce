"""Runs of maintenance jobs, as they are kept in the metadata and shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

KEPT, KEPT_ASKED = 5, 20
"""Ended runs of a job that are remembered: those by plan, those that were asked for."""
WAITING = 10
"""Most runs of a job that wait to be begun."""
RETRY = 60.0
"""Seconds after which a failed run is tried again; doubles, up to the interval."""
RUNNING, DONE, FAILED = "running", "done", "failed"


@attrs.frozen
class Run:
    """What was asked for, how far it is, what it did; times are seconds since 1970.

    `asked`: by a person, not by plan. `cursor` is what the job goes on from when
    another service takes over; `why` says what a failed run met.
    """

    id: str
    job: str
    started: float
    asked: bool = False
    dry_run: bool = False
    force: bool = False
    state: str = RUNNING
    ended: float | None = None
    why: str = ""
    cursor: Any = None
    counts: Mapping[str, int] = attrs.field(factory=dict)

    def shown(self) -> dict[str, Any]:
        """The JSON that people get."""
        return {
            "id": self.id,
            "job": self.job,
            "state": self.state,
            "started": moment(self.started),
            "ended": moment(self.ended),
            "dry_run": self.dry_run,
            "counts": dict(self.counts),
            **({"why": self.why} if self.why else {}),
        }


@attrs.frozen
class Record:
    """What is known of one job: its runs, the newest last, and when it is due.

    `news` is what the last run by plan was begun upon, `memory` is the job's own, from
    run to run; both of JSON.
    """

    runs: tuple[Run, ...] = ()
    due: float | None = None
    news: Any = None
    memory: Any = None

    @property
    def last(self) -> Run | None:
        """The newest run."""
        return self.runs[-1] if self.runs else None

    @property
    def running(self) -> tuple[Run, ...]:
        """Those that have not ended, the oldest first: it is the one under way."""
        return tuple(run for run in self.runs if run.state == RUNNING)

    def find(self, id: str) -> Run | None:
        """The run of that id."""
        return next((run for run in self.runs if run.id == id), None)

    def with_run(self, run: Run) -> Record:
        """The same with that run, new or changed; old ones are forgotten."""
        runs = [*(each for each in self.runs if each.id != run.id), run]
        runs.sort(key=lambda each: (each.started, each.id))
        for asked, most in ((False, KEPT), (True, KEPT_ASKED)):
            ended = [r for r in runs if r.asked == asked and r.state != RUNNING]
            for old in ended[: max(0, len(ended) - most)]:
                runs.remove(old)
        return attrs.evolve(self, runs=tuple(runs))

    def due_after(self, now: float, interval: float) -> float:
        """When to run again by plan, seen from the end of a run."""
        failures = 0
        for run in reversed([run for run in self.runs if not run.asked]):
            if run.state != FAILED:
                break
            failures += 1
        if failures:
            interval = min(interval, RETRY * 2 ** (failures - 1))
        return now + interval

    def is_due(self, now: float, interval: float) -> bool:
        """Whether it is time; a time too far ahead is one by a clock that was wrong."""
        return self.due is not None and not now < self.due <= now + 2 * interval

    def shown(self) -> dict[str, Any]:
        """The line of /cluster."""
        last = self.last
        return {
            "last": None if last is None else moment(last.ended or last.started),
            "next": moment(self.due),
            "state": None if last is None else last.state,
        }

    def to_json(self) -> dict[str, Any]:
        """The note."""
        runs = [attrs.asdict(run) for run in self.runs]
        return {**attrs.asdict(self, recurse=False), "runs": runs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """Read the note."""
        runs = tuple(Run(**run) for run in value["runs"])
        return cls(**{**value, "runs": runs})


def moment(seconds: float | None) -> str | None:
    """A time for people: RFC 3339 in UTC."""
    if seconds is None:
        return None
    shown = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return shown.replace("+00:00", "Z")
