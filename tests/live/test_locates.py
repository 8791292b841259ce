"""Many locates in one message, over a real RabbitMQ."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ostore.backends.bus.amqp.bus import AMQPBus
from ostore.engine.cluster import Cluster
from ostore.model.census import Census
from ostore.model.messages import DATA_TOPIC, Locate, Locates, Signer
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import gather, start
from tests.live.servers import broker, vhost
from tests.support.voices import Voice, content, shards

reactor = cast("Any", installed)
CLOCK = Clock(reactor, time.monotonic, time.time)
NODES = 4
PATIENCE = 60.0
CONTENTS = 300


async def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    deadline = CLOCK.monotonic() + PATIENCE
    while not true():
        if CLOCK.monotonic() > deadline:
            raise AssertionError("it did not come true")
        await CLOCK.sleep(0.01)


def ended(stop: Callable[[], Awaitable[None]]) -> Deferred[None]:
    """A cleanup."""
    return start(stop())


class LocatesTests(TestCase):
    """An asker and four nodes, each with a connection of its own."""

    timeout = 300

    async def rise(self) -> None:
        """All are there, and hold content n as node n % 5, 4 being nobody."""
        url = await deferToThread(lambda: broker().url(vhost()))
        self.signer = Signer([os.urandom(32)])
        self.asker = self.bus(url)
        self.voices = [
            Voice(number, self.bus(url), self.signer, CLOCK) for number in range(NODES)
        ]
        self.cluster = Cluster(
            self.asker,
            cast("Any", None),
            self.signer,
            CLOCK,
            os.urandom,
            heartbeat=5.0,
            node_timeout=PATIENCE,
            locate_timeout=PATIENCE / 2,
        )
        self.questions: list[Locate | Locates] = []
        for number in range(CONTENTS):
            if number % 5 < NODES:
                hash = content(number)
                store = self.voices[number % 5].store
                store.says[hash] = shards(hash, number % 4)
        await self.cluster.start()
        self.addCleanup(ended, self.cluster.stop)
        for member in (self.asker, *(voice.member for voice in self.voices)):
            await member.start()
            self.addCleanup(ended, member.stop)
        for voice in self.voices:
            await voice.announcer.start()
            self.addCleanup(ended, voice.announcer.stop)
        await until(lambda: len(self.heard()) == NODES)

    def bus(self, url: str) -> AMQPBus:
        """A way to the broker; what is asked on it is noted."""
        made = AMQPBus(CLOCK, reactor, os.urandom, (url,))
        publish = made.publish

        async def noted(topic: str, body: bytes, ttl: float | None = None) -> None:
            message = self.signer.open(body)
            if topic == DATA_TOPIC and isinstance(message, Locate | Locates):
                self.questions.append(message)
            await publish(topic, body, ttl)

        made.publish = noted  # type: ignore[method-assign]  # stands before it
        return made

    def heard(self) -> list[str]:
        """Nodes that are up, and whose questions would arrive."""
        states = self.cluster.states()
        return [
            voice.id
            for voice in self.voices
            if voice.member.up and states.get(voice.id) == "up"
        ]

    async def censuses(self) -> list[Census]:
        """What is found of all contents, asked for in one turn."""
        found = []
        works = (self.cluster.locate(content(n)) for n in range(CONTENTS))
        for census in await gather(works):
            assert isinstance(census, Census), census
            found.append(census)
        return found

    def assert_right(self, censuses: list[Census]) -> None:
        """Each has the answers of all nodes, and its own."""
        for number, census in enumerate(censuses):
            self.assertTrue(census.certain, number)
            seen = [
                (s.layout.id, dict(s.places), {*s.nodes}) for s in census.standings()
            ]
            expected = []
            if number % 5 < NODES:
                node = self.voices[number % 5].id
                expected = [("f" * 32, {number % 4: (node,)}, {node})]
            self.assertEqual(seen, expected)

    async def test_together(self) -> None:
        """Three messages for 300 contents, and everyone gets what is his."""
        await self.rise()
        self.assert_right(await self.censuses())
        asked = [len(q.hashes) for q in self.questions if isinstance(q, Locates)]
        self.assertEqual((asked, len(self.questions)), ([128, 128, 44], 3))

    async def test_old_node(self) -> None:
        """With one node that does not know the form: a message for each, and as right."""
        await self.rise()
        old = self.voices[2]
        old.capabilities = ()
        await old.announcer.announce()
        await until(lambda: not self.cluster.members.by_id[old.id].beat.capabilities)
        self.assert_right(await self.censuses())
        self.assertEqual({type(q) for q in self.questions}, {Locate})
        self.assertEqual(len(self.questions), CONTENTS)
