"""Whether what clients saw of one name can be explained by an order of single steps.

The search is that of Wing and Gong (1993) with the memory of Lowe (2017): it looks for
an order of all operations that keeps to real time and in which each answer is the one
that `State` gives. Operations that change nothing are taken as soon as they fit, which
loses no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import attrs

from ostore.model.conditions import WriteCondition
from ostore.model.errors import NotFound, OstoreError
from ostore.model.versions import NewVersion, Version

FREE = WriteCondition()
FOREVER = float("inf")


@attrs.frozen
class Seen:
    """What a client sees of a version; None where it is not told."""

    number: int
    hash: str = ""
    deleted: bool = False
    created: int | None = None
    put_id: str | None = None

    @classmethod
    def of(cls, version: Version) -> Seen:
        """All that counts of a version."""
        return cls(
            version.number,
            version.hash,
            version.deleted,
            version.created,
            version.put_id,
        )

    def fits(self, other: Seen) -> bool:
        """Whether both can be the same version."""
        return (
            (self.number, self.hash, self.deleted)
            == (other.number, other.hash, other.deleted)
            and (None in (self.created, other.created) or self.created == other.created)
            and (None in (self.put_id, other.put_id) or self.put_id == other.put_id)
        )

    def joined(self, other: Seen) -> Seen:
        """What both say together."""
        return attrs.evolve(
            self,
            created=other.created if self.created is None else self.created,
            put_id=other.put_id if self.put_id is None else self.put_id,
        )


@attrs.frozen
class Add:
    """add_version: an object or a marker."""

    put_id: str
    hash: str = ""
    deleted: bool = False
    condition: WriteCondition = FREE

    @classmethod
    def of(cls, new: NewVersion) -> Add:
        """What counts of a version that wants to be written."""
        return cls(new.put_id, new.hash, new.deleted, new.condition)


@attrs.frozen
class Latest:
    """latest: the newest version."""


@attrs.frozen
class Get:
    """version: the one with that number."""

    number: int


@attrs.frozen
class ByPutId:
    """by_put_id: the one that this put_id made."""

    put_id: str


@attrs.frozen
class Versions:
    """versions_of: a page of one name's versions, oldest first."""

    after: int = 0
    limit: int = 1 << 62


@attrs.frozen
class Purge:
    """purge, and each step of a retention run: one version goes for good."""

    number: int


Unknown = Literal["unknown"]
UNKNOWN: Unknown = "unknown"
"""The answer of a call that may have taken place, or may yet, or never."""

Call = Add | Latest | Get | ByPutId | Versions | Purge
Answer = Seen | tuple[Seen, ...] | bool | None | type[OstoreError] | Unknown
"""What came back: a version, a page, a verdict, the kind of a refusal, or nothing."""


@attrs.frozen
class Operation:
    """One call: what was asked when, and what was answered when.

    Times come from one clock for all operations. One that is answered UNKNOWN has no
    end.
    """

    call: Call
    answer: Answer
    invoked: float
    returned: float = FOREVER

    def __str__(self) -> str:
        until = "" if self.returned == FOREVER else f"{self.returned:g}"
        return f"[{self.invoked:g}..{until}] {self.call} -> {self.answer}"


@attrs.frozen
class State:
    """One name as it ought to be: plain values, one step at a time."""

    high: int = 0
    created: int = 0
    standing: tuple[Seen, ...] = ()

    def answer(self, call: Call) -> Answer:
        """What `call` gives now, where that is no new version."""
        if isinstance(call, Latest):
            return self.standing[-1] if self.standing else None
        if isinstance(call, Get):
            return self._first(
                each for each in self.standing if each.number == call.number
            )
        if isinstance(call, ByPutId):
            return self._made_by(call.put_id)
        if isinstance(call, Versions):
            behind = [each for each in self.standing if each.number > call.after]
            return tuple(behind[: call.limit])
        if isinstance(call, Purge):
            return any(each.number == call.number for each in self.standing)
        return self.instead(call)

    def without(self, number: int) -> State:
        """One version less."""
        left = (each for each in self.standing if each.number != number)
        return attrs.evolve(self, standing=tuple(left))

    def next(self, add: Add, shown: Seen | None) -> Seen | None:
        """The version that `add` would make.

        `shown` is all that anybody saw of the one with its number; None when they
        cannot be the same.
        """
        created = None if shown is None else shown.created
        if created is None:
            created = self.created + 1
        made = Seen(self.high + 1, add.hash, add.deleted, created, add.put_id)
        possible = created > self.created and (shown is None or made.fits(shown))
        return made if possible else None

    def grown(self, made: Seen) -> State:
        """One version more."""
        return State(made.number, made.created or 0, (*self.standing, made))

    def instead(self, add: Add) -> Seen | type[OstoreError] | None:
        """What `add` gives instead of a new version: the one it made before, an error."""
        before = self._made_by(add.put_id)
        if before is not None:
            return before
        newest = self.standing[-1] if self.standing else None
        etag = None if newest is None or newest.deleted else newest.hash
        if add.deleted and etag is None:
            return NotFound
        try:
            add.condition.check(etag)
        except OstoreError as error:
            return type(error)
        return None

    def _made_by(self, put_id: str) -> Seen | None:
        return self._first(each for each in self.standing if each.put_id == put_id)

    @staticmethod
    def _first(found: Iterable[Seen]) -> Seen | None:
        return next(iter(found), None)


def explain(history: Iterable[Operation]) -> str | None:
    """None when some order of single steps explains it, else how far the best goes."""
    operations = sorted(history, key=lambda each: each.invoked)
    shown: dict[int, Seen] = {}
    for operation in operations:
        for seen in _versions(operation):
            known = shown.get(seen.number)
            if known is not None and not known.fits(seen):
                return f"two versions have one number:\n{known}\n{seen}"
            shown[seen.number] = seen if known is None else known.joined(seen)
    return _Search(operations, shown).run()


def _versions(operation: Operation) -> tuple[Seen, ...]:
    """What an answer shows of versions, with what the caller knew of it."""
    answer = operation.answer
    if isinstance(answer, Seen):
        call = operation.call
        if isinstance(call, Add | ByPutId):
            answer = answer.joined(attrs.evolve(answer, put_id=call.put_id))
        return (answer,)
    return answer if isinstance(answer, tuple) else ()


def _agree(answer: Answer, told: Answer) -> bool:
    """Whether `told` is `answer`, as far as it was told."""
    if isinstance(answer, Seen) and isinstance(told, Seen):
        return answer.fits(told)
    if isinstance(answer, tuple) and isinstance(told, tuple):
        return len(answer) == len(told) and all(map(_agree, answer, told))
    return answer is told


class _Search:
    """One search for an order; `_tried` holds what was done with what state."""

    def __init__(self, operations: Sequence[Operation], shown: dict[int, Seen]) -> None:
        self._operations = operations
        self._shown = shown
        self._must = sum(
            1 << i for i, each in enumerate(operations) if each.answer != UNKNOWN
        )
        self._tried: set[tuple[int, State]] = set()
        self._best = (0, State())

    def run(self) -> str | None:
        """Depth first, without recursion: histories may be long."""
        ways = [self._onward(0, State())]
        while ways:
            step = next(ways[-1], None)
            if step is None:
                ways.pop()
                continue
            done, state = step
            if done & self._must == self._must:
                return None
            if step not in self._tried:
                self._tried.add(step)
                if done.bit_count() > self._best[0].bit_count():
                    self._best = step
                ways.append(self._onward(done, state))
        return self._told() if self._must else None

    def _open(self, done: int) -> list[int]:
        """Operations that may be next: none left is over before they begin."""
        horizon = FOREVER
        found = []
        first = (~done & (done + 1)).bit_length() - 1
        for i in range(first, len(self._operations)):
            if done >> i & 1:
                continue
            operation = self._operations[i]
            if operation.invoked > horizon:
                break
            horizon = min(horizon, operation.returned)
            found.append(i)
        return [i for i in found if self._operations[i].invoked <= horizon]

    def _onward(self, done: int, state: State) -> Iterator[tuple[int, State]]:
        """Every next step, or the one that changes nothing."""
        steps = []
        for i in self._open(done):
            after = self._step(self._operations[i], state)
            if after is state:
                yield done | 1 << i, state
                return
            if after is not None:
                steps.append((done | 1 << i, after))
        yield from steps

    def _step(self, operation: Operation, state: State) -> State | None:
        """The state behind the operation; None when it does not fit or tells nothing."""
        call, told = operation.call, operation.answer
        unknown = told == UNKNOWN
        answer = state.answer(call)
        if isinstance(call, Add) and answer is None:
            made = state.next(call, self._shown.get(state.high + 1))
            if made is None or not (unknown or _agree(made, told)):
                return None
            return state.grown(made)
        if isinstance(call, Purge) and answer is True:
            return state.without(call.number) if unknown or told is True else None
        return state if not unknown and _agree(answer, told) else None

    def _told(self) -> str:
        done, state = self._best
        order = [each for i, each in enumerate(self._operations) if done >> i & 1]
        left = [self._operations[i] for i in self._open(done)]
        return "\n".join(
            [
                "no order of single steps gives these answers; of the best attempt",
                "these were done:",
                *(f"  {each}" for each in order),
                f"the name was then {state}",
                "and none of these fits:",
                *(f"  {each}" for each in left),
            ]
        )
