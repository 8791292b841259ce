"""Changing a name: read, decide, compare-and-set; again when others were faster."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Generic, Protocol, TypeVar

import attrs
from twisted.internet.defer import DeferredLock

from ostore.backends.metadata.elastic_archives import Archives
from ostore.backends.metadata.elastic_bulk import (
    Address,
    Busy,
    Documents,
    Position,
    Write,
)
from ostore.backends.metadata.elastic_client import MaybeApplied
from ostore.backends.metadata.elastic_documents import head_document, head_id
from ostore.backends.metadata.elastic_memory import Memory
from ostore.backends.metadata.elastic_names import Gone, Names, Seen, weight_of
from ostore.model.errors import (
    MetadataUnavailable,
    NotFound,
    OutcomeUnknown,
    Refused,
)
from ostore.model.heads import Change, Head
from ostore.streaming.clock import Clock

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds for which a change is tried."""

_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


@attrs.frozen
class Plan(Generic[T]):
    """What a step has decided: the result, and the change that makes it so, if any."""

    result: T
    change: Change | None = None


class Step(Protocol[T]):
    """One change of one name, decided anew for each head that it meets."""

    async def plan(self, head: Head) -> Plan[T]:
        """What to do with this head. Raises Gone, and the contract's refusals."""
        ...

    def sent(self, head: Head) -> None:
        """Learn that this head, which was planned, may have been written."""


class Changes:
    """The one way in which heads are written.

    One change of a name at a time in this process, so that those which wait need no
    second try. A remembered head may start a change, and so may the guess that a name
    is new; nothing but a fresh one may refuse it, or find it done.
    """

    def __init__(
        self,
        names: Names,
        documents: Documents,
        archives: Archives,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._names = names
        self._documents = documents
        self._archives = archives
        self._clock = clock
        self._chance = chance
        self._locks: dict[str, tuple[DeferredLock, int]] = {}
        self._memory = Memory()

    async def run(self, bucket: str, name: str, step: Step[T]) -> T:
        """Carry out the step.

        Raises what its plan raises, MetadataUnavailable when nothing was changed, and
        OutcomeUnknown when something may have been.
        """
        key = head_id(bucket, name)
        lock, users = self._locks.get(key, (DeferredLock(), 0))
        self._locks[key] = lock, users + 1
        try:
            await lock.acquire()
            try:
                return await self._run(key, bucket, name, step)
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1

    async def _run(self, key: str, bucket: str, name: str, step: Step[T]) -> T:
        deadline = self._clock.monotonic() + PATIENCE
        doubt: _Doubt | None = None
        known = key in self._memory
        begun = await self._begin(key, bucket, name, step)
        for attempt in count(1):
            stale = begun is not None
            seen, plan = begun or await self._plan(bucket, name, step, doubt)
            begun = None
            if doubt is not None and seen.position != doubt.position:
                doubt = None  # it was overtaken, and can never happen now
            if plan.change is None:
                self._memory.keep(key, seen)
                return plan.result
            try:
                position = await self._write(key, seen, plan.change)
                if position is not None:
                    self._memory.keep(key, Seen(plan.change.head, position))
                    self._memory.learn(known, seen, plan.change)
                    return plan.result
                if stale:
                    continue  # nobody need be at it now
            except MaybeApplied:
                doubt = _Doubt(seen.position)
                step.sent(plan.change.head)
                self._memory.lost()
            except Busy:
                pass  # as good as a conflict
            except MetadataUnavailable as error:
                raise _unknown() if doubt else error from error
            if self._clock.monotonic() >= deadline:
                break
            await self._pause(attempt)
        raise _unknown() if doubt else _in_vain()

    async def _begin(
        self, key: str, bucket: str, name: str, step: Step[T]
    ) -> tuple[Seen, Plan[T]] | None:
        """The plan for a head that was not read, if there is one that leads to a write."""
        seen = self._memory.take(key, bucket, name)
        if seen is None:
            return None
        try:
            plan = await step.plan(seen.head)
        except (Gone, NotFound, Refused, MetadataUnavailable):
            return None
        return None if plan.change is None else (seen, plan)

    async def _plan(
        self, bucket: str, name: str, step: Step[T], doubt: _Doubt | None
    ) -> tuple[Seen, Plan[T]]:
        async def ask(seen: Seen) -> tuple[Seen, Plan[T]]:
            return seen, await step.plan(seen.head)

        try:
            return await self._names.consistently(bucket, name, ask)
        except MetadataUnavailable as error:
            raise _unknown() if doubt else error from error

    async def _write(self, key: str, seen: Seen, change: Change) -> Position | None:
        head = change.head
        for archive, versions in change.written:
            await self._archives.write(head, archive, versions)
        position = await self._documents.write(
            Write(Address(key), head_document(head), seen.position), weight_of(head)
        )
        # A conflict may be with this very write, tried again by a server when a primary
        # died: what it has written may be named by now, and is left to a sweep.
        if position is not None:
            self._archives.drop(head, change.dropped)
            if change.written:
                self._archives.sweep(head.bucket, head.name)
        return position

    async def _pause(self, attempt: int) -> None:
        longest = min(_PAUSE * attempt, _LONGEST_PAUSE)
        await self._clock.sleep(longest * self._chance())


@attrs.frozen
class _Doubt:
    """A write upon this position may be under way."""

    position: Position | None


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown("the write may yet appear")


def _in_vain() -> MetadataUnavailable:
    return MetadataUnavailable("the metadata store does not take the write")
