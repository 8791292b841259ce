"""What this process has on one connection: exchanges, its queue, its reply address."""

from __future__ import annotations

import math
from collections.abc import Collection, Set
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock

from ostore.backends.bus.amqp.client import Client
from ostore.backends.bus.amqp.contents import Take
from ostore.backends.bus.amqp.frames import pack_content, pack_publish

REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""RabbitMQ's pseudo queue: what is sent there comes back on the asking channel."""
ADDRESS_MAX: Final = 255
ASKING: Final = 1
HEARING: Final = 2
MAX_TTL: Final = 86_400_000
"""Milliseconds; nothing on the bus is worth more."""
QUEUE: Final = {"x-max-length": 10_000, "x-message-ttl": 30_000}


def is_reply_address(address: str) -> bool:
    """Whether it is one that RabbitMQ gave to an asker, and no queue of others."""
    return (
        address.startswith(REPLY_TO + ".")
        and len(address) <= ADDRESS_MAX
        and address.isascii()
    )


class Session:
    """Declares everything on a new client, then publishes and follows topics.

    Made by the bus for each client and gone with it; `followed` is the bus's and may
    grow. Publishing and replies share a channel, as direct reply-to demands; what is
    followed has its own.
    """

    def __init__(
        self,
        client: Client,
        topics: Collection[str],
        followed: Set[str],
        heard: Take,
        replied: Take,
    ) -> None:
        self.client = client
        self._topics = topics
        self._followed = followed
        self._heard = heard
        self._replied = replied
        self._hearing: Any = None
        self._queue = ""
        self._bound: set[str] = set()
        self._lock = DeferredLock()
        self._waiting: list[Deferred[None]] = []
        self._heads = {topic: pack_publish(ASKING, topic, "") for topic in topics}

    @property
    def binding(self) -> bool:
        """Whether a topic is followed whose messages do not come here yet."""
        return not self._followed <= self._bound

    async def open(self) -> None:
        """Log in, declare, consume. Raises BrokerLost, TimedOut."""
        await self.client.login()
        asking = await self.client.open_channel(ASKING, self._replied)
        for topic in self._topics:
            await asking.exchange_declare(exchange=topic, type="fanout", durable=True)
        await asking.basic_consume(queue=REPLY_TO, no_ack=True, consumer_tag="reply")
        self._hearing = await self.client.open_channel(HEARING, self._heard)
        await self.bind()

    async def bind(self) -> None:
        """Let what is published to each followed topic come to our queue.

        Raises BrokerLost, TimedOut.
        """
        await self._lock.acquire()
        try:
            while missing := self._followed - self._bound:
                topic = min(missing)
                await self._bind(topic)
                self._bound.add(topic)
        finally:
            self._lock.release()
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.called:
                    each.callback(None)

    async def bound(self) -> None:
        """Wait, in the order of the calls, until the `bind` under way has ended."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        await waiting

    async def _bind(self, topic: str) -> None:
        channel = self._hearing
        if not self._queue:
            declared = await channel.queue_declare(
                exclusive=True, auto_delete=True, arguments=QUEUE
            )
            self._queue = declared.queue
            await channel.basic_consume(
                queue=self._queue, no_ack=True, consumer_tag="topics"
            )
        await channel.queue_bind(queue=self._queue, exchange=topic)

    def publish(self, topic: str, body: bytes, ttl: float | None) -> None:
        """To everyone who follows the topic; answers come to this session."""
        self._write(self._heads[topic], body, REPLY_TO, ttl)

    def send(self, address: str, body: bytes, ttl: float | None) -> None:
        """To the one who asked from that address."""
        self._write(pack_publish(ASKING, "", address), body, "", ttl)

    def _write(
        self, head: bytes, body: bytes, reply_to: str, ttl: float | None
    ) -> None:
        expires = None
        if ttl is not None:
            expires = min(max(0, math.ceil(ttl * 1000)), MAX_TTL)
        client = self.client
        client.send(head + pack_content(ASKING, body, reply_to, expires, client.limit))
