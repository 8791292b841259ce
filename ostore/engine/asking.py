"""Questions to all nodes at once over the bus, and the answers that come back."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ostore.interfaces import IMessageBus
from ostore.model.census import Census
from ostore.model.fields import BadMessage
from ostore.model.layouts import Holding, ShardFacts
from ostore.model.messages import (
    DATA_TOPIC,
    MAX_HASHES,
    Answer,
    Answers,
    Locate,
    Locates,
    Shards,
    Signer,
)
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import Tasks

DATA_FIRST = 0.02
"""Seconds that a reader waits for data shards once k of a layout are known."""
MAX_ASKS = 10_000
"""Locates under way at once; more are refused as if the bus were away."""

_Sent = tuple[str, int | None]


@attrs.define(eq=False)
class Ask:
    """One locate under way: its census, its end, its timers; made by Asking.

    `ended` fires when enough is known or time is over, and fails when the question
    could not be sent. `sent` tells under which id, and as which one of its message
    (None: as the only one), it went to the bus.
    """

    hash: str
    census: Census
    reading: bool
    thorough: bool
    clock: Clock
    ended: Deferred[None] = attrs.field(factory=Deferred)
    timers: list[IDelayedCall] = attrs.field(factory=list)
    waiting: bool = False
    sent: _Sent | None = None
    late: bool = False

    def answer(self, node: str, holding: Holding) -> None:
        """Take in what a node says, unless the others had said enough."""
        if not self.ended.called:
            self.census.answer(node, holding)
            self.judge()

    def judge(self) -> None:
        """End it if enough is known."""
        census = self.census
        if census.whole() or not census.silent:
            self.finish()
        elif self.thorough:
            return
        elif not self.reading:
            if census.done():
                self.finish()
        elif census.readable() and len(self.timers) == 1:
            self.timers.append(self.clock.call_later(DATA_FIRST, self.finish))

    def time_out(self) -> None:
        """End it with what is known; who was asked and is silent is late."""
        self.late = not self.waiting
        self.finish()

    def finish(self, error: Exception | None = None) -> None:
        """End it; once is enough."""
        for timer in self.timers:
            if timer.active():
                timer.cancel()
        if self.ended.called:
            return
        if error is None:
            self.ended.callback(None)
        else:
            self.ended.errback(error)


class Asking:
    """Every locate under way, and what of it goes over the bus.

    Owned by the cluster, which opens and closes each ask. Those that arise in one turn
    of the reactor, or while a message is being handed to the bus, are asked in one
    message where all nodes are able to read that (`together`), otherwise each in its
    own. Answers count when they come from a node that is `known`; `dropped` counts
    messages that were none.
    """

    def __init__(
        self,
        bus: IMessageBus,
        signer: Signer,
        clock: Clock,
        entropy: Callable[[int], bytes],
        timeout: float,
        *,
        known: Callable[[str], bool],
        together: Callable[[], bool],
    ) -> None:
        self.dropped = 0
        self._bus = bus
        self._signer = signer
        self._clock = clock
        self._entropy = entropy
        self._timeout = timeout
        self._known = known
        self._together = together
        self._asks: dict[Ask, None] = {}
        self._sent: dict[_Sent, Ask] = {}
        self._waiting: list[Ask] = []
        self._sending: IDelayedCall | None = None
        self._tasks = Tasks(Logger())

    def start(self) -> None:
        """Listen for answers."""
        self._bus.listen(self._heard)

    async def stop(self) -> None:
        """End every ask with what is known."""
        for ask in list(self._asks):
            ask.finish()
        self._waiting.clear()
        if self._sending is not None and self._sending.active():
            self._sending.cancel()
        await self._tasks.stop()

    @property
    def full(self) -> bool:
        """Whether no more can be asked now."""
        return len(self._asks) >= MAX_ASKS

    def open(self, hash: str, census: Census, *, reading: bool, thorough: bool) -> Ask:
        """A new ask, whose time begins to run; its answers are the caller's matter."""
        ask = Ask(hash, census, reading, thorough, self._clock)
        self._asks[ask] = None
        ask.timers.append(self._clock.call_later(self._timeout, ask.time_out))
        return ask

    def close(self, ask: Ask) -> None:
        """Forget it, however it ended."""
        ask.finish()
        del self._asks[ask]
        if ask.sent is not None:
            del self._sent[ask.sent]

    def publish(self, ask: Ask) -> None:
        """Ask all nodes on the bus, by the end of this turn."""
        ask.waiting = True
        self._waiting.append(ask)
        if self._sending is None:
            self._sending = self._clock.call_later(
                0, self._tasks.spawn, "asking the nodes", self._send
            )

    async def _send(self) -> None:
        """Hand over what waits, and what comes to wait meanwhile."""
        try:
            while self._waiting:
                asks, self._waiting = self._waiting, []
                count = MAX_HASHES if self._together() else 1
                for first in range(0, len(asks), count):
                    some = asks[first : first + count]
                    await self._hand_over([a for a in some if not a.ended.called])
        finally:
            self._sending = None

    async def _hand_over(self, asks: list[Ask]) -> None:
        if not asks:
            return
        number = self._entropy(16).hex()
        ttl, reply_to = max(1, round(self._timeout * 1000)), self._bus.address
        question: Locate | Locates
        if len(asks) == 1:
            asks[0].sent = number, None
            question = Locate(asks[0].hash, number, ttl, reply_to)
        else:
            for place, ask in enumerate(asks):
                ask.sent = number, place
            hashes = tuple(ask.hash for ask in asks)
            question = Locates(hashes, number, ttl, reply_to)
        self._sent |= {ask.sent: ask for ask in asks if ask.sent is not None}
        try:
            sealed = self._signer.seal(question)
            await self._bus.publish(DATA_TOPIC, sealed, self._timeout)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who ask
            for ask in asks:
                ask.finish(error)
        for ask in asks:
            ask.waiting = False

    def _heard(self, body: bytes) -> None:
        try:
            message = self._signer.open(body)
        except BadMessage:
            self.dropped += 1
            return
        if not isinstance(message, Answer | Answers) or not self._known(message.node):
            self.dropped += 1
        elif isinstance(message, Answer):
            sent = message.id, None
            self._take(message.node, sent, message.state, message.shards)
        else:
            for place, state, shards in message.found:
                self._take(message.node, (message.id, place), state, shards)

    def _take(self, node: str, sent: _Sent, state: str, shards: Shards) -> None:
        ask = self._sent.get(sent)
        if ask is None:
            return  # late: the others had said enough
        facts = tuple(
            ShardFacts(ask.hash, index, layout, 0, 0.0) for index, layout in shards
        )
        ask.answer(node, Holding(state, facts))
