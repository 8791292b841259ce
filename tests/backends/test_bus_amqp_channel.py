"""Calls on a channel, and a client's own rules."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.amqp.brokers import parse
from ostore.backends.bus.amqp.client import Client
from ostore.backends.bus.amqp.link import _Making
from ostore.backends.bus.amqp.reasons import BrokerLost
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import start
from tests.support.fakebroker import FakeBroker
from tests.support.fakenet import FakeNet


class ChannelTests(SynchronousTestCase):
    """One client with one channel, driven by hand."""

    def setUp(self) -> None:
        """Log in."""
        self.net = FakeNet()
        self.broker = FakeBroker(self.net)
        clock = Clock(self.net, self.net.seconds, self.net.seconds)
        self.client = Client(parse("amqp://h"), clock, 10, lambda: None, lambda: None)
        self.net.connectTCP("h", 5672, _Making(self.client))
        self.net.turn()
        self.answered(start(self.client.login()))
        self.channel = self.answered(
            start(self.client.open_channel(1, lambda *_: None))
        )
        self.addCleanup(self.end)

    def end(self) -> None:
        """Leave nothing."""
        over = start(self.client.close())
        self.net.pass_(2)
        self.successResultOf(over)
        self.assertEqual(self.net.getDelayedCalls(), [])

    def answered(self, work: Deferred[object]) -> object:
        """What the broker says to it."""
        self.net.turn()
        return self.successResultOf(work)

    def test_one_call_at_a_time(self) -> None:
        """A second call waits for the reply to the first: replies cannot be swapped."""
        self.broker.silent.add("queue.declare")
        first = self.channel.queue_declare()  # type: ignore[attr-defined]  # of SPEC
        second = self.channel.exchange_declare(exchange="a")  # type: ignore[attr-defined]  # of SPEC
        self.net.turn()
        self.assertNotIn("exchange.declare", self.broker.said)
        self.broker.tell(1, "queue.declare-ok", queue="q", message_count=3)
        self.net.turn()
        self.assertEqual(self.successResultOf(first).message_count, 3)
        self.successResultOf(second)

    def test_wrong_reply(self) -> None:
        """A reply to something else ends the connection and fails the call."""
        self.broker.silent.add("queue.declare")
        call = self.channel.queue_declare()  # type: ignore[attr-defined]  # of SPEC
        waiting = self.channel.queue_declare()  # type: ignore[attr-defined]  # of SPEC
        self.broker.tell(1, "basic.consume-ok")
        self.net.turn()
        self.failureResultOf(call, BrokerLost)
        self.failureResultOf(waiting, BrokerLost)

    def test_no_reply(self) -> None:
        """A call that gets no reply fails after 5 s; one without a reply never waits."""
        self.broker.silent.add("queue.declare")
        call = self.channel.queue_declare()  # type: ignore[attr-defined]  # of SPEC
        self.net.pass_(5.1)
        self.failureResultOf(call, TimedOut)
        nowait = self.channel.queue_declare(nowait=True)  # type: ignore[attr-defined]  # of SPEC
        self.assertIsNone(self.successResultOf(nowait))
        ack = self.channel.basic_ack(delivery_tag=1)  # type: ignore[attr-defined]  # of SPEC
        self.assertIsNone(self.successResultOf(ack))

    def test_dead_client(self) -> None:
        """Calls and writes on a client that is over are refused at once."""
        hanging = self.channel.basic_qos(prefetch_count=1)  # type: ignore[attr-defined]  # of SPEC
        self.client.abort(BrokerLost("over"))
        self.failureResultOf(hanging, BrokerLost)
        for call in (self.channel.queue_declare, self.channel.basic_ack):  # type: ignore[attr-defined]  # of SPEC
            self.failureResultOf(call(), BrokerLost)
        self.failureResultOf(
            start(self.client.open_channel(2, lambda *_: None)), BrokerLost
        )
        with self.assertRaisesRegex(BrokerLost, "over"):
            self.client.send(b"x")

    def test_late_reply(self) -> None:
        """A reply after its call was given up ends the connection: it fits no other."""
        self.broker.silent.add("queue.declare")
        call = self.channel.queue_declare()  # type: ignore[attr-defined]  # of SPEC
        self.net.pass_(5.1)
        self.failureResultOf(call, TimedOut)
        self.broker.tell(1, "queue.declare-ok", queue="q")
        self.net.turn()
        assert self.client.ended is not None
        self.assertIn("nobody waits for", str(self.client.ended))

    def test_unwanted_messages(self) -> None:
        """Nothing is delivered on channel 0."""
        dropped: list[int] = []
        self.client._drop = lambda: dropped.append(1)
        self.broker.connections[0].deliver(0, "a", b"x", "")
        self.net.turn()
        self.assertEqual(dropped, [1])
