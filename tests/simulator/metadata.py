"""The metadata as one process reaches it: slow, away, or silent about what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ostore.backends.metadata.elastic_client import (
    NO_QUERY,
    MaybeApplied,
    Reply,
    SearchFailed,
)
from ostore.model.errors import MetadataUnavailable, OutcomeUnknown
from ostore.streaming.tasks import start
from tests.simulator.world import Process
from tests.support.fakesearch import FakeSearch

CHANGES = frozenset(
    {
        *("add_version", "purge", "mark_degraded", "clear_degraded"),
        *("lease", "release", "set_note"),
    }
)
MARKS = ("mark_degraded", "POST /ostore-heads/_bulk")
"""How requests begin that may mark a version."""


@attrs.define
class Mood:
    """How the metadata treats requests now.

    `away`: all are refused. `lose`: the chance that a request is done and its answer
    lost. `slow`: seconds that one may take, before it is done. `stuck`: seconds that a
    version takes to be written. `unwell`: when a mark was
    last refused or slow.
    """

    away: bool = False
    lose: float = 0.0
    slow: float = 0.0
    stuck: float = 0.0
    unwell: float = -inf


class Line:
    """One process's way to the metadata: requests take time and may be lost."""

    def __init__(self, mood: Mood, process: Process) -> None:
        self._mood = mood
        self._process = process

    async def ask(
        self,
        what: str,
        work: Callable[[], Any],
        refused: Callable[[], Exception],
        lost: Callable[[], Exception],
    ) -> Any:
        """What `work()` gives there."""
        process, mood = self._process, self._mood
        world = process.world
        marking = what.startswith(MARKS)
        answer: Deferred[Any] = process.awaited()

        def give(result: Any) -> None:
            if not answer.called:
                answer.callback(result)

        def fail(error: Callable[[], Exception]) -> None:
            process.enter(give, Failure(error()))

        def arrive() -> None:
            if mood.away:
                mood.unwell = world.now if marking else mood.unwell
                world.later(world.delay(), fail, refused)
                return
            world.note(f"{process.name} > metadata {what}")
            _ = start(work()).addBoth(answered)

        def answered(result: Any) -> None:
            told = result.value if isinstance(result, Failure) else ""
            world.note(f"{process.name} < metadata {what} {told}")
            if mood.lose and world.rng.random() < mood.lose:
                world.later(1.0, fail, lost)
            else:
                world.later(world.delay(), process.enter, give, result)

        if mood.slow and marking:
            mood.unwell = world.now
        delay = world.delay() + mood.slow * world.rng.random()
        if what.startswith("add_version"):
            delay += mood.stuck
        world.later(delay, arrive)
        return await answer


class SharedStore:
    """A store that all processes reach over lines of their own.

    `purged` is told of every purge that is sent: (bucket, name, number).
    """

    def __init__(
        self,
        inner: Any,
        mood: Mood,
        process: Process,
        purged: Callable[[str, str, int], None],
    ) -> None:
        self._inner = inner
        self._line = Line(mood, process)
        self._process = process
        self._purged = purged

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)

        async def asked(*args: Any) -> Any:
            if name == "purge":
                self._purged(*args)
            lost = OutcomeUnknown if name in CHANGES else MetadataUnavailable
            about = args[0].name if name == "add_version" else ""
            return await self._line.ask(
                f"{name} {about}",
                lambda: inner(*args),
                lambda: MetadataUnavailable("the metadata store does not answer"),
                lambda: lost("the metadata store does not answer"),
            )

        return asked

    async def health(self) -> str | None:
        """None when it works."""
        found: str | None = await self._inner.health()
        return found


class SearchLine:
    """The search server as the true store of one process reaches it."""

    def __init__(self, server: FakeSearch, mood: Mood, process: Process) -> None:
        self._server = server
        self._line = Line(mood, process)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: object | None = None,
        lines: Sequence[object] | None = None,
        idempotent: bool = False,
    ) -> Reply:
        """One exchange."""
        reply: Reply = await self._line.ask(
            f"{method} {path}",
            lambda: self._server.call(
                method,
                path,
                query=query,
                body=body,
                lines=lines,
                idempotent=idempotent,
            ),
            lambda: SearchFailed("the search server does not answer"),
            lambda: (SearchFailed if idempotent else MaybeApplied)("no answer"),
        )
        return reply
