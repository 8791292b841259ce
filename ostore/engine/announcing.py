"""A node's voice on the bus: heartbeats out, answers to locates back."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ostore.engine.cluster import API_TOPIC, DATA_TOPIC
from ostore.interfaces import IMessageBus, IShardStore
from ostore.model.errors import BusUnavailable, ShardError
from ostore.model.layouts import Holding
from ostore.model.messages import Answer, BadMessage, Hello, Locate, Signer
from ostore.model.nodes import Heartbeat
from ostore.streaming.schedule import Repeated
from ostore.streaming.tasks import Tasks

MAX_ANSWERS = 1000
"""Locates answered at once; the asker's time-out covers the ones beyond."""


class Announcer:
    """Speaks for one node; started and stopped by whoever owns the node.

    `beat` makes the heartbeat of this moment (sequence numbers are its matter).
    """

    def __init__(
        self,
        bus: IMessageBus,
        signer: Signer,
        node: str,
        store: IShardStore,
        beat: Callable[[], Heartbeat],
        repeated: Callable[[Callable[[], object]], Repeated],
    ) -> None:
        self.dropped = 0
        self._bus = bus
        self._signer = signer
        self._node = node
        self._store = store
        self._beat = beat
        self._log = Logger()
        self._tasks = Tasks(self._log)
        self._period = repeated(self.announce)

    async def start(self) -> None:
        """Begin to answer, say at once that the node is there, and go on saying it."""
        self._bus.subscribe(DATA_TOPIC, self._asked)
        await self.announce()
        self._period.start()

    async def stop(self) -> None:
        """Fall silent."""
        await self._period.stop()
        await self._tasks.stop()

    async def announce(self) -> None:
        """Send one heartbeat; a bus that is away is the reconnect loop's matter."""
        try:
            await self._bus.publish(API_TOPIC, self._signer.seal(self._beat()))
        except BusUnavailable:
            self._log.debug("heartbeat not sent: the bus is away")

    def _asked(self, body: bytes, reply_to: str) -> None:
        try:
            message = self._signer.open(body)
        except BadMessage:
            self.dropped += 1
            return
        if isinstance(message, Hello):
            self._tasks.spawn("announcing", self.announce)
        elif isinstance(message, Locate) and len(self._tasks) < MAX_ANSWERS:
            question = message
            self._tasks.spawn("answering", lambda: self._answer(question, reply_to))

    async def _answer(self, question: Locate, reply_to: str) -> None:
        try:
            holding = await self._store.find(question.hash)
        except ShardError:
            holding = Holding("unsure")
        answer = Answer(
            id=question.id,
            node=self._node,
            state=holding.state,
            shards=tuple((shard.index, shard.layout) for shard in holding.shards),
        )
        try:
            await self._bus.send(
                reply_to, self._signer.seal(answer), question.ttl_ms / 1000
            )
        except BusUnavailable:
            self._log.debug("answer not sent: the bus is away")
