"""The broker dies, comes back, and is fed rubbish, under load."""

from __future__ import annotations

import os
import time
from typing import Any, cast

import attrs
from twisted.internet import reactor as installed

from ostore.backends.bus.amqp.bus import AMQPBus
from ostore.model.messages import (
    API_TOPIC,
    DATA_TOPIC,
    Answers,
    Claim,
    Hello,
    Locate,
    Locates,
    Message,
    Signer,
)
from ostore.model.nodes import Boot, Heartbeat
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.live import servers
from tests.live.cases import ThreadedCase
from tests.live.client import ask
from tests.live.load import LoadCase

reactor = cast("Any", installed)
CLOCK = Clock(reactor, time.monotonic, time.time)


class RestartTests(LoadCase):
    """The broker goes and comes back."""

    def test_killed(self) -> None:
        """Killed and restarted under load: all works again, nothing is lost."""
        broker = servers.broker()
        with self.load() as load:
            self.more(load, 20)
            broker.kill()
            self.until(lambda: "bus" in self.reasons(), "readiness tells of it")
            broker.start()  # returns with its first answer
            self.until(self.works, "everything works again")
            self.more(load, 20)
        self.assert_none_lost(load)

    def test_away_for_long(self) -> None:
        """Away for longer than nodes count as there: 503 at most, then all is well."""
        broker = servers.broker()
        with self.load() as load:
            self.more(load, 5)
            broker.kill()
            self.until(lambda: "bus" in self.reasons(1), "readiness tells of it")
            deadline = load.counts.total() + 30
            self.until(lambda: load.counts.total() > deadline, "answers without it")
            broker.start()
            self.until(self.works, "everything works again")
            self.more(load, 5)
        self.assert_none_lost(load)

    def test_connections_closed(self) -> None:
        """An operator who closes all connections: they are made anew, nothing is lost."""
        with self.load() as load:
            self.more(load, 10)
            servers.broker().control("close_all_connections", "maintenance")
            self.until(self.works, "everything works again")
            self.more(load, 10)
        self.assert_none_lost(load)


class PoisonTests(LoadCase, ThreadedCase):
    """Messages that are not ours."""

    async def test_both_exchanges(self) -> None:
        """Rubbish, forgeries and replays on both exchanges change nothing but a count."""
        bus = AMQPBus(CLOCK, reactor, os.urandom, (self.cluster.rabbitmq,))
        heard: list[bytes] = []
        for topic in (API_TOPIC, DATA_TOPIC):
            bus.subscribe(topic, lambda body, _: heard.append(body))
        await bus.start()
        self.addCleanup(lambda: start(bus.stop()))
        while not bus.up or len(heard) < 12:
            await CLOCK.sleep(0.05)
        before = [await self.elsewhere(self.dropped, port) for port in self.ports()]
        nodes = set(await self.elsewhere(self.view))
        load = self.load()
        load.__enter__()
        try:
            await self.elsewhere(self.more, load, 5)
            for body in (*self.rubbish(), *self.forged(min(nodes)), *heard):
                for topic in (API_TOPIC, DATA_TOPIC):
                    await bus.publish(topic, body)
            await self.elsewhere(self.more, load, 20)
        finally:
            await self.elsewhere(load.__exit__, None, None, None)
        await self.elsewhere(self.assert_none_lost, load)
        self.assertEqual(set(load.counts), {"PUT 200", "GET 200"})
        self.assertEqual(set(await self.elsewhere(self.view)), nodes)
        self.assertTrue(await self.elsewhere(self.works))
        for port, was in zip(self.ports(), before, strict=True):
            self.assertGreater(await self.elsewhere(self.dropped, port), was + 10)

    def rubbish(self) -> list[bytes]:
        """What is no message at all."""
        return [
            b"rubbish",
            b"\xff\xfe\x00",
            b"[" * 60_000,
            b'{"v":1,"body":"{}","mac":"' + b"0" * 64 + b'"}',
            b'{"v":2}',
            b'{"v":1,"body":7,"mac":null}',
            b"null",
            os.urandom(1 << 16),
        ]

    def forged(self, node: str) -> list[bytes]:
        """What somebody without the secret would have the services believe."""
        forger = Signer([b"another secret of at least 32 characters"])
        boot = Boot(999, "f" * 16)
        beat = Heartbeat(
            node, boot, 9, "http://127.0.0.1:1", "z", 1, 1, 0, "draining", time.time()
        )
        made: list[Message] = [
            beat,
            attrs.evolve(beat, node="a" * 32, state="up"),
            Locate(hash="0" * 64, id="1" * 32, ttl_ms=60_000, reply_to="nowhere"),
            Locates(("0" * 64,) * 2, "1" * 32, 60_000, "nowhere"),
            Answers("1" * 32, node, ((0, "none", ()),)),
            Claim(node, boot, "nowhere"),
            Hello("nowhere"),
        ]
        return [forger.seal(message) for message in made]

    def dropped(self, port: int) -> float:
        """Messages that an api did not take."""
        text = ask(port, "GET", "/metrics").body.decode()
        [line] = [
            line
            for line in text.splitlines()
            if line.startswith("ostore_bus_messages_dropped_total ")
        ]
        return float(line.split()[1])
