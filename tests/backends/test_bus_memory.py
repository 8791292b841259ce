"""The bus within one process."""

from __future__ import annotations

from twisted.internet.task import Clock as TestClock
from twisted.trial.unittest import TestCase

from ostore.backends.bus.memory import MAX_TURN, MemoryBus, MemoryBusMember
from ostore.interfaces import IMessageBus
from ostore.streaming.clock import Clock
from tests.contracts import bus


def bus_of(timers: TestClock, limit: int = 10_000) -> MemoryBus:
    """A bus upon a clock that only moves when it is told to."""
    return MemoryBus(Clock(timers, timers.seconds, timers.seconds), limit)


class MemoryBusContract(bus.BusContract, TestCase):
    """MemoryBus keeps the contract."""

    def setUp(self) -> None:
        """One bus."""
        self.timers = TestClock()
        self.bus = bus_of(self.timers)

    async def member(self) -> IMessageBus:
        """A new member."""
        return self.bus.member()

    async def settle(self) -> None:
        """One moment."""
        self.timers.advance(0)


class MemoryBusTests(TestCase):
    """What only this bus can show."""

    def setUp(self) -> None:
        """A bus with one member."""
        self.timers = TestClock()
        self.bus = bus_of(self.timers)
        self.member = self.bus.member()
        self.received: list[bytes] = []
        self.member.subscribe("a", lambda body, _: self.received.append(body))
        self.member.listen(self.received.append)

    async def test_ttl(self) -> None:
        """What was not delivered in its time is dropped."""
        await self.member.start()
        await self.member.publish("a", b"short", 1.0)
        await self.member.send(self.member.address, b"short too", 1.0)
        await self.member.publish("a", b"long", 2.0)
        await self.member.publish("a", b"for ever")
        self.timers.advance(1.5)
        self.assertEqual(self.received, [b"long", b"for ever"])

    async def test_one_timer_a_turn(self) -> None:
        """However much is under way, one timer delivers it, and then none is left."""
        await self.member.start()
        for _ in range(10):
            await self.member.publish("a", b"x")
        self.assertEqual(len(self.timers.getDelayedCalls()), 1)
        self.timers.advance(0)
        self.assertEqual(len(self.received), 10)
        self.assertEqual(self.timers.getDelayedCalls(), [])

    async def test_bounded_queue(self) -> None:
        """Above its limit the queue takes nothing more, and counts what it dropped."""
        small = bus_of(self.timers, 3)
        member = small.member()
        member.subscribe("a", lambda body, _: self.received.append(body))
        await member.start()
        for body in (b"1", b"2", b"3", b"4", b"5"):
            await member.publish("a", body)
        self.assertEqual(small.dropped, 2)
        self.timers.advance(0)
        self.assertEqual(self.received, [b"1", b"2", b"3"])
        await member.publish("a", b"6")
        self.timers.advance(0)
        self.assertEqual(self.received[3:], [b"6"])

    async def test_bounded_turn(self) -> None:
        """A long queue is delivered over several turns, with timers between."""
        await self.member.start()
        seen: list[int] = []
        for _ in range(MAX_TURN + 1):
            await self.member.publish("a", b"x")
        self.timers.callLater(0, lambda: seen.append(len(self.received)))
        self.timers.advance(0)
        self.assertEqual(seen, [MAX_TURN])
        self.assertEqual(len(self.received), MAX_TURN + 1)

    async def test_stop_within_a_turn(self) -> None:
        """A handler that stops its member, or another, ends their deliveries at once."""
        other = self.bus.member()
        got: list[bytes] = []

        def stop_both(body: bytes, _: str) -> None:
            for member in (other, self.member):
                work = member.stop()
                self.assertRaises(StopIteration, work.send, None)

        self.member.subscribe("stop", stop_both)
        other.subscribe("a", lambda body, _: got.append(body))
        await self.member.start()
        await other.start()
        await other.publish("stop", b"!")
        await other.publish("a", b"x")
        self.timers.advance(0)
        self.assertEqual((self.received, got), ([], []))
        self.assertEqual(self.timers.getDelayedCalls(), [])

    async def test_no_timer_after_the_last(self) -> None:
        """When the last member stops, nothing keeps the reactor busy."""
        await self.member.start()
        await self.member.publish("a", b"x")
        await self.member.stop()
        self.assertEqual(self.timers.getDelayedCalls(), [])

    async def test_away(self) -> None:
        """A member that comes back learns how long it was away."""
        away: list[float] = []
        self.member.on_up(away.append)
        for _ in range(2):
            await self.member.start()
            await self.member.start()
            self.timers.advance(5)
            await self.member.stop()
            self.timers.advance(7)
        self.assertEqual(away, [0.0, 7.0])

    async def test_start_again(self) -> None:
        """A member that starts again hears again, and not what it missed."""
        await self.member.start()
        await self.member.stop()
        talker: MemoryBusMember = self.bus.member()
        await talker.start()
        await talker.publish("a", b"missed")
        await self.member.start()
        await talker.publish("a", b"heard")
        self.timers.advance(0)
        self.assertEqual(self.received, [b"heard"])
