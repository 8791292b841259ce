"""What an exploration goes through: states of two processes and a server."""

from __future__ import annotations

import attrs

from tests.support.linearizable import Answer, Call, Seen
from tests.support.recorder import Nothing
from tests.support.replaying import Program


class Wrong(AssertionError):
    """A history that no order explains, or a call that nobody answers."""


class TooMany(AssertionError):
    """More steps than were allowed: nothing is proven."""


@attrs.frozen
class Client:
    """A program, in which process it runs, and what name it speaks of.

    `like` names those that do the same.
    """

    process: int
    program: Program
    like: str = ""
    name: str = "n"


@attrs.frozen(cache_hash=True)
class Pending:
    """A request that the server has; `told` is the number of its answer when done.

    Nobody waits for an orphan.
    """

    process: int
    number: int
    orphan: bool = False
    progress: int = 0
    told: int | None = None


@attrs.frozen(cache_hash=True)
class Begun:
    """A call that was made: `before` holds the calls that were over by then, as bits."""

    operation: tuple[int, int]
    before: int


@attrs.frozen(cache_hash=True)
class Last:
    """What the last step was, as far as it decides what may follow.

    An event of `process`; if a call began, the requests that it sent are `sent`. Or
    the last step of the server on the request `served` of that process.
    """

    process: int = -1
    sent: tuple[int, ...] | None = None
    served: int | None = None

    @property
    def event(self) -> int | None:
        """The process that has just seen something."""
        return self.process if self.served is None else None


NOTHING = Last()


@attrs.frozen(cache_hash=True)
class World:
    """One state of everything; `server` and progress are numbers of `numbered.Server`."""

    server: int
    nodes: tuple[int, ...]
    pending: tuple[Pending, ...]
    begun: tuple[Begun, ...]
    over: int
    faults: int
    last: Last
    dead: frozenset[int] = frozenset()


@attrs.frozen
class Mark:
    """Something of the history: a call of a program begins, or ends with an answer."""

    operation: tuple[int, int]
    call: Call | None = None
    answer: Answer | Nothing = None


Ends = tuple[tuple[str, tuple[Seen, ...]], ...]
Step = tuple[str, World, tuple[Mark, ...]]
PathStep = tuple[str, tuple[Mark, ...]]


@attrs.define
class Explored:
    """What an exploration went through."""

    steps: int = 0
    states: int = 0
    histories: int = 0
    runs: int = 0
