"""The bus over a broker in memory: the contract, and every way to lose it."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import pairwise
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import provider

from ostore.backends.bus.amqp import frames
from ostore.backends.bus.amqp.bus import AMQPBus
from ostore.backends.bus.amqp.outflow import MAX_BACKLOG
from ostore.interfaces import IMessageBus
from ostore.model.errors import BusUnavailable, Malformed
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.contracts import bus
from tests.support.fakebroker import FakeBroker, content, packed
from tests.support.fakenet import FakeNet

T = TypeVar("T")
ENDPOINT = 0.3
"""Seconds that Twisted waits for another address of the host (RFC 8305)."""
URL = "amqp://guest:guest@broker"


def no_chance(count: int) -> bytes:
    """Jitter at its longest, nearly."""
    return b"\xff" * count


def bus_on(net: FakeNet, *urls: str, **options: Any) -> AMQPBus:
    """A bus on that network, not yet started."""
    clock = Clock(net, net.seconds, net.seconds)
    options.setdefault("topics", ("a", "b", "ask", "nothing"))
    return AMQPBus(clock, net, no_chance, urls or (URL,), **options)


class AMQPBusContract(bus.BusContract, TestCase):
    """AMQPBus keeps the contract over a broker in memory."""

    def setUp(self) -> None:
        """One broker."""
        self.net = FakeNet()
        self.broker = FakeBroker(self.net)

    async def member(self) -> IMessageBus:
        """A new member, which also takes its leave on this clock."""
        made = bus_on(self.net)
        stop = made.stop

        async def stopped() -> None:
            over = start(stop())
            self.net.turn()
            await over

        made.stop = stopped  # type: ignore[method-assign]  # nobody else moves the clock
        return made

    async def settle(self) -> None:
        """Let everything arrive."""
        self.net.turn()


class BusCase(SynchronousTestCase):
    """One bus and its broker."""

    def setUp(self) -> None:
        """Nobody has started."""
        self.net = FakeNet()
        self.broker = FakeBroker(self.net)
        self.refused: list[str] = []
        self.heard: list[tuple[bytes, str]] = []
        self.away: list[float] = []

    def rise(self, *urls: str, **options: Any) -> None:
        """Start the bus and let it connect."""
        options.setdefault("refused", self.refused.append)
        self.bus = bus_on(self.net, *urls, **options)
        self.bus.subscribe("a", lambda body, to: self.heard.append((body, to)))
        self.bus.on_up(self.away.append)
        self.run_(self.bus.start())
        self.net.turn()
        self.addCleanup(self.sink)

    def sink(self) -> None:
        """Stop it, and see that nothing of it is left."""
        over = start(self.bus.stop())
        self.net.pass_(3)
        self.successResultOf(over)
        self.assertEqual(self.net.getDelayedCalls(), [])
        self.assertEqual(self.broker.connections, [])

    def run_(self, work: Awaitable[T]) -> T:
        """The result of what needs no time but turns."""
        running: Deferred[T] = start(work)
        self.net.turn()
        return self.successResultOf(running)

    def publish(self, body: bytes) -> None:
        """Publish to `a`."""
        self.run_(self.bus.publish("a", body))

    def away_now(self) -> None:
        """It is down, says so, and refuses at once."""
        self.assertFalse(self.bus.up)
        self.assertNotIn("guest", str(self.bus.trouble))
        self.failureResultOf(start(self.bus.publish("a", b"x")), BusUnavailable)
        self.failureResultOf(
            start(self.bus.send("amq.rabbitmq.reply-to.1", b"x")), BusUnavailable
        )

    def works(self) -> None:
        """What is published arrives."""
        self.assertIsNone(self.bus.trouble)
        before = len(self.heard)
        self.publish(b"works?")
        self.assertEqual([body for body, _ in self.heard[before:]], [b"works?"])


class DeclaringTests(BusCase):
    """What a broker is asked for."""

    def test_declarations(self) -> None:
        """Durable fanouts, one exclusive queue with limits, direct replies."""
        self.rise()
        asked = self.broker.arguments
        exchange = asked["exchange.declare"]
        self.assertEqual((exchange["type"], exchange["durable"]), ("fanout", True))
        self.assertEqual(set(self.broker.exchanges), {"a", "b", "ask", "nothing"})
        queue = asked["queue.declare"]
        self.assertTrue(queue["exclusive"])
        self.assertTrue(queue["auto_delete"])
        self.assertEqual(
            queue["arguments"], {"x-max-length": 10_000, "x-message-ttl": 30_000}
        )
        self.assertEqual(self.broker.said.count("queue.declare"), 1)
        self.assertEqual(self.bus.address, "amq.rabbitmq.reply-to")

    def test_who_we_are(self) -> None:
        """The login is PLAIN and announces what we understand."""
        self.rise("amqp://us%C3%A9r:p%40ss@broker/a%2Fb")
        login = self.broker.arguments["connection.start-ok"]
        self.assertEqual(login["mechanism"], "PLAIN")
        self.assertEqual(login["response"], "\0usér\0p@ss".encode())
        self.assertEqual(
            login["client_properties"]["capabilities"],
            {
                "authentication_failure_close": True,
                "consumer_cancel_notify": True,
                "connection.blocked": True,
            },
        )

    def test_late_subscription(self) -> None:
        """Who subscribes later is bound later, to the same queue."""
        self.rise()
        got: list[bytes] = []
        for topic in ("b", "ask", "b"):
            self.bus.subscribe(topic, lambda body, _: got.append(body))
        self.net.turn()
        self.assertEqual(self.broker.said.count("queue.declare"), 1)
        self.assertEqual(self.broker.said.count("queue.bind"), 3)
        self.run_(self.bus.publish("b", b"1"))
        self.assertEqual(got, [b"1", b"1"])

    def test_subscribed_while_connecting(self) -> None:
        """A subscription made in the midst of a login is not forgotten."""
        self.broker.silent.add("queue.declare")
        self.rise()
        self.bus.subscribe("b", lambda body, _: self.heard.append((body, "")))
        name = "amq.gen-late"
        owner = self.broker.connections[0]
        self.broker.queues[name] = owner, 2, ""
        self.broker.tell(2, "queue.declare-ok", queue=name)
        self.net.turn()
        self.run_(self.bus.publish("b", b"here"))
        self.assertEqual(self.heard, [(b"here", "")])

    def test_time_to_live(self) -> None:
        """It goes out as expiration, in whole milliseconds, within bounds."""
        self.rise()
        for ttl in (1.0, 0.0001, 0.0, -5.0, 1e12, None):
            self.run_(self.bus.publish("a", b"x", ttl))
        found = [header[-4:] for header in self.broker.headers]
        wanted = [b"1000", b"\x011", b"\x010", b"\x010", b"0000", b"y-to"]
        self.assertEqual(
            [f[-len(w) :] for f, w in zip(found, wanted, strict=True)], wanted
        )
        self.assertTrue(self.broker.headers[4].endswith(b"86400000"))

    def test_addresses(self) -> None:
        """Only a reply address may be sent to: no queue can be named by a message."""
        self.rise()
        before = self.broker.said.count("basic.publish")
        good = "amq.rabbitmq.reply-to."
        for address in ("", "amq.gen-1", good[:-1], good + "x" * 300, good + "\u00e9"):
            self.run_(self.bus.send(address, b"x"))
        self.assertEqual(self.broker.said.count("basic.publish"), before)
        self.assertEqual(self.bus.dropped, 5)

    def test_foreign_topics(self) -> None:
        """A topic that was not declared is a mistake of the caller."""
        self.rise()
        with self.assertRaises(ValueError):
            self.bus.subscribe("other", lambda *_: None)
        self.failureResultOf(start(self.bus.publish("other", b"x")), ValueError)

    def test_bad_settings(self) -> None:
        """A URL or a CA that cannot work is refused when the bus is made."""
        with self.assertRaises(Malformed):
            bus_on(self.net, URL, "http://broker")
        clock = Clock(self.net, self.net.seconds, self.net.seconds)
        with self.assertRaisesRegex(Malformed, "no broker"):
            AMQPBus(clock, self.net, no_chance, [])
        with self.assertRaisesRegex(Malformed, "PEM"):
            bus_on(self.net, URL, ca=b"no certificate")


class PoisonTests(BusCase):
    """What others may throw at us."""

    def deliver(self, *rest: bytes, exchange: str = "a") -> None:
        """A delivery on the channel of the topics, made by hand."""
        head = packed(2, "basic.deliver", consumer_tag="t", exchange=exchange)
        self.broker.raw(head + b"".join(rest))
        self.net.turn()

    def test_unfit(self) -> None:
        """Empty, huge, unreadable: counted, kept from handlers, harmless."""
        self.rise()
        unreadable = b"\x00\x3c\x00\x00" + (1).to_bytes(8, "big") + b"\x02\x00\xff"
        self.deliver(content(2, b""))
        self.deliver(content(2, b"x" * 65_537))
        self.deliver(
            frames.pack(frames.HEADER, 2, unreadable),
            frames.pack(frames.BODY, 2, b"x"),
        )
        self.deliver(content(2, b"x", "caf\u00e9"))
        self.deliver(content(2, b"x"), exchange="")
        self.deliver(content(2, b"x"), exchange="nothing")
        self.assertEqual(self.bus.dropped, 6)
        self.assertEqual(self.heard, [])
        self.broker.raw(packed(2, "basic.return") + content(2, b"back"))
        self.net.turn()
        self.assertEqual(self.bus.dropped, 7)
        self.works()
        self.assertEqual(self.broker.count, 1)

    def test_many_frames(self) -> None:
        """A body of any bytes in many frames arrives whole."""
        self.broker.frame_max = 4096
        self.rise()
        body = bytes(range(256)) * 256
        self.publish(body)
        self.assertEqual(self.heard[0][0], body)
        self.broker.raw(frames.pack(frames.BODY, 2, b"x" * 4089))
        self.net.turn()
        self.assertIn("too large", str(self.bus.trouble))

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_any_bytes(self, data: st.DataObject) -> None:
        """Whatever a broker sends in whatever pieces, nothing breaks but the connection."""
        self.setUp()
        self.rise()
        whole = bytearray(
            packed(2, "basic.deliver", consumer_tag="t", exchange="a")
            + content(2, b"fine", "me")
            + packed(0, "connection.blocked", reason="why")
            + packed(0, "connection.unblocked")
        )
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(whole) - 1))
            whole[place] = data.draw(st.integers(0, 255))
        while whole:
            size = data.draw(st.integers(1, len(whole)))
            self.broker.raw(bytes(whole[:size]))
            del whole[:size]
            self.net.turn()
        for _ in range(3):
            self.net.pass_(8)
        self.broker.tell(0, "connection.unblocked")
        self.net.turn()
        self.works()
        self.sink()

    def test_broken_protocol(self) -> None:
        """What AMQP does not allow ends the connection, and a new one is made."""
        broken = {
            "garbage": b"\xffnonsense!",
            "frame-end": b"\x01\x00\x00\x00\x00\x00\x00\x00",
            "huge": b"\x03\x00\x02\x7f\xff\xff\xff\x00",
            "unknown channel": packed(9, "channel.close"),
            "unknown method": b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x63\xce",
            "short method": b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x32\xce",
            "unasked reply": packed(1, "queue.bind-ok"),
            "second login": packed(0, "connection.start"),
            "a client's word": packed(1, "basic.consume"),
            "body out of place": b"\x03\x00\x02\x00\x00\x00\x01x\xce",
            "header out of place": content(2, b"x"),
            "two at once": packed(2, "basic.deliver") * 2,
            "short header": packed(2, "basic.deliver")
            + b"\x02\x00\x02\x00\x00\x00\x01x\xce",
            "short delivery": b"\x01\x00\x02\x00\x00\x00\x04\x00\x3c\x00\x3c\xce",
        }
        self.rise()
        for count, (name, data) in enumerate(broken.items(), 1):
            self.broker.raw(data)
            self.net.turn()
            self.assertIn("broke the protocol", str(self.bus.trouble), name)
            self.net.pass_(4)
            self.works()
            self.assertEqual(self.broker.count, 1 + count, name)

    def test_nothing_behind_the_end(self) -> None:
        """What comes in one piece with the broker's farewell is not taken."""
        self.rise()
        self.broker.raw(
            packed(0, "connection.close", reply_code=320)
            + packed(2, "basic.deliver", exchange="a")
            + content(2, b"x")
        )
        self.net.turn()
        self.assertEqual((self.heard, self.bus.dropped), ([], 0))
        (end,) = self.net.ends
        self.assertIsNone(end.producer)

    def test_answers_that_stop(self) -> None:
        """The same for answers."""
        self.rise()
        answers: list[bytes] = []
        stopped: list[Deferred[None]] = []
        self.bus.listen(answers.append)
        self.bus.listen(lambda _: stopped.append(start(self.bus.stop())))
        self.broker.raw((packed(1, "basic.deliver") + content(1, b"x")) * 3)
        self.net.turn()
        self.assertEqual((answers, len(stopped)), ([b"x"], 1))

    def test_handler_that_stops(self) -> None:
        """A handler may stop the bus: the rest of its batch is not delivered."""
        self.rise()
        stopped: list[Deferred[None]] = []
        self.bus.subscribe("a", lambda *_: stopped.append(start(self.bus.stop())))
        self.broker.raw(
            (packed(2, "basic.deliver", exchange="a") + content(2, b"x")) * 3
        )
        self.net.turn()
        self.assertEqual(len(self.heard), 1)
        self.assertEqual(len(stopped), 1)


class LosingTests(BusCase):
    """How it ends, and begins again."""

    def test_nobody_there(self) -> None:
        """Without a broker it starts, waits, says why, and pauses ever longer."""
        self.broker.shut()
        self.rise()
        self.away_now()
        self.net.pass_(30)
        self.away_now()
        self.assertIn("amqp://broker:5672/", str(self.bus.trouble))
        times = [when for when, _ in self.net.attempts]
        self.assertGreater(len(times), 10)
        for n, (one, next_) in enumerate(pairwise(times)):
            pause = min(3.0, 0.2 * 1.7**n) + ENDPOINT
            self.assertLess(abs(next_ - one - pause), 0.11)
        self.broker.open()
        self.net.pass_(3.2)
        self.works()
        self.assertEqual(self.away, [self.away[0]])
        self.assertTrue(30 < self.away[0] < 34, self.away)

    def test_log(self) -> None:
        """A long outage of several brokers costs one line each, and no password."""
        lines: list[str] = []
        self.addCleanup(
            globalLogPublisher.removeObserver, observer := self.lines(lines)
        )
        globalLogPublisher.addObserver(observer)
        self.broker.shut()
        self.rise("amqp://u:s3cret@one:1", "amqp://u:s3cret@two:2", URL)
        self.net.pass_(60)
        self.assertEqual(len(lines), 3, lines)
        self.broker.open()
        self.net.pass_(10)
        self.works()
        self.assertEqual(len(lines), 4, lines)
        self.broker.shut()
        self.net.pass_(60)
        self.assertEqual(len(lines), 4 + 4, lines)
        self.assertNotIn("s3cret", "".join(lines))

    def lines(self, said: list[str]) -> ILogObserver:
        """An observer that keeps what the bus says."""

        @provider(ILogObserver)
        def keep(event: LogEvent) -> None:
            if event["log_namespace"].startswith("ostore."):
                said.append(formatEvent(event))

        observer: ILogObserver = keep
        return observer

    def test_jitter(self) -> None:
        """Two services do not come back in step."""
        self.broker.shut()
        self.rise()
        early = bus_on(self.net)
        early._link._entropy = bytes
        self.net.attempts.clear()
        self.run_(early.start())
        self.net.pass_(ENDPOINT + 0.16)
        self.assertEqual(len(self.net.attempts), 2)
        over = start(early.stop())
        self.net.turn()
        self.successResultOf(over)

    def test_restart(self) -> None:
        """After a loss all is declared and bound again, soon, and who waits is told."""
        self.rise()
        for count in (2, 3):
            self.net.pass_(7)
            self.broker.shut()
            self.net.turn()
            self.away_now()
            self.broker.exchanges.clear()
            self.net.pass_(2)
            self.broker.open()
            self.net.pass_(3.2)
            self.works()
            self.assertEqual(len(self.away), count)
            self.assertTrue(2 <= self.away[-1] <= 12.5, self.away)

    def test_quick_losses(self) -> None:
        """A broker that takes us in and throws us out is not besieged."""
        self.rise()
        for _ in range(8):
            self.broker.shut()
            self.net.turn()
            self.broker.open()
            self.net.pass_(3.1)
        self.net.attempts.clear()
        self.broker.shut()
        self.broker.open()
        self.net.pass_(2.5)
        self.assertEqual(self.net.attempts, [])

    def test_good_time_forgives(self) -> None:
        """After a connection that held, the next is sought without delay."""
        self.broker.shut()
        self.rise()
        self.net.pass_(30)
        self.broker.open()
        self.net.pass_(9)
        self.works()
        self.broker.shut()
        self.broker.open()
        self.net.pass_(0.3)
        self.works()

    def test_several(self) -> None:
        """Brokers are tried in turn; the dead ones cost one attempt each."""
        self.rise("amqp://one:1", "amqp://two:2", URL)
        self.net.pass_(1)
        self.works()
        self.assertEqual([port for _, port in self.net.attempts], [1, 2, 5672])

    def test_silence(self) -> None:
        """A black hole is found after two heartbeats, and counts from its begin."""
        self.rise(heartbeat=10)
        for _ in range(12):
            self.net.pass_(5)
            self.broker.raw(frames.PULSE)
        self.net.turn()
        self.works()
        (end,) = self.net.ends
        end.peer.frozen = True
        self.net.pass_(14)
        self.assertTrue(self.bus.up)
        self.net.pass_(12)
        self.works()
        self.assertEqual(self.broker.count, 2)
        self.assertTrue(20 <= self.away[-1] <= 27, self.away)

    def test_pulse(self) -> None:
        """Both ends hear of each other though nothing happens."""
        self.broker.heartbeat = 4
        self.rise()
        self.assertEqual(self.broker.arguments["connection.tune-ok"]["heartbeat"], 4)
        seen: list[bytes] = []
        (connection,) = self.broker.connections
        self.patch(connection, "dataReceived", seen.append)
        self.net.pass_(6.1)
        self.assertEqual(seen, [b"\x08\x00\x00\x00\x00\x00\x00\xce"] * 2)

    def test_hanging_login(self) -> None:
        """A broker that stops to answer is given up, wherever it stops."""
        for name in (
            "connection.start",
            "connection.start-ok",
            "connection.open",
            "channel.open",
            "exchange.declare",
            "basic.consume",
            "queue.declare",
            "queue.bind",
        ):
            self.broker.silent = {name}
            self.rise()
            self.net.pass_(8.2)
            self.away_now()
            self.assertIn("in time", str(self.bus.trouble), name)
            self.broker.silent.clear()
            self.net.pass_(12)
            self.works()
            self.sink()

    def test_hanging_connect(self) -> None:
        """A host that swallows our first packet is given up after 3 s."""
        self.net.deaf.add(1)
        self.rise("amqp://hole:1", URL)
        self.net.pass_(3.5)
        self.works()

    def test_cancelled_consumer(self) -> None:
        """A queue that somebody deletes is made anew."""
        self.rise()
        self.broker.tell(2, "basic.cancel", consumer_tag="topics", nowait=True)
        self.net.turn()
        self.assertIn("removed the queue", str(self.bus.trouble))
        self.net.pass_(0.3)
        self.works()

    def test_closed_channel(self) -> None:
        """A channel error costs the connection, not the bus."""
        self.rise()
        self.broker.tell(1, "channel.close", reply_code=404, reply_text="NOT_FOUND")
        self.net.turn()
        self.assertIn("404 NOT_FOUND", str(self.bus.trouble))
        self.assertIn("channel.close-ok", self.broker.said)
        self.net.pass_(0.3)
        self.works()

    def test_closed_connection(self) -> None:
        """A broker that shuts down says so; what it says is cleaned for logs."""
        self.rise()
        self.broker.tell(
            0,
            "connection.close",
            reply_code=320,
            reply_text="FORCED\n\x1b[1m" + "x" * 200,
        )
        self.net.turn()
        self.assertIn("320 FORCED??[1m", str(self.bus.trouble))
        self.assertTrue(str(self.bus.trouble).isprintable())
        self.net.pass_(0.3)
        self.works()

    def test_unclosing_peer(self) -> None:
        """A transport that does not end when told to is cut."""
        self.rise()
        (end,) = self.net.ends
        self.broker.tell(0, "connection.close", reply_code=320)
        self.net.advance(0)
        end.frozen = True
        self.net.pass_(1.5)
        self.assertTrue(end.lost)
        self.works()

    def test_failed_subscription(self) -> None:
        """A late subscription that fails costs the connection, and then works."""
        self.rise()
        self.broker.silent.add("queue.bind")
        self.bus.subscribe("b", lambda body, to: self.heard.append((body, to)))
        waiting = start(self.bus.publish("b", b"not yet"))
        self.net.pass_(5.1)
        self.assertIn("did not subscribe", str(self.bus.trouble))
        self.failureResultOf(waiting, BusUnavailable)
        self.broker.silent.clear()
        self.net.pass_(0.4)
        self.run_(self.bus.publish("b", b"here"))
        self.assertEqual(len(self.heard), 1)

    def test_lost_while_subscribing(self) -> None:
        """A publish that waits for a subscription fails with it."""
        self.rise()
        self.broker.silent.add("queue.bind")
        self.bus.subscribe("b", lambda *_: None)
        waiting = start(self.bus.publish("b", b"x"))
        self.net.pass_(2)
        self.assertNoResult(waiting)
        self.broker.shut()
        self.net.turn()
        self.failureResultOf(waiting, BusUnavailable)

    def test_deathless(self) -> None:
        """A transport that ignores even a cut holds up neither stop nor the loop."""
        self.rise()
        for again in (2, 3):
            end = self.net.ends[-1]
            self.patch(end, "abortConnection", lambda: None)
            self.patch(end, "loseConnection", lambda: None)
            self.broker.tell(0, "connection.close", reply_code=320)
            self.net.pass_(2.6)
            self.works()
            self.assertEqual(self.broker.count, again)
        for end in self.net.ends[:2]:
            del end.abortConnection, end.loseConnection
            end.abortConnection()
        self.net.turn()
        end = self.net.ends[-1]
        self.patch(end, "abortConnection", lambda: None)
        over = start(self.bus.stop())
        self.net.pass_(2.2)
        self.successResultOf(over)
        del end.abortConnection
        end.abortConnection()

    def test_start_and_stop(self) -> None:
        """Both may be said twice, and in any state; a stopped bus may start again."""
        self.rise()
        self.run_(self.bus.start())
        self.assertEqual(self.broker.count, 1)
        for _ in range(2):
            self.run_(self.bus.stop())
            self.assertIn("not joined", str(self.bus.trouble))
        self.net.pass_(60)
        self.run_(self.bus.start())
        self.net.turn()
        self.works()
        self.assertAlmostEqual(self.away[-1], 60.0)
        self.assertEqual(self.broker.said.count("connection.close"), 1)

    def test_stop_while_connecting(self) -> None:
        """A stop in the midst of a login leaves nothing behind."""
        self.broker.silent.add("channel.open")
        self.rise()
        self.run_(self.bus.stop())
        self.assertEqual(self.broker.connections, [])

    def test_stop_without_farewell(self) -> None:
        """A broker that does not say good-bye is left after a second."""
        self.rise()
        self.broker.silent.add("connection.close")
        over = start(self.bus.stop())
        self.net.pass_(0.9)
        self.assertNoResult(over)
        self.net.pass_(0.2)
        self.successResultOf(over)

    def test_defect_in_an_attempt(self) -> None:
        """Whatever goes wrong in an attempt is logged, and the next is made."""
        self.broker.shut()
        self.rise()
        link = self.bus._link
        make, link._make = link._make, lambda _: 1 / 0  # type: ignore[assignment,return-value]  # a defect
        self.net.pass_(0.6)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        link._make = make
        self.broker.open()
        self.net.pass_(1)
        self.works()


class RefusalTests(BusCase):
    """What no waiting will cure."""

    def told_once(self, *words: str) -> None:
        """Exactly one sentence, with these words and no password."""
        self.net.pass_(10)
        self.assertEqual(len(self.refused), 1, self.refused)
        for word in (*words, "broker:5672"):
            self.assertIn(word, self.refused[0])
        self.assertNotIn("s3cret", self.refused[0])
        self.away_now()

    def test_password(self) -> None:
        """A wrong password: told once, tried again, told again after a good time."""
        self.rise("amqp://guest:s3cret@broker")
        self.told_once("403", "user")
        self.broker.password = "s3cret"
        self.net.pass_(3.2)
        self.works()
        self.broker.password = "another"
        self.broker.shut()
        self.broker.open()
        self.net.pass_(5)
        self.assertEqual(len(self.refused), 2)

    def test_vhost(self) -> None:
        """A vhost that is not there, or not ours."""
        self.rise("amqp://guest:guest@broker/else%2Fwhere")
        self.told_once("530", "vhost", "else%2Fwhere")

    def test_rights(self) -> None:
        """No right to declare what we need."""
        self.broker.refuses["exchange.declare"] = 403, "ACCESS_REFUSED - exchange 'a'"
        self.rise()
        self.told_once("403", "rights")

    def test_mechanism(self) -> None:
        """A broker that takes no passwords."""
        self.broker.mechanisms = b"EXTERNAL"
        self.rise()
        self.told_once("PLAIN")

    def test_version(self) -> None:
        """A broker that speaks another AMQP says which; no other word counts as that."""
        self.broker.banner = b"AMQP\x00\x01\x00\x00"
        self.rise()
        self.told_once("AMQP 0-9-1")

    def test_version_later(self) -> None:
        """These letters in the midst of a connection are garbage like any other."""
        self.rise()
        self.broker.raw(b"AMQP\x00\x01\x00\x00")
        self.net.turn()
        self.assertIn("broke the protocol", str(self.bus.trouble))
        self.net.pass_(1)
        self.assertEqual(self.refused, [])

    def test_no_broker(self) -> None:
        """Something else on the port may pass: nobody is told to act."""
        self.broker.banner = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
        self.rise()
        self.net.pass_(10)
        self.assertEqual(self.refused, [])
        self.assertIn("broke the protocol", str(self.bus.trouble))

    def test_passing_refusals(self) -> None:
        """A limit that is reached bears the code of a refusal, and passes."""
        self.broker.refuses["connection.open"] = 530, "connection limit (1) is reached"
        self.rise()
        self.net.pass_(5)
        self.assertEqual(self.refused, [])
        self.broker.refuses.clear()
        self.net.pass_(3.2)
        self.works()

    def test_other_settings(self) -> None:
        """An exchange of another kind under our name is named in the trouble."""
        self.broker.refuses["exchange.declare"] = (
            406,
            "PRECONDITION_FAILED type 'topic'",
        )
        self.rise()
        self.net.pass_(1)
        self.assertIn("406", str(self.bus.trouble))

    def test_failing_listener(self) -> None:
        """A `refused` that fails is logged and does no harm."""
        self.rise("amqp://guest:s3cret@broker", refused=lambda _: 1 / 0)
        self.net.pass_(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.broker.password = "s3cret"
        self.net.pass_(3.2)
        self.works()

    def test_small_frames(self) -> None:
        """A broker whose frames are smaller than AMQP allows is not spoken to."""
        self.broker.frame_max = 100
        self.rise()
        self.net.pass_(1)
        self.assertIn("too small", str(self.bus.trouble))

    def test_no_limit(self) -> None:
        """A broker without limits gets ours."""
        self.broker.frame_max = self.broker.heartbeat = 0
        self.rise()
        agreed = self.broker.arguments["connection.tune-ok"]
        self.assertEqual((agreed["frame_max"], agreed["heartbeat"]), (131_072, 10))
        self.works()


class FlowTests(BusCase):
    """A broker that takes no more."""

    def test_blocked(self) -> None:
        """While the broker blocks us nothing is published, but heard still."""
        self.rise()
        self.broker.tell(0, "connection.blocked", reason="low on memory")
        self.net.turn()
        self.away_now()
        self.assertIn("low on memory", str(self.bus.trouble))
        self.broker.connections[0].deliver(2, "a", b"still", "")
        self.net.pass_(2)
        self.assertEqual(self.heard, [(b"still", "")])
        self.broker.tell(0, "connection.unblocked")
        self.net.turn()
        self.works()
        self.assertAlmostEqual(self.away[-1], 2.0, places=2)

    def test_flow(self) -> None:
        """The same with the older channel.flow."""
        self.rise()
        self.broker.tell(1, "channel.flow", active=False)
        self.net.turn()
        self.away_now()
        self.broker.tell(1, "channel.flow", active=True)
        self.net.turn()
        self.works()
        self.assertEqual(self.broker.said.count("channel.flow-ok"), 2)

    def test_bounded_output(self) -> None:
        """A broker that does not read costs about a megabyte, then BusUnavailable."""
        self.rise()
        (end,) = self.net.ends
        end.frozen = True
        body, sent = b"x" * 60_000, 0
        while self.bus.up:
            self.run_(self.bus.publish("a", body))
            sent += len(body)
            self.assertLess(sent, 2 * MAX_BACKLOG)
        self.assertGreater(sent, MAX_BACKLOG)
        self.away_now()
        self.assertIn("too slowly", str(self.bus.trouble))
        end.thaw()
        self.net.turn()
        self.works()
        self.assertEqual(len(self.away), 2)

    def test_slow_bursts(self) -> None:
        """Bursts that each go out in the end do not add up."""
        self.rise()
        (end,) = self.net.ends
        for _ in range(4):
            end.frozen = True
            for _ in range(10):
                self.run_(self.bus.publish("a", b"x" * 60_000))
            self.assertTrue(self.bus.up)
            end.thaw()
            self.net.turn()
        self.assertEqual(len(self.heard), 40)
