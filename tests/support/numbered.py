"""A fake server whose states have numbers: any of them is the present one at once."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.task import Clock as Timers

from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.support.fakedocuments import Copy
from tests.support.fakesearch import FakeSearch, Progress, Request
from tests.support.linearizable import Answer, Seen, Versions
from tests.support.recorder import ask
from tests.support.replaying import MakeStore
from tests.support.worlds import Ends, Wrong

Served = tuple[int, int, int | None]
"""The server behind a step, how far the request is, and its answer if that was all."""


class Server:
    """Takes steps of requests in numbered states, each worked out once.

    `answers` are status and JSON by number; `progress` tells how far a request is.
    """

    def __init__(self, make: MakeStore, server: Callable[[], FakeSearch]) -> None:
        self._make = make
        self._server = server()
        self._fresh_store()
        self._states: list[tuple[tuple[Copy, Copy], ...]] = []
        self._state_numbers: dict[object, int] = {}
        self.progress: list[Progress] = [Progress()]
        self._progress_numbers: dict[Progress, int] = {Progress(): 0}
        self.answers: list[tuple[int, str]] = []
        self._answer_numbers: dict[tuple[int, str], int] = {}
        self._served: dict[tuple[int, Request, int, int], Served] = {}
        self._ends: dict[int, Ends] = {}

    def now(self) -> int:
        """The number of the present state."""
        documents = self._server.documents()
        key = tuple(
            tuple(frozenset(copy.items()) for copy in copies) for copies in documents
        )
        number = self._state_numbers.setdefault(key, len(self._states))
        if number == len(self._states):
            self._states.append(documents)
        return number

    def serve(self, state: int, request: Request, progress: int, other: int) -> Served:
        """One step of a request; `other` is what a read of any copy happens to read."""
        key = state, request, progress, other
        served = self._served.get(key)
        if served is None:
            self._server.restore(self._states[state])
            self._server.other = other
            outcome = self._server.step(request, self.progress[progress])
            if isinstance(outcome, Progress):
                served = self.now(), self._progressed(outcome), None
            else:
                told = self._answered(outcome.status, json.dumps(outcome.body))
                served = self.now(), 0, told
            self._served[key] = served
        return served

    def end(self, state: int, names: Sequence[str]) -> Ends:
        """What a process that was never there before reads of each name."""
        found = self._ends.get(state)
        if found is None:
            self._server.restore(self._states[state])
            store = self._fresh_store()
            found = self._ends[state] = tuple(
                (name, _now(ask(store, name, Versions()))) for name in names
            )
        return found

    def _fresh_store(self) -> Any:
        timers = Timers()
        clock = Clock(timers, timers.seconds, lambda: 1000.0)
        store = self._make(self._server, clock)
        _ = start(store.start())
        return store

    def _progressed(self, progress: Progress) -> int:
        number = self._progress_numbers.setdefault(progress, len(self.progress))
        if number == len(self.progress):
            self.progress.append(progress)
        return number

    def _answered(self, status: int, text: str) -> int:
        told = status, text
        number = self._answer_numbers.setdefault(told, len(self.answers))
        if number == len(self.answers):
            self.answers.append(told)
        return number


def _now(work: Awaitable[Answer]) -> tuple[Seen, ...]:
    """The page that comes without waiting for anything."""
    outcomes: list[Any] = []
    _ = start(work).addBoth(outcomes.append)
    if not outcomes or not isinstance(outcomes[0], tuple):
        raise Wrong(f"the name cannot be read in the end: {outcomes}")
    found: tuple[Seen, ...] = outcomes[0]
    return found
