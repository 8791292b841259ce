"""The bus over a real RabbitMQ, which is killed, blocked, cut off and poisoned."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ostore.backends.bus.amqp import brokers, delegate, frames
from ostore.backends.bus.amqp.bus import AMQPBus
from ostore.backends.bus.amqp.client import Client
from ostore.backends.bus.amqp.codec import encode_table
from ostore.backends.bus.amqp.link import _Making
from ostore.interfaces import IMessageBus
from ostore.model.errors import BusUnavailable
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import start
from tests.contracts import bus
from tests.live.servers import broker, vhost
from tests.support.authority import Authority
from tests.support.proxy import Proxy
from tests.support.rabbitmq import STRANGE

reactor = cast("Any", installed)
CLOCK = Clock(reactor, reactor.seconds, time.time)
TOPICS = ("a", "b", "ask", "nothing", "settle")
PATIENCE = 30.0
TTL = 5.0
"""Seconds that a question or an answer has, however busy the machine is."""
NODES = 6


async def until(true: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait for it."""
    deadline = CLOCK.monotonic() + patience
    while not true():
        if CLOCK.monotonic() > deadline:
            raise AssertionError("it did not come true")
        await CLOCK.sleep(0.01)


async def control(*words: str) -> list[str]:
    """What rabbitmqctl says."""
    return await deferToThread(broker().control, *words)


def bus_at(*urls: str, **options: Any) -> AMQPBus:
    """A bus on the real reactor, not yet started."""
    given = urls or (broker().url(),)
    return AMQPBus(CLOCK, reactor, os.urandom, given, **options)


def bound(member: AMQPBus) -> bool:
    """Whether it is up and has all that it follows."""
    session = member._session
    return member.up and session is not None and not session.binding


class SettlingBus(AMQPBus):
    """A bus that can tell when what went before has arrived.

    Marks travel the same ways in the same order: a publisher's to the one queue of
    each follower, and an answerer's back.
    """

    def __init__(self) -> None:
        super().__init__(CLOCK, reactor, os.urandom, [broker().url()], topics=TOPICS)
        self.back = 0
        super().subscribe("settle", self._mark)
        super().listen(self._count)

    def _mark(self, body: bytes, reply_to: str) -> None:
        if self.up:
            _ = start(self.send(reply_to, body))

    def _count(self, body: bytes) -> None:
        self.back += body == b"\0settle"

    def listen(self, handler: Callable[[bytes], None]) -> None:
        """Without the marks."""

        def pass_on(body: bytes) -> None:
            if body != b"\0settle":
                handler(body)

        super().listen(pass_on)

    async def settle(self, others: int) -> None:
        """Wait until everybody has seen our mark."""
        self.back = 0
        await self.publish("settle", b"\0settle")
        await until(lambda: self.back == others)

    @property
    def ready(self) -> bool:
        """Up, and every subscription bound."""
        return bound(self)


class LiveBusContract(bus.BusContract, TestCase):
    """AMQPBus keeps the contract over RabbitMQ."""

    def setUp(self) -> None:
        """The broker, and nobody there."""
        broker()
        self.members: list[SettlingBus] = []

    async def member(self) -> IMessageBus:
        """A new member."""
        made = SettlingBus()
        self.members.append(made)
        return made

    async def settle(self) -> None:
        """Send marks both ways between all that have joined."""
        joined = [each for each in self.members if each._joined]
        await until(lambda: all(each.ready for each in joined))
        for each in joined:
            await each.settle(len(joined))


class LiveCase(TestCase):
    """Buses that stop with the test."""

    timeout = 120

    def setUp(self) -> None:
        """The broker is there."""
        broker()

    async def joined(self, *urls: str, **options: Any) -> AMQPBus:
        """A bus that has started; not yet up, maybe."""
        made = bus_at(*urls, **options)
        self.addCleanup(made.stop)
        await made.start()
        return made

    async def cluster(
        self, *urls: str, **options: Any
    ) -> tuple[AMQPBus, list[AMQPBus]]:
        """One who asks, and six who answer."""
        asker = await self.joined(*urls, **options)
        nodes = [await self.joined(*urls, **options) for _ in range(NODES)]
        for node in nodes:
            node.subscribe("dataServers", self.answering(node))
        await until(lambda: all(each.up for each in (asker, *nodes)))
        await until(lambda: all(bound(node) for node in nodes))
        return asker, nodes

    def answering(self, node: AMQPBus) -> Callable[[bytes, str], None]:
        """A handler that answers what it is asked."""

        def answer(body: bytes, reply_to: str) -> None:
            if node.up:
                _ = start(node.send(reply_to, body, TTL))

        return answer


class Asking:
    """Locates without an engine: a question is over when all six have answered."""

    def __init__(self, asker: AMQPBus) -> None:
        self._asker = asker
        self._open: dict[bytes, tuple[list[int], Deferred[None]]] = {}
        self.failed = 0
        asker.listen(self._answered)

    async def ask(self) -> None:
        """Ask once, to the last answer. Raises BusUnavailable, TimedOut."""
        number = os.urandom(16)
        count = [NODES]
        over: Deferred[None] = Deferred()
        self._open[number] = count, over
        try:
            await self._asker.publish("dataServers", number + b"x" * 120, TTL)
            await CLOCK.within(TTL, over)
        finally:
            del self._open[number]

    def _answered(self, body: bytes) -> None:
        asked = self._open.get(body[:16])
        if asked is not None:
            asked[0][0] -= 1
            if not asked[0][0]:
                asked[1].callback(None)

    async def works(self) -> bool:
        """Whether a question is answered by all."""
        try:
            await self.ask()
        except (BusUnavailable, TimedOut):
            self.failed += 1
            return False
        return True

    async def until_works(self) -> None:
        """Ask until it works."""
        began = CLOCK.monotonic()
        while not await self.works():
            if CLOCK.monotonic() > began + PATIENCE:
                raise AssertionError("it never works again")
            await CLOCK.sleep(0.02)


class RestartTests(LiveCase):
    """The broker goes and comes."""

    async def again(self, down: Callable[[], object], up: Callable[[], object]) -> None:
        """Under load: noticed, and working again soon after it is back."""
        asker, nodes = await self.cluster()
        away: list[float] = []
        asker.on_up(away.append)
        asking = Asking(asker)
        await asking.until_works()
        over = False

        async def load() -> None:
            while not over:
                await asking.works()
                await CLOCK.sleep(0.01)

        loads = [start(load()) for _ in range(4)]
        await deferToThread(down)
        await until(lambda: not any(each.up for each in (asker, *nodes)))
        for each in (asker, *nodes):
            self.assertIn("127.0.0.1", each.trouble or "")
        await deferToThread(up)
        await asking.until_works()
        over = True
        for work in loads:
            await work
        self.assertGreater(asking.failed, 0)
        self.assertEqual(len(away), 1)
        self.assertGreater(away[0], 0.5)

    async def test_stopped(self) -> None:
        """An orderly stop of the broker."""
        server = broker()
        await self.again(
            lambda: server.control("stop_app"),
            lambda: server.control("start_app"),
        )

    async def test_killed(self) -> None:
        """Kill -9."""
        await self.again(broker().kill, broker().start)

    async def test_away_at_start(self) -> None:
        """A service that starts first waits, and is there as soon as the broker is."""
        server = broker()
        await deferToThread(server.kill)
        waiting = await self.joined()
        await until(lambda: "refused" in (waiting.trouble or ""))
        await deferToThread(server.start)
        await until(lambda: waiting.up)

    async def test_black_hole(self) -> None:
        """Packets that vanish: noticed after two heartbeats, over when they pass."""
        proxy = Proxy(reactor, broker().port)
        self.addCleanup(proxy.close)
        through = await self.joined(broker().url(port=proxy.port), heartbeat=1)
        heard: list[bytes] = []
        through.subscribe("apiServers", lambda body, _: heard.append(body))
        await until(lambda: through.up)
        proxy.swallow()
        await through.publish("apiServers", b"into the void")
        await until(lambda: not through.up)
        self.assertIn("silent", through.trouble or "")
        proxy.cut()
        await until(lambda: through.up)
        await through.publish("apiServers", b"heard")
        await until(lambda: heard == [b"heard"])
        proxy.cut()
        await until(lambda: not through.up)
        await until(lambda: through.up)

    async def test_second_broker(self) -> None:
        """With the first URL dead the second is taken."""
        server = broker()
        either = await self.joined(server.url(port=1), server.url())
        await until(lambda: either.up)


class RefusalTests(LiveCase):
    """What a real broker says to wrong settings."""

    async def refusal(self, url: str, **options: Any) -> str:
        """The one sentence."""
        told: list[str] = []
        wrong = await self.joined(url, refused=told.append, **options)
        await until(lambda: told)
        await until(lambda: wrong.trouble == told[0])
        self.assertNotIn("wr0ng", told[0])
        self.assertNotIn(broker().password, told[0])
        self.assertFalse(wrong.up)
        await CLOCK.sleep(1.0)
        self.assertEqual(len(told), 1)
        return told[0]

    async def test_password(self) -> None:
        """A wrong password is told apart from a lost connection."""
        said = await self.refusal(broker().url(password="wr0ng"))
        self.assertIn("403 ACCESS_REFUSED", said)

    async def test_vhost(self) -> None:
        """A vhost that does not exist, and one that is not ours."""
        self.assertIn("530", await self.refusal(broker().url("nowhere")))
        await control("add_vhost", "theirs")
        self.assertIn("530", await self.refusal(broker().url("theirs")))

    async def test_rights(self) -> None:
        """A user who may not declare the exchanges."""
        await control("add_vhost", "narrow")
        await control("set_permissions", "-p", "narrow", "ostore", "^$", ".*", ".*")
        self.assertIn("403", await self.refusal(broker().url("narrow")))

    async def test_least_rights(self) -> None:
        """These rights are enough."""
        await control("add_vhost", "least")
        ours = r"^(amq\.gen-.*|apiServers|dataServers)$"
        write = r"^(amq\.gen-.*|amq\.default|apiServers|dataServers)$"
        await control("set_permissions", "-p", "least", "ostore", ours, write, ours)
        asker, _ = await self.cluster(broker().url("least"))
        await Asking(asker).until_works()

    async def test_tls(self) -> None:
        """Amqps works when the CA vouches for the broker under its name."""
        server = broker()
        for host in ("localhost", "127.0.0.1"):
            asker, _ = await self.cluster(
                server.tls_url(host), ca=Authority("another").pem + server.authority.pem
            )
            await Asking(asker).until_works()

    async def test_wrong_certificates(self) -> None:
        """An unknown CA, the system's CAs, another host: refused, with the reason."""
        server = broker()
        for ca in (Authority("broker's CA").pem, None):
            said = await self.refusal(server.tls_url(), ca=ca)
            self.assertIn("not vouched for", said)
        said = await self.refusal(server.tls_url(STRANGE), ca=server.authority.pem)
        self.assertIn("another host", said)

    async def fails(self, member: AMQPBus) -> None:
        """Wait until it says why it is not up."""
        await until(lambda: "amqp" in str(member.trouble))

    async def test_no_tls_there(self) -> None:
        """TLS with a port that has none, and none with one that has it."""
        server = broker()
        wrong = server.tls_url().replace(str(server.tls_port), str(server.port))
        for url in (wrong, server.url(port=server.tls_port)):
            one = await self.joined(url, ca=server.authority.pem)
            await self.fails(one)
            self.assertFalse(one.up)


class FlowTests(LiveCase):
    """A broker that is short of memory."""

    async def test_blocked(self) -> None:
        """It blocks publishers: we are not up, say why, and come back."""
        heard: list[bytes] = []
        one = await self.joined()
        one.subscribe("apiServers", lambda body, _: heard.append(body))
        await until(lambda: one.up)
        await control("set_vm_memory_high_watermark", "0.00001")
        try:
            while one.up:
                await one.publish("apiServers", b"x")
                await CLOCK.sleep(0.05)
            self.assertIn("takes no messages", one.trouble or "")
            with self.assertRaises(BusUnavailable):
                await one.publish("apiServers", b"x")
            leaving = bus_at()
            await leaving.start()
            await until(lambda: leaving.up)
            await leaving.publish("apiServers", b"x")
            await until(lambda: not leaving.up)
            await leaving.stop()
        finally:
            await control("set_vm_memory_high_watermark", "absolute", "512MB")
        await until(lambda: one.up)
        await one.publish("apiServers", b"again")
        await until(lambda: b"again" in heard)

    async def test_many_frames(self) -> None:
        """Bodies of any bytes arrive whole in many frames."""
        self.patch(delegate, "FRAME_MAX", 4096)
        one = await self.joined()
        heard: list[bytes] = []
        one.subscribe("apiServers", lambda body, _: heard.append(body))
        await until(lambda: bound(one))
        bodies = [
            b"a" * 4088 + b"\xff" * 4088 + b"a" * 9,
            b"\xff" * 5000 + b"a" * 5000,
            "é€".encode() * 13_000,
            bytes(range(256)) * 256,
        ]
        for body in bodies:
            await one.publish("apiServers", body)
        await until(lambda: len(heard) == len(bodies))
        self.assertEqual(heard, bodies)
        self.assertEqual(one.dropped, 0)


class LoadTests(LiveCase):
    """Locates, and what strangers send."""

    async def counts(self, vhost: str) -> dict[str, int]:
        """Queues, channels and connections of a vhost: others use the broker too."""
        found = {"queues": len(await control("list_queues", "-p", vhost, "name"))}
        for what in ("channels", "connections"):
            found[what] = (await control(f"list_{what}", "vhost")).count(vhost)
        return found

    async def test_locates(self) -> None:
        """2,000 locates are each asked once, and nothing is left behind."""
        own = await deferToThread(vhost)
        asker, nodes = await self.cluster(broker().url(own))
        asking = Asking(asker)
        await asking.until_works()
        before = await self.counts(own)
        self.assertEqual(before["connections"], 1 + NODES)
        asked: list[bytes] = []
        nodes[0].subscribe("dataServers", lambda body, _: asked.append(body))
        for _ in range(125):
            for work in [start(asking.ask()) for _ in range(16)]:
                await work
        self.assertEqual(len(asked), 2_000)
        self.assertEqual(await self.counts(own), before)
        for each in (asker, *nodes):
            await each.stop()
        none = {"queues": 0, "channels": 0, "connections": 0}
        after = await self.counts(own)
        deadline = CLOCK.monotonic() + PATIENCE
        while after != none and CLOCK.monotonic() < deadline:
            after = await self.counts(own)  # the broker notices a little later
        self.assertEqual(after, none)

    async def test_poison(self) -> None:
        """Empty, huge, with odd properties, from strangers: none hurts anybody."""
        asker, nodes = await self.cluster()
        heard: list[bytes] = []
        asker.subscribe("apiServers", lambda body, _: heard.append(body))
        await until(lambda: bound(asker))
        session = asker._session
        assert session is not None
        sessions = [each._session for each in (asker, *nodes)]
        stranger = Client(
            brokers.parse(broker().url()), CLOCK, 10, lambda: None, lambda: None
        )
        way = brokers.endpoint(reactor, stranger.broker, None)
        await way.connect(_Making(stranger))
        await stranger.login()
        await stranger.open_channel(1, lambda *_: None)
        self.addCleanup(stranger.close)
        odd = encode_table(
            {"x-death": [{"n": -1, "t": None}], "f": 1.5, "b": b"\xff", "l": 1 << 60}
        )
        head = b"\x00\x3c\x00\x00"
        for exchange in ("apiServers", "dataServers"):
            to = frames.pack_publish(1, exchange, "")
            for body in (b"", b"x" * 65_537, b"y" * 300_000):
                stranger.send(to + frames.pack_content(1, body, "", None, 4000))
            flags = (1 << 13) | (1 << 9)
            header = head + (6).to_bytes(8, "big") + flags.to_bytes(2, "big")
            stranger.send(
                to
                + frames.pack(frames.HEADER, 1, header + odd + b"\x03\xc3\x28\xff")
                + frames.pack(frames.BODY, 1, b"poison")
            )
        stranger.send(
            frames.pack_publish(1, "", session._queue)
            + frames.pack_content(1, b"by name", "", None, 4000)
        )
        await until(lambda: asker.dropped == 5)
        await until(lambda: all(node.dropped == 4 for node in nodes))
        asking = Asking(asker)
        await asking.until_works()
        self.assertEqual(asking.failed, 0)
        self.assertEqual(heard, [])
        self.assertEqual([each._session for each in (asker, *nodes)], sessions)

    async def test_gone_asker(self) -> None:
        """Answers to one who is gone harm nobody."""
        asker, nodes = await self.cluster()
        addresses: list[str] = []
        nodes[0].subscribe("dataServers", lambda _, to: addresses.append(to))
        await Asking(asker).until_works()
        await until(lambda: addresses)
        await asker.stop()
        for _ in range(3):
            await nodes[0].send(addresses[0], b"too late", 1.0)
        other = await self.joined()
        await until(lambda: other.up)
        await Asking(other).until_works()
        self.assertTrue(nodes[0].up)
