"""etc/rabbitmq/definitions.json in a real RabbitMQ."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ostore.backends.bus.amqp.bus import TOPICS, AMQPBus
from ostore.streaming.clock import Clock
from tests.live.servers import broker

reactor: Any = installed
CLOCK = Clock(reactor, reactor.seconds, time.time)
CHECKOUT = Path(__file__).parents[2]


class DefinitionsTests(TestCase):
    """What a user of these permissions may do."""

    timeout = 120

    async def joined(self, topics: Sequence[str] = TOPICS) -> AMQPBus:
        """A bus in the vhost of the definitions."""
        bus = AMQPBus(
            CLOCK, reactor, os.urandom, [broker().url("ostore")], topics=topics
        )
        self.addCleanup(bus.stop)
        return bus

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for it."""
        while not true():
            await CLOCK.sleep(0.01)

    async def load(self) -> None:
        """Load them, as the operator does."""
        path = str(CHECKOUT / "etc/rabbitmq/definitions.json")
        await deferToThread(broker().control, "import_definitions", path)

    async def test_enough(self) -> None:
        """Two services publish, follow, ask and answer; loading twice is harmless."""
        await self.load()
        await self.load()
        asking, answering = await self.joined(), await self.joined()
        answers: list[bytes] = []
        asked: list[str] = []
        heard: list[bytes] = []
        asking.listen(answers.append)
        asking.subscribe("apiServers", lambda body, _: heard.append(body))
        answering.subscribe("dataServers", lambda _, address: asked.append(address))
        for bus in (asking, answering):
            await bus.start()
        await self.until(lambda: asking.up and answering.up)
        while not asked:  # a subscription may be a moment behind
            await asking.publish("dataServers", b"who?", 1.0)
            await CLOCK.sleep(0.05)
        while not heard:
            await answering.publish("apiServers", b"here", 1.0)
            await CLOCK.sleep(0.05)
        await answering.send(asked[0], b"I", 1.0)
        await self.until(lambda: answers)
        self.assertEqual((answers, heard[0]), ([b"I"], b"here"))

    async def test_no_more(self) -> None:
        """Another exchange is refused."""
        await self.load()
        bus = await self.joined(("elsewhere",))
        await bus.start()
        await self.until(lambda: "ACCESS_REFUSED" in str(bus.trouble))
        self.assertIn("elsewhere", str(bus.trouble))
        self.assertFalse(bus.up)
