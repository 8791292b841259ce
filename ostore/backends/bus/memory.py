"""A message bus within one process, for standalone and for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.interfaces import IMessageBus
from ostore.model.errors import BusUnavailable
from ostore.streaming.clock import Clock

MAX_BODY = 64 * 1024
NOT_JOINED = "this process has not joined the message bus"
MAX_QUEUE = 10_000
"""Deliveries that may wait; more are dropped and counted."""
MAX_TURN = 1_000
"""Deliveries in one turn of the reactor."""


@attrs.frozen(eq=False)
class _Delivery:
    """One message on its way to one handler."""

    member: MemoryBusMember
    call: Callable[[], None]
    expires: float | None


class MemoryBus:
    """What the members of one process share: the queue and the timer that empties it.

    Made by the service; it rests whenever the queue is empty.
    """

    def __init__(self, clock: Clock, limit: int = MAX_QUEUE) -> None:
        self.dropped = 0
        self.clock = clock
        self._limit = limit
        self._log = Logger()
        self._members: dict[str, MemoryBusMember] = {}
        self._count = 0
        self._queue: deque[_Delivery] = deque()
        self._timer: IDelayedCall | None = None

    def member(self) -> MemoryBusMember:
        """A new member, not yet started."""
        self._count += 1
        return MemoryBusMember(self, f"memory-{self._count}")

    def join(self, member: MemoryBusMember) -> None:
        """Let it be reached; for members."""
        self._members[member.address] = member

    def leave(self, member: MemoryBusMember) -> None:
        """Forget it, and everything on the way to it; for members."""
        self._members.pop(member.address, None)
        self._queue = deque(each for each in self._queue if each.member is not member)
        if self._timer is not None and not self._queue:
            self._timer.cancel()
            self._timer = None

    def members(self) -> list[MemoryBusMember]:
        """Those that have joined."""
        return list(self._members.values())

    def at(self, address: str) -> MemoryBusMember | None:
        """The member at that address, while it is there."""
        return self._members.get(address)

    def deliver(
        self, member: MemoryBusMember, call: Callable[[], None], ttl: float | None
    ) -> None:
        """Run `call` in a later turn unless the member has left or time is over."""
        if len(self._queue) >= self._limit:
            self.dropped += 1
            return
        expires = None if ttl is None else self.clock.monotonic() + ttl
        self._queue.append(_Delivery(member, call, expires))
        if self._timer is None:
            self._timer = self.clock.call_later(0, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self.clock.monotonic()
        for _ in range(min(len(self._queue), MAX_TURN)):
            if not self._queue:
                break
            each = self._queue.popleft()
            if each.expires is not None and now > each.expires:
                continue
            try:
                each.call()
            except Exception:  # noqa: BLE001 - logged; the others still get theirs
                self._log.failure("a handler of the bus failed", Failure())  # type: ignore[no-untyped-call]  # untyped in Twisted
        if self._queue and self._timer is None:
            self._timer = self.clock.call_later(0, self._turn)


@implementer(IMessageBus)
class MemoryBusMember:
    """One participant of a MemoryBus, made by it; lives from start() to stop()."""

    def __init__(self, bus: MemoryBus, address: str) -> None:
        self.address = address
        self.up = False
        self._bus = bus
        self._left: float | None = None
        self._watchers: list[Callable[[float], None]] = []
        self._handlers: dict[str, list[Callable[[bytes, str], None]]] = {}
        self._listeners: list[Callable[[bytes], None]] = []

    @property
    def trouble(self) -> str | None:
        """Why it is not up."""
        return None if self.up else NOT_JOINED

    async def start(self) -> None:
        """Join."""
        if self.up:
            return
        self.up = True
        self._bus.join(self)
        now = self._bus.clock.monotonic()
        away = now - (now if self._left is None else self._left)
        for watcher in self._watchers:
            self._bus.deliver(self, partial(watcher, away), None)

    async def stop(self) -> None:
        """Leave; nothing is delivered afterwards."""
        if self.up:
            self._left = self._bus.clock.monotonic()
        self.up = False
        self._bus.leave(self)

    def on_up(self, handler: Callable[[float], None]) -> None:
        """Call `handler(away)` each time it joins, `away` seconds after it left."""
        self._watchers.append(handler)

    def subscribe(self, topic: str, handler: Callable[[bytes, str], None]) -> None:
        """Call `handler(body, reply_to)` for each message published to `topic`."""
        self._handlers.setdefault(topic, []).append(handler)

    def listen(self, handler: Callable[[bytes], None]) -> None:
        """Call `handler(body)` for each message sent to this member's address."""
        self._listeners.append(handler)

    async def publish(self, topic: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to every subscriber of `topic`, this member included."""
        self._check(body)
        for member in self._bus.members():
            member.take_published(topic, body, self.address, ttl)

    async def send(self, address: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to the member at `address`; dropped if it is gone."""
        self._check(body)
        member = self._bus.at(address)
        if member is not None:
            member.take_sent(body, ttl)

    def take_published(
        self, topic: str, body: bytes, reply_to: str, ttl: float | None
    ) -> None:
        """Queue a message for the handlers of its topic; for other members."""
        for handler in self._handlers.get(topic, ()):
            self._bus.deliver(self, partial(handler, body, reply_to), ttl)

    def take_sent(self, body: bytes, ttl: float | None) -> None:
        """Queue a message for the listeners; for other members."""
        for listener in self._listeners:
            self._bus.deliver(self, partial(listener, body), ttl)

    def _check(self, body: bytes) -> None:
        if type(body) is not bytes:
            raise TypeError("a message body is bytes")
        if not 0 < len(body) <= MAX_BODY:
            raise ValueError(f"a message body has 1 to {MAX_BODY} bytes")
        if not self.up:
            raise BusUnavailable(NOT_JOINED)
