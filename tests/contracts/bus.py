"""What every IMessageBus must do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from ostore.interfaces import IMessageBus
from ostore.model.errors import BusUnavailable
from ostore.streaming.tasks import start

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

Received = list[tuple[bytes, str]]


class BusContract(TestCase):
    """Two members, `one` and `two`, and what they may rely on.

    A subclass gives them by `member` and lets messages arrive by `settle`.
    """

    one: IMessageBus
    two: IMessageBus

    async def member(self) -> IMessageBus:
        """A new member of the one bus of this test, not yet started."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Wait until whatever is under way has arrived."""
        raise NotImplementedError

    async def began(self) -> None:
        """Start both members; they stop with the test."""
        self.one, self.two = await self.member(), await self.member()
        for member in (self.one, self.two):
            await member.start()
            self.addCleanup(member.stop)
        await self.settle()

    def follow(self, member: IMessageBus, topic: str) -> Received:
        """What `member` gets of a topic, as it comes."""
        received: Received = []
        member.subscribe(
            topic, lambda body, reply_to: received.append((body, reply_to))
        )
        return received

    async def test_interface(self) -> None:
        """It is an IMessageBus, and says whether it is up."""
        await self.began()
        verifyObject(IMessageBus, self.one)
        self.assertTrue(self.one.up)
        self.assertIsNone(self.one.trouble)
        self.assertTrue(self.one.address)

    async def test_everyone_hears(self) -> None:
        """A published message reaches every subscriber, its own member included."""
        await self.began()
        first, second = self.follow(self.one, "a"), self.follow(self.two, "a")
        other = self.follow(self.two, "b")
        await self.settle()
        await self.one.publish("a", b"\x00\xff 1")
        await self.two.publish("a", b"2", 60.0)
        await self.settle()
        for heard in (first, second):
            self.assertEqual(sorted(body for body, _ in heard), [b"\x00\xff 1", b"2"])
        self.assertEqual(other, [])

    async def test_order(self) -> None:
        """What one member publishes arrives in its order."""
        await self.began()
        received = self.follow(self.two, "a")
        await self.settle()
        bodies = [str(number).encode() for number in range(50)]
        for body in bodies:
            await self.one.publish("a", body)
        await self.settle()
        self.assertEqual([body for body, _ in received], bodies)

    async def test_answers(self) -> None:
        """What is sent to a question's reply_to reaches only the one who asked."""
        await self.began()
        answers: dict[str, list[bytes]] = {"one": [], "two": []}
        self.one.listen(answers["one"].append)
        self.two.listen(answers["two"].append)
        first, second = self.follow(self.one, "ask"), self.follow(self.two, "ask")
        await self.settle()
        await self.one.publish("ask", b"one asks")
        await self.two.publish("ask", b"two asks", 60.0)
        await self.settle()
        self.assertEqual((len(first), len(second)), (2, 2))
        for member, questions in ((self.one, first), (self.two, second)):
            for question, reply_to in questions:
                await member.send(reply_to, question, 60.0)
        await self.settle()
        self.assertEqual(answers, {"one": [b"one asks"] * 2, "two": [b"two asks"] * 2})

    async def test_subscribed_at_once(self) -> None:
        """A subscription holds for what is published right after it, in any order."""
        await self.began()
        heard: list[bytes] = []
        await self.one.publish("a", b"before")
        self.one.subscribe("b", lambda body, _: heard.append(body))
        self.one.subscribe("a", lambda body, _: heard.append(body))
        works = [start(self.one.publish("b", b"%d" % n)) for n in range(3)]
        await self.settle()
        for work in works:
            await work
        await self.settle()
        self.assertEqual(heard[-3:], [b"0", b"1", b"2"])

    async def test_coming_up(self) -> None:
        """Who comes up is told, with the time for which it was away."""
        fresh = await self.member()
        away: list[float] = []
        fresh.on_up(away.append)
        self.assertIn("joined", fresh.trouble or "")
        await self.began()
        await self.settle()
        self.assertEqual(away, [])
        for count in (1, 2):
            await fresh.start()
            self.addCleanup(fresh.stop)
            await self.settle()
            self.assertIsNone(fresh.trouble)
            self.assertEqual(len(away), count)
            await fresh.stop()
        self.assertGreaterEqual(min(away), 0.0)

    async def test_nobody_there(self) -> None:
        """A message to an address that is gone, or to no subscriber, is dropped."""
        await self.began()
        answers: list[bytes] = []
        self.one.listen(answers.append)
        await self.two.send("nobody", b"x")
        await self.two.publish("nothing", b"x")
        await self.one.stop()
        await self.two.send(self.one.address, b"x")
        await self.settle()
        self.assertEqual(answers, [])

    async def test_never_re_entrant(self) -> None:
        """No handler runs before the call that caused it has returned."""
        await self.began()
        inside = 0
        deepest: list[int] = []
        sent: list[Deferred[None]] = []

        def publish_again(body: bytes, _: str) -> None:
            nonlocal inside
            inside += 1
            deepest.append(inside)
            if len(body) > 1:
                sent.append(start(self.one.publish("a", body[1:])))
            inside -= 1

        self.one.subscribe("a", publish_again)
        await self.settle()
        await self.one.publish("a", b"1234")
        for _ in range(4):
            await self.settle()
        self.assertEqual(deepest, [1, 1, 1, 1])
        for each in sent:
            await each

    async def test_failing_handler(self) -> None:
        """What a handler raises is logged, and the others still get theirs."""
        await self.began()

        def fail(body: bytes, reply_to: str) -> None:
            raise ZeroDivisionError

        self.two.subscribe("a", fail)
        later, other = self.follow(self.two, "a"), self.follow(self.one, "a")
        await self.settle()
        await self.one.publish("a", b"x")
        await self.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((len(later), len(other)), (1, 1))

    async def test_bodies(self) -> None:
        """A body is bytes, 1 to 64 KiB, also when it is or looks like text."""
        await self.began()
        received = self.follow(self.two, "a")
        await self.settle()
        wrong: list[tuple[Any, type[Exception]]] = [
            ("text", TypeError),
            (bytearray(b"x"), TypeError),
            (b"", ValueError),
            (b"x" * 65_537, ValueError),
        ]
        for body, error in wrong:
            with self.assertRaises(error):
                await self.one.publish("a", body)
            with self.assertRaises(error):
                await self.one.send(self.two.address, body)
        fit = [
            b"x" * 65_536,
            b"\x00",
            "caf\u00e9 \u20ac".encode(),
            b"ascii" + b"\xff" * 60_000,
        ]
        for body in fit:
            await self.one.publish("a", body)
        await self.settle()
        self.assertEqual([body for body, _ in received], fit)

    async def test_before_and_after(self) -> None:
        """Before start and after stop nothing goes out."""
        await self.began()
        fresh = await self.member()
        await self.two.stop()
        for member in (fresh, self.two):
            self.assertFalse(member.up)
            with self.assertRaises(BusUnavailable):
                await member.publish("a", b"x")
            with self.assertRaises(BusUnavailable):
                await member.send(self.one.address, b"x")

    async def test_silence_after_stop(self) -> None:
        """Nothing is delivered after stop, not even what was under way."""
        await self.began()
        received = self.follow(self.two, "a")
        await self.settle()
        await self.one.publish("a", b"under way")
        await self.two.stop()
        await self.one.publish("a", b"late")
        await self.settle()
        self.assertEqual(received, [])
        await self.two.stop()
