"""The bus and the network between simulated processes: late, cut, twice, out of order."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from zope.interface import implementer

from ostore.interfaces import IMessageBus
from ostore.model.errors import BusUnavailable
from tests.simulator.world import Process, World

Handler = Callable[[bytes, str], None]


@attrs.define
class Weather:
    """What befalls messages now: chances of loss and doubling, seconds of delay."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0


class SimBus:
    """The broker: every member hears what it gives, in no certain order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.weather = Weather()
        self.away = False
        self.members: dict[str, SimMember] = {}
        self.cut: set[str] = set()
        """Names of processes that do not reach the broker."""

    def member(self, process: Process) -> SimMember:
        """One more, of that process."""
        return SimMember(self, process)

    def reaches(self, process: Process) -> bool:
        """Whether the process is connected."""
        return not self.away and process.name not in self.cut

    def changed(self) -> None:
        """Tell members whether they are connected still."""
        for member in list(self.members.values()):
            member.look()

    def deliver(
        self, member: SimMember, call: Callable[[], None], ttl: float | None
    ) -> None:
        """Give a message to a member, as the weather allows."""
        world, weather = self.world, self.weather
        for _ in range(2 if world.rng.random() < weather.twice else 1):
            if weather.lost and world.rng.random() < weather.lost:
                continue
            delay = world.delay() + weather.late * world.rng.random()
            if ttl is None or delay <= ttl:
                world.later(delay, member.take, call)


@implementer(IMessageBus)
class SimMember:
    """One process on the bus."""

    def __init__(self, bus: SimBus, process: Process) -> None:
        self.address = f"{process.name}@{bus.world.tick():.0f}"
        self.up = False
        self._bus = bus
        self._process = process
        self._joined = False
        self._left: float | None = None
        self._watchers: list[Callable[[float], None]] = []
        self._handlers: dict[str, list[Handler]] = {}
        self._listeners: list[Callable[[bytes], None]] = []

    @property
    def trouble(self) -> str | None:
        """Why it is not up."""
        return None if self.up else "the broker is away"

    async def start(self) -> None:
        """Join."""
        self._process.check()
        self._joined = True
        self._bus.members[self.address] = self
        self.look()

    async def stop(self) -> None:
        """Leave."""
        self._joined = self.up = False
        self._bus.members.pop(self.address, None)

    def look(self) -> None:
        """See whether the broker is there."""
        bus, now = self._bus, self._bus.world.now
        up = bus.reaches(self._process)
        if up and not self.up:
            away = 0.0 if self._left is None else now - self._left
            for watcher in self._watchers:
                bus.world.later(0, self._process.enter, watcher, away)
        elif self.up and not up:
            self._left = now
        self.up = up

    def on_up(self, handler: Callable[[float], None]) -> None:
        """Call `handler(away)` each time the bus comes up."""
        self._watchers.append(handler)

    def subscribe(self, topic: str, handler: Handler) -> None:
        """Call `handler(body, reply_to)` for each message published to `topic`."""
        self._handlers.setdefault(topic, []).append(handler)

    def listen(self, handler: Callable[[bytes], None]) -> None:
        """Call `handler(body)` for each message sent to this member's address."""
        self._listeners.append(handler)

    async def publish(self, topic: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to every subscriber of `topic`."""
        self._check()
        for member in list(self._bus.members.values()):
            for handler in member._handlers.get(topic, ()):
                self._bus.deliver(member, _call(handler, body, self.address), ttl)

    async def send(self, address: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to the member at `address`; dropped if it is gone."""
        self._check()
        member = self._bus.members.get(address)
        for listener in () if member is None else member._listeners:
            assert member is not None
            self._bus.deliver(member, _told(listener, body), ttl)

    def take(self, call: Callable[[], None]) -> None:
        """A message is here."""
        if self._joined and self.up:
            self._process.enter(call)

    def _check(self) -> None:
        self._process.check()
        if not self.up:
            raise BusUnavailable("the broker is away")


def _call(handler: Handler, body: bytes, reply_to: str) -> Callable[[], None]:
    return lambda: handler(body, reply_to)


def _told(listener: Callable[[bytes], None], body: bytes) -> Callable[[], None]:
    return lambda: listener(body)
