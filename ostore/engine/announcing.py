"""A node's voice on the bus: heartbeats out, claims, and who answers questions."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ostore.engine.answering import Answering
from ostore.interfaces import IMessageBus, IShardStore
from ostore.model.errors import BusUnavailable, Refused
from ostore.model.fields import BadMessage
from ostore.model.messages import (
    API_TOPIC,
    DATA_TOPIC,
    LOCATES,
    Claim,
    Hello,
    Locate,
    Locates,
    Message,
    Signer,
    Taken,
)
from ostore.model.nodes import Boot, Heartbeat
from ostore.streaming.clock import Clock
from ostore.streaming.schedule import Repeated
from ostore.streaming.tasks import Tasks

CAPABILITIES = (LOCATES,)
"""What the heartbeats of a node with such a voice say that it can."""
CLAIM = 1.0
"""Seconds in which a live holder of our node id answers."""
BUS_LOOK = 0.1
"""Seconds between two looks whether the bus is up."""


class Announcer:
    """Speaks for one node; started and stopped by whoever owns the node.

    `beat` makes the heartbeat of this moment (sequence numbers are its matter).
    """

    def __init__(
        self,
        bus: IMessageBus,
        signer: Signer,
        clock: Clock,
        node: str,
        store: IShardStore,
        beat: Callable[[], Heartbeat],
        repeated: Callable[[Callable[[], object]], Repeated],
    ) -> None:
        self.dropped = 0
        self._bus = bus
        self._signer = signer
        self._clock = clock
        self._node = node
        self._answering = Answering(bus, signer, clock, node, store)
        self._beat = beat
        self._holder: Boot | None = None
        self._speaking = False
        self._log = Logger()
        self._tasks = Tasks(self._log)
        self._period = repeated(self.announce)

    async def claim(self) -> None:
        """Wait for the bus, then make sure that nobody else speaks under our id.

        Raises Refused when the id is taken: this root is a copy of another's. Of two
        that claim at once the one with the smaller chance in its boot stays.
        """
        self._bus.subscribe(DATA_TOPIC, self._asked)
        self._bus.listen(self._answered)
        while True:
            while not self._bus.up:
                await self._clock.sleep(BUS_LOOK)
            boot = self._beat().boot
            claim = Claim(self._node, boot, self._bus.address)
            try:
                await self._bus.publish(DATA_TOPIC, self._signer.seal(claim), CLAIM)
            except BusUnavailable:
                continue
            await self._clock.sleep(CLAIM)
            if self._holder is not None:
                raise Refused(
                    f"another process speaks for node {self._node}: this storage root "
                    "is a copy of its root"
                )
            if self._bus.up:
                break
        self._speaking = True

    async def start(self) -> None:
        """Begin to answer, say at once that the node is there, and go on saying it."""
        if not self._speaking:
            self._bus.subscribe(DATA_TOPIC, self._asked)
            self._speaking = True
        self._bus.on_up(self._came_up)
        await self.announce()
        self._period.start()

    async def stop(self) -> None:
        """Fall silent."""
        self._speaking = False
        await self._period.stop()
        await self._answering.stop()
        await self._tasks.stop()

    async def announce(self) -> None:
        """Send one heartbeat; a bus that is away is the reconnect loop's matter."""
        try:
            await self._bus.publish(API_TOPIC, self._signer.seal(self._beat()))
        except BusUnavailable:
            self._log.debug("heartbeat not sent: the bus is away")

    def _came_up(self, _: float) -> None:
        if self._speaking:
            self._tasks.spawn("announcing", self.announce)

    def _asked(self, body: bytes, reply_to: str) -> None:
        message = self._open(body)
        if isinstance(message, Claim):
            self._contested(message, reply_to)
        elif not self._speaking:
            return
        elif isinstance(message, Hello):
            self._tasks.spawn("announcing", self.announce)
        elif isinstance(message, Locate | Locates):
            self._answering.asked(message, reply_to)

    def _contested(self, claim: Claim, reply_to: str) -> None:
        ours = self._beat().boot
        if claim.node != self._node or claim.boot == ours:
            return
        if not self._speaking and claim.boot.random < ours.random:
            self._holder = claim.boot
        else:
            taken = self._signer.seal(Taken(self._node, ours))
            self._tasks.spawn(
                "a claim", lambda: self._answering.send(reply_to, taken, CLAIM)
            )

    def _answered(self, body: bytes) -> None:
        message = self._open(body)
        if isinstance(message, Taken) and message.node == self._node:
            self._holder = message.boot

    def _open(self, body: bytes) -> Message | None:
        try:
            return self._signer.open(body)
        except BadMessage:
            self.dropped += 1
            return None
