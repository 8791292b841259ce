"""One api process as a machine of events: what it does depends on nothing else.

A real store runs over a seam that holds every call back. All that reaches it are
events: a client's call begins, an answer comes or is lost, time passes. The same
events have the same effect, so what they lead to is found out once and remembered in
a tree; a store that has to be brought to some node is made anew and fed the events on
the way there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers
from twisted.python.failure import Failure

from ostore.backends.metadata.elastic_client import (
    NO_QUERY,
    MaybeApplied,
    Reply,
    SearchFailed,
)
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.support.fakesearch import FakeSearch, Request
from tests.support.linearizable import Answer, Call
from tests.support.recorder import Nothing, ask

SOON = 2.0
"""Timers that far ahead may ring while answers are under way; later ones wait."""

Program = Callable[[], Generator[Call, Any, None]]
"""What one client does: calls, each knowing the answers to those before."""
MakeStore = Callable[[Any, Clock], Any]
"""A store, not started, over a `Search`."""


@attrs.frozen
class Invoke:
    """The client of a program makes its next call."""

    program: int


@attrs.frozen(cache_hash=True)
class Deliver:
    """The answer to a request comes."""

    request: int
    status: int
    text: str


@attrs.frozen
class Lose:
    """The answer to a request will never come, and the client notices."""

    request: int


@attrs.frozen
class Refuse:
    """A request surely does nothing, and the client knows."""

    request: int


@attrs.frozen
class Wake:
    """Time passes until the next timer rings."""


Event = Invoke | Deliver | Lose | Refuse | Wake


@attrs.frozen
class Effect:
    """What an event led to.

    `returned` and `ready` go by program: answers, and calls that may be made next.
    `timer` is in how many seconds the next one rings.
    """

    requests: tuple[Request, ...]
    returned: tuple[tuple[int, Answer | Nothing], ...]
    ready: tuple[tuple[int, Call], ...]
    busy: frozenset[int]
    timer: float | None


@attrs.define(eq=False)
class Node:
    """A process that has seen some events; `requests` are all that it ever sent."""

    number: int
    parent: Node | None
    event: Event | None
    effect: Effect
    requests: tuple[Request, ...] = ()
    wakes: int = 0
    children: dict[Event, Node] = attrs.field(factory=dict)

    def events(self) -> list[Event]:
        """All events so far."""
        found = []
        node = self
        while node.parent is not None:
            assert node.event is not None
            found.append(node.event)
            node = node.parent
        return found[::-1]


class Process:
    """A store and its clients, run for real; itself the store's `Search`."""

    def __init__(
        self,
        make: MakeStore,
        server: FakeSearch,
        programs: Mapping[int, tuple[str, Program]],
    ) -> None:
        self._timers = Timers()
        clock = Clock(self._timers, self._timers.seconds, lambda: 1000.0)
        self._direct: FakeSearch | None = server
        self._waiting: dict[int, Deferred[Reply]] = {}
        self._idempotent: set[int] = set()
        self._requests: list[Request] = []
        self._issued = 0
        self._returned: list[tuple[int, Answer | Nothing]] = []
        self._busy: set[int] = set()
        self._broken: Failure | None = None
        self._store = make(self, clock)
        started = start(self._store.start())
        assert started.called, "a store starts without waiting for time to pass"
        self._direct = None
        self._names = {which: name for which, (name, _) in programs.items()}
        self._clients = {which: program() for which, (_, program) in programs.items()}
        self._ready: dict[int, Call] = {}
        for which in self._clients:
            self._go_on(which, None)
        self.effect = self._told()

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
        """Hold the call back until its answer is delivered."""
        if self._direct is not None:
            return await self._direct.call(
                method,
                path,
                query=query,
                body=body,
                lines=lines,
                idempotent=idempotent,
            )
        request = Request.of(method, path, query, body, lines, idempotent)
        waiting: Deferred[Reply] = Deferred()
        self._waiting[self._issued] = waiting
        if idempotent:
            self._idempotent.add(self._issued)
        self._issued += 1
        self._requests.append(request)
        return await waiting

    def feed(self, event: Event) -> Effect:
        """Let it happen."""
        if isinstance(event, Invoke):
            self._invoke(event.program)
        elif isinstance(event, Deliver):
            waiting = self._waiting.pop(event.request)
            waiting.callback(Reply(event.status, json.loads(event.text)))
        elif isinstance(event, Lose | Refuse):
            # A call that is idempotent was tried again, in vain.
            lost = isinstance(event, Lose) and event.request not in self._idempotent
            waiting = self._waiting.pop(event.request)
            waiting.errback(MaybeApplied("lost") if lost else SearchFailed("refused"))
        else:
            self._timers.advance(self._next() or 0.0)
        if self._broken is not None:
            self._broken.raiseException()
        self.effect = self._told()
        return self.effect

    def _invoke(self, which: int) -> None:
        self._busy.add(which)
        call = self._ready.pop(which)
        _ = start(ask(self._store, self._names[which], call)).addBoth(
            self._ended, which
        )

    def _ended(self, outcome: Any, which: int) -> None:
        self._busy.remove(which)
        if isinstance(outcome, Failure):
            if not outcome.check(Nothing):
                self._broken = outcome
                return
            outcome = outcome.value
        self._returned.append((which, outcome))
        self._go_on(which, outcome)

    def _go_on(self, which: int, answer: Answer | Nothing) -> None:
        if isinstance(answer, Nothing):
            return  # a client that was refused gives up
        try:
            client = self._clients[which]
            self._ready[which] = client.send(answer)
        except StopIteration:
            return

    def _next(self) -> float | None:
        timers = self._timers.getDelayedCalls()
        if not timers:
            return None
        return max(0.0, min(each.getTime() for each in timers) - self._timers.seconds())

    def _told(self) -> Effect:
        requests, self._requests = tuple(self._requests), []
        returned, self._returned = tuple(self._returned), []
        ready = tuple(sorted(self._ready.items(), key=lambda each: each[0]))
        return Effect(requests, returned, ready, frozenset(self._busy), self._next())


class Tree:
    """All that one process may come to, as far as anybody asked."""

    def __init__(
        self,
        make: MakeStore,
        server: Callable[[], FakeSearch],
        programs: Mapping[int, tuple[str, Program]],
    ) -> None:
        self._make = make
        self._server = server
        self._programs = programs
        self.runs = 0
        self.nodes: list[Node] = []
        self._process = self._begin()
        self.root = self._grown(None, None, self._process.effect)
        self._at = self.root

    def after(self, node: Node, event: Event) -> Node:
        """What the event leads to."""
        child = node.children.get(event)
        if child is None:
            if self._at is not node:
                self._process = self._begin()
                for past in node.events():
                    self._process.feed(past)
            child = self._grown(node, event, self._process.feed(event))
            self._at = child
        return child

    def _begin(self) -> Process:
        self.runs += 1
        return Process(self._make, self._server(), self._programs)

    def _grown(self, parent: Node | None, event: Event | None, effect: Effect) -> Node:
        node = Node(len(self.nodes), parent, event, effect, effect.requests)
        self.nodes.append(node)
        if parent is not None and event is not None:
            node.requests = parent.requests + effect.requests
            node.wakes = parent.wakes + isinstance(event, Wake)
            parent.children[event] = node
        return node
