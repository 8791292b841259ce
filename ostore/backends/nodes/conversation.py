"""One conversation with a node: many operations at once on one connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ostore.backends.nodes.operations import Operation, Status, error_of
from ostore.backends.nodes.records import (
    ANSWERED,
    LEAST_ANSWERED,
    Credit,
    Cutter,
    sealed,
)
from ostore.erasure.geometry import Buffer
from ostore.model.errors import NodeUnreachable
from ostore.streaming.client import ClientConnection
from ostore.streaming.clock import Clock

LOOK = 0.5
"""Seconds between two looks at what is late."""


class Cut(NodeUnreachable):
    """The conversation ended before the answer came; nobody knows what was done."""


class Elsewhere(NodeUnreachable):
    """Not to be had over a conversation; nothing was done."""


@attrs.define(eq=False)
class _Asked:
    """An operation under way; `waiter` is None once nobody waits for its answer."""

    waiter: Deferred[memoryview] | None
    cost: int
    room: int
    sent: float
    patience: float


class Conversation:
    """Asks operations and hands out their answers; made by Talk, ends with `over`.

    Keeps within the node's credit: `fits` says whether one more goes. An answer beyond
    its room, or to what was never asked, ends it all; an operation that fails or is
    late ends alone, unless the node has been silent ever since it was asked.
    """

    def __init__(
        self,
        connection: ClientConnection,
        key: bytes,
        credit: Credit,
        clock: Clock,
        told: Callable[[float], None],
        over: Callable[[bool], None],
    ) -> None:
        """`told` gets the node's clock; `over` is called once, with whether it is silent."""
        self.operations = 0
        """Asked so far."""
        self.answered = 0
        self._connection = connection
        self._key = key
        self._credit = credit
        self._clock = clock
        self._told = told
        self._over: Callable[[bool], None] | None = over
        self._cutter = Cutter(LEAST_ANSWERED)
        self._asked: dict[int, _Asked] = {}
        self._lent = 0
        self._heard = clock.monotonic()
        self._look: IDelayedCall | None = None
        self._leaving = False

    def begin(self) -> None:
        """Take the connection over; ends at once when that is lost already."""
        self._connection.switch(self._took, self._lost)

    @property
    def open(self) -> bool:
        """Whether further operations may be asked."""
        return self._over is not None and not self._leaving

    def fits(self, cost: int) -> bool:
        """Whether the node's credit has room for so many bytes there and back."""
        return (
            len(self._asked) < self._credit.operations
            and self._lent + cost <= self._credit.bytes
        )

    def ask(
        self,
        operation: Operation,
        parts: Sequence[Buffer],
        *,
        size: int,
        room: int,
        patience: float,
    ) -> Deferred[memoryview]:
        """The result. `size` is that of the parts, `room` what the result may have.

        Raises what the node answers, Elsewhere, Cut, and NodeUnreachable when no answer
        comes within `patience` seconds.
        """
        self.operations += 1
        number = self.operations
        now = self._clock.monotonic()
        waiter: Deferred[memoryview] = Deferred(lambda _: self._forget(number))
        asked = _Asked(waiter, size + room, room, now, patience)
        self._asked[number] = asked
        self._lent += asked.cost
        self._connection.write(*sealed(self._key, number, operation, parts))
        if self._look is None:
            self._look = self._clock.call_later(LOOK, self._late)
        return waiter

    def leave(self) -> None:
        """Ask nothing more, and end with the last answer."""
        self._leaving = True
        if not self._asked:
            self.end()

    def end(self) -> None:
        """End now, whatever is under way."""
        self._end(Cut("the conversation was ended"))

    def _took(self, data: bytes) -> None:
        """Bytes came. Raises ValueError."""
        self._heard = self._clock.monotonic()
        for record in self._cutter.feed(data):
            self._answer(record)

    def _answer(self, record: bytes) -> None:
        number, status, now = ANSWERED.unpack_from(record)
        if not number and status == Status.LEAVING:
            self.leave()
            return
        asked = self._asked.get(number)
        result = memoryview(record)[ANSWERED.size :]
        if asked is None or (status == Status.DONE and len(result) > asked.room):
            raise ValueError("an answer that was not asked for")
        del self._asked[number]
        self.answered += 1
        self._lent -= asked.cost
        self._told(now)
        waiter, asked.waiter = asked.waiter, None
        if waiter is None:
            pass
        elif status == Status.DONE:
            waiter.callback(result)
        elif status == Status.ELSEWHERE:
            waiter.errback(Elsewhere("the node does not do this in a conversation"))
        else:
            waiter.errback(error_of(status, result))
        if self._leaving and not self._asked:
            self.end()

    def _late(self) -> None:
        """Give up what waited too long; all of it when the node is silent."""
        self._look = None
        now = self._clock.monotonic()
        for asked in list(self._asked.values()):
            if now - asked.sent < asked.patience:
                continue
            late = NodeUnreachable("the node did not answer in time")
            if self._heard <= asked.sent:
                self._end(late, silent=True)
                return
            waiter, asked.waiter = asked.waiter, None
            if waiter is not None:
                waiter.errback(late)
        if self._asked and self._look is None:
            self._look = self._clock.call_later(LOOK, self._late)

    def _forget(self, number: int) -> None:
        """Whoever asked waits no longer; the answer will be dropped."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.waiter = None

    def _lost(self) -> None:
        self._end(Cut("the conversation was cut"))

    def _end(self, error: NodeUnreachable, *, silent: bool = False) -> None:
        over, self._over = self._over, None
        if over is None:
            return
        if self._look is not None:
            self._look.cancel()
            self._look = None
        left, self._asked = list(self._asked.values()), {}
        over(silent)
        for asked in left:
            waiter, asked.waiter = asked.waiter, None
            if waiter is not None:
                waiter.errback(type(error)(str(error)))
