"""Conversations: many small operations at once on one connection, instead of HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from ostore.backends.nodes.operations import Status, room_of
from ostore.backends.nodes.records import (
    CREDIT,
    LEAST_ASKED,
    PROTOCOL,
    SALT,
    Credit,
    Cutter,
    answered,
    unsealed,
)
from ostore.model.errors import Malformed, Unavailable
from ostore.model.signing import Proven
from ostore.streaming.channel import StreamingChannel
from ostore.streaming.clock import Clock
from ostore.streaming.problem import Problem
from ostore.streaming.resource import Call, Resource
from ostore.streaming.tasks import start
from ostore.web.data.operations import Operations, Parts
from ostore.web.data.parameters import Query

GRANTED: Final = Credit(operations=1024, bytes=32 << 20)
"""What one caller may have under way."""
MOST = 256
"""Conversations with one node."""


class Conversations:
    """All conversations of one node; made once by its face."""

    def __init__(
        self,
        operations: Operations,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.operations = operations
        self.clock = clock
        self.entropy = entropy
        self.broken = 0
        """Cut for what they sent."""
        self._open: set[Conversation] = set()
        self._log = Logger()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, conversation: Conversation) -> None:
        """One more."""
        self._open.add(conversation)

    def ended(self, conversation: Conversation, why: str | None) -> None:
        """One less; `why` says what the caller did wrong."""
        self._open.discard(conversation)
        if why is not None:
            self.broken += 1
            self._log.warn("a conversation was cut: {why}", why=why)


class Beginning(Resource):
    """`/frames`; made by the router for one request, whose signature fits."""

    allowed = ("GET",)

    def __init__(self, conversations: Conversations, proven: Proven) -> None:
        self._all = conversations
        self._proven = proven

    async def get(self, call: Call) -> None:
        """101, and from then on records."""
        Query(call)
        if call.body.length != 0:
            raise Malformed("the request that begins a conversation has no body")
        if call.header("Upgrade") != PROTOCOL:
            detail = f"what is spoken here is {PROTOCOL}"
            headers = {"Upgrade": PROTOCOL, "Connection": "Upgrade"}
            raise Problem(426, detail, slug="upgrade-required", headers=headers)
        if len(self._all) >= MOST:
            raise Unavailable("there are too many conversations")
        salt = self._all.entropy(16)
        key = self._proven.conversation_key(salt)
        headers = {SALT: salt.hex(), CREDIT: GRANTED.header()}
        call.reply.switch(
            PROTOCOL, headers, lambda channel: Conversation(self._all, channel, key)
        )


class Conversation:
    """One caller's operations, each answered when it is done; ends with its connection.

    What comes must bear the right seal and the next number, and keep within the credit:
    else the connection is cut. While the caller takes no answers nothing more is read,
    so what is held for it is bounded by its credit.
    """

    def __init__(
        self, conversations: Conversations, channel: StreamingChannel, key: bytes
    ) -> None:
        self._all = conversations
        self._channel = channel
        self._key = key
        self._cutter = Cutter(LEAST_ASKED)
        self._last = 0
        self._under_way = 0
        self._lent = 0
        self._leaving = False
        self._why: str | None = None
        self._gone = False
        conversations.add(self)

    @property
    def owes(self) -> bool:
        """Whether the caller has to send something, or to go."""
        return self._cutter.inside or not self._under_way

    def took(self, data: bytes) -> None:
        """Begin what came."""
        if self._why is not None:
            return
        try:
            for record in self._cutter.feed(data):
                self._take(record)
        except ValueError as error:
            self._why = str(error)
            self._channel.abort()

    def leave(self) -> None:
        """Tell the caller to take its operations elsewhere, and cut who stays."""
        if self._leaving and not self._under_way:
            self._channel.abort()
        self._leaving = True
        self._say(0, Status.LEAVING)

    def lost(self) -> None:
        """What is under way goes on; its answers are dropped."""
        self._gone = True
        self._all.ended(self, self._why)

    def _take(self, record: bytes) -> None:
        """Begin one operation. Raises ValueError."""
        number, operation, data = unsealed(self._key, record)
        cost = len(data) + room_of(operation, data)
        if number != self._last + 1:
            raise ValueError("an operation came out of its turn")
        if self._under_way >= GRANTED.operations or self._lent + cost > GRANTED.bytes:
            raise ValueError("the credit was exceeded")
        self._last = number
        self._under_way += 1
        self._lent += cost
        _ = start(self._serve(number, operation, data, cost))

    async def _serve(
        self, number: int, operation: int, data: memoryview, cost: int
    ) -> None:
        try:
            status, parts = await self._all.operations.run(operation, data)
            self._say(number, status, parts)
        finally:
            self._under_way -= 1
            self._lent -= cost

    def _say(self, number: int, status: int, parts: Parts = ()) -> None:
        if not self._gone:
            now = self._all.clock.wall()
            self._channel.send(answered(number, status, now, parts))
