"""What a service shows of itself, checked when it is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from ostore.cli.failures import Unreachable


@attrs.frozen
class Node:
    """A node, as the service that was asked sees it; `heard` in seconds ago."""

    id: str
    url: str
    zone: str
    state: str
    free: int
    total: int
    shards: int
    heard: float | None

    @property
    def share(self) -> float:
        """The part of its disk that is free."""
        return self.free / self.total if self.total else 0.0


@attrs.frozen
class Job:
    """A job: when it ran last, when it will, and how the last run ended."""

    name: str
    last: str | None
    next: str | None
    state: str | None


@attrs.frozen
class View:
    """The JSON of `/cluster`; `raw` is all of it."""

    nodes: tuple[Node, ...]
    faults: tuple[str, ...]
    waiting: int
    worst: int | None
    jobs: tuple[Job, ...]
    codec: str
    version: str
    raw: Mapping[str, Any]

    @classmethod
    def read(cls, value: Any) -> View:
        """From JSON. Raises Unreachable for anything else."""
        try:
            jobs = value.get("jobs", {}).items()
            return cls(
                nodes=tuple(_node(each) for each in value["nodes"]),
                faults=tuple(str(each) for each in value.get("faults", ())),
                waiting=int(value["repairs"]["waiting"]),
                worst=_number(value["repairs"]["worst"]),
                jobs=tuple(_job(str(name), each) for name, each in sorted(jobs)),
                codec=str(value.get("codec", "")),
                version=str(value["version"]),
                raw=value,
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable("the answer is no cluster: is this an ostore?") from error

    def find(self, word: str) -> list[Node]:
        """The nodes whose id begins so."""
        return [node for node in self.nodes if node.id.startswith(word)]

    def job(self, *names: str) -> str | None:
        """The first of these jobs that the service has."""
        known = {job.name for job in self.jobs}
        return next((name for name in names if name in known), None)


@attrs.frozen
class Run:
    """One run of a job."""

    id: str
    job: str
    state: str
    started: str | None
    ended: str | None
    dry_run: bool
    counts: Mapping[str, int]
    why: str
    raw: Mapping[str, Any]

    @classmethod
    def read(cls, value: Any) -> Run:
        """From JSON. Raises Unreachable for anything else."""
        try:
            return cls(
                id=str(value["id"]),
                job=str(value["job"]),
                state=str(value["state"]),
                started=_text(value.get("started")),
                ended=_text(value.get("ended")),
                dry_run=bool(value.get("dry_run")),
                counts={str(k): int(v) for k, v in value.get("counts", {}).items()},
                why=str(value.get("why", "")),
                raw=value,
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable("the answer is no run: is this an ostore?") from error


def _node(value: Any) -> Node:
    heard = value.get("last_heard")
    return Node(
        id=str(value["id"]),
        url=str(value["url"]),
        zone=str(value["zone"]),
        state=str(value["state"]),
        free=int(value["free"]),
        total=int(value["total"]),
        shards=int(value["shards"]),
        heard=None if heard is None else float(heard),
    )


def _job(name: str, value: Any) -> Job:
    return Job(
        name,
        _text(value.get("last")),
        _text(value.get("next")),
        _text(value.get("state")),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def seconds_of(moment: str | None) -> float | None:
    """A time of the service in seconds since 1970; None for what is none."""
    try:
        return datetime.fromisoformat(moment or "").timestamp()
    except ValueError:
        return None


def span(seconds: float) -> str:
    """A length of time as people say it: `12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(text: str | None, now: float) -> str:
    """A time as people say it: `5 min ago`, `in 3 h`, `-`."""
    at = seconds_of(text)
    if at is None:
        return "-"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
