"""What a node says when it is asked on the bus what it holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ostore.interfaces import IMessageBus, IShardStore
from ostore.model.errors import BusUnavailable, ShardError
from ostore.model.layouts import Holding
from ostore.model.messages import (
    Answer,
    Answers,
    Locate,
    Locates,
    Shards,
    Signer,
)
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import Tasks, start, succeeded

MAX_ANSWERS = 1000
"""Contents looked for at once; the asker's time-out covers the ones beyond."""

_Found = tuple[str, Shards]


@attrs.define(eq=False)
class _Reply:
    """What was found for one message of many questions and is not said yet."""

    question: Locates
    address: str
    found: list[tuple[int, str, Shards]] = attrs.field(factory=list)


class Answering:
    """Looks for contents in one node, and tells who asked.

    Owned by the node's announcer, which hears the questions and stops it. What is found
    in one turn of the reactor for one message goes back in one message; a content that
    takes longer holds up no other.
    """

    def __init__(
        self,
        bus: IMessageBus,
        signer: Signer,
        clock: Clock,
        node: str,
        store: IShardStore,
    ) -> None:
        self._bus = bus
        self._signer = signer
        self._clock = clock
        self._node = node
        self._store = store
        self._looking = 0
        self._log = Logger()
        self._tasks = Tasks(self._log)

    async def stop(self) -> None:
        """Fall silent."""
        await self._tasks.stop()

    def asked(self, question: Locate | Locates, reply_to: str) -> None:
        """Answer, as far as there is room."""
        if isinstance(question, Locates):
            self._asked_many(question, reply_to)
        elif self._looking < MAX_ANSWERS:
            self._tasks.spawn("answering", partial(self._answer, question, reply_to))

    def _asked_many(self, question: Locates, reply_to: str) -> None:
        reply = _Reply(question, reply_to)
        for place, hash in enumerate(question.hashes):
            if self._looking >= MAX_ANSWERS:
                break
            finding = start(self._find(hash))
            if succeeded(finding):
                reply.found.append((place, *cast("_Found", finding.result)))
            else:
                self._tasks.spawn(
                    "answering", partial(self._add, reply, place, finding)
                )
        if reply.found:
            self._tasks.spawn("answering", partial(self._say, reply))

    async def _answer(self, question: Locate, reply_to: str) -> None:
        state, shards = await self._find(question.hash)
        answer = Answer(question.id, self._node, state, shards)
        await self.send(reply_to, self._signer.seal(answer), question.ttl_ms / 1000)

    async def _add(self, reply: _Reply, place: int, finding: Deferred[_Found]) -> None:
        """Say it with what else is found in the same turn."""
        found = await finding
        reply.found.append((place, *found))
        if len(reply.found) == 1:
            await self._clock.sleep(0)
            await self._say(reply)

    async def _say(self, reply: _Reply) -> None:
        found, reply.found = reply.found, []
        ttl = reply.question.ttl_ms / 1000
        for body in self._sealed(reply.question.id, found):
            await self.send(reply.address, body, ttl)

    def _sealed(
        self, number: str, found: Sequence[tuple[int, str, Shards]]
    ) -> list[bytes]:
        """In as many messages as it takes; what fits in none is unsure."""
        try:
            return [self._signer.seal(Answers(number, self._node, tuple(found)))]
        except ValueError:
            half = len(found) // 2
        if not half:
            return self._sealed(number, [(found[0][0], "unsure", ())])
        return self._sealed(number, found[:half]) + self._sealed(number, found[half:])

    async def _find(self, hash: str) -> _Found:
        self._looking += 1
        try:
            holding = await self._store.find(hash)
        except ShardError:
            holding = Holding("unsure")
        finally:
            self._looking -= 1
        shards = tuple((shard.index, shard.layout) for shard in holding.shards)
        return holding.state, shards

    async def send(self, address: str, body: bytes, ttl: float) -> None:
        """Give it to who asked; a bus that is away is the asker's matter."""
        try:
            await self._bus.send(address, body, ttl)
        except BusUnavailable:
            self._log.debug("answer not sent: the bus is away")
