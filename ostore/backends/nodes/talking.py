"""Keeping a conversation with each node: begun when needed, never waited for."""

from __future__ import annotations

from collections.abc import Callable

from ostore.backends.nodes.asking import Ask, Exchange, Peer, WrongTime
from ostore.backends.nodes.conversation import Conversation
from ostore.backends.nodes.pool import Address
from ostore.backends.nodes.records import (
    ANSWER_ROOM,
    CREDIT,
    LEAST_ASKED,
    PROTOCOL,
    SALT,
    TARGET,
    Credit,
)
from ostore.model.errors import NodeUnreachable, ShardError, ShardRefused
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import Tasks

WANTED = Credit(operations=512, bytes=16 << 20)
"""What one conversation has under way at most, whatever the node grants."""
FIRST, LONGEST = 0.1, 10.0
"""Seconds until the next try after a failed one: doubled each time, with chance."""
OLDER = 60.0
"""Seconds until a node is asked again that does not know conversations."""


class Talk:
    """The conversation with one node, made anew when it ended; owned by its store.

    `now` never waits: whoever finds none makes an ordinary request. The next
    try after a failure waits longer each time; a new address of the node ends the wait,
    and the conversation at the old one.
    """

    def __init__(
        self,
        peer: Peer,
        clock: Clock,
        tasks: Tasks,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._peer = peer
        self._clock = clock
        self._tasks = tasks
        self._entropy = entropy
        self._address: Address | None = None
        self._conversation: Conversation | None = None
        self._all: set[Conversation] = set()
        self._beginning = False
        self._pause = 0.0
        self._not_before = 0.0
        self._before = 0
        self._stopped = False

    @property
    def stands(self) -> bool:
        """Whether there is one."""
        return self._conversation is not None

    @property
    def ready(self) -> bool:
        """Whether a small question can be asked in it; begins it if need be."""
        current = self.now()
        return current is not None and current.fits(ANSWER_ROOM + LEAST_ASKED)

    @property
    def operations(self) -> int:
        """Asked in all conversations so far."""
        return self._before + sum(each.operations for each in self._all)

    def now(self) -> Conversation | None:
        """The conversation, if it stands; else one is begun beside the caller.

        Raises NodeUnreachable for a node whose address is not known.
        """
        address = self._peer.address
        if address is not self._address:
            self._address = address
            if self._conversation is not None:
                self._conversation.leave()
            self._pause = self._not_before = 0.0
        current = self._conversation
        if current is not None and current.open:
            return current
        if not self._beginning and self._clock.monotonic() >= self._not_before:
            self._beginning = True
            self._tasks.spawn("beginning a conversation", self.begin)
        return None

    async def begin(self) -> None:
        """Try once; what fails is known by the next caller of now()."""
        self._beginning = True
        try:
            self._address = self._peer.address
            await self._begin()
        except ShardRefused:
            self._wait(OLDER)
        except ShardError:
            self._failed()
        finally:
            self._beginning = False

    def stop(self) -> None:
        """End it, and begin no other."""
        self._stopped = True
        for each in list(self._all):
            each.end()

    async def _begin(self) -> None:
        ask = Ask("GET", TARGET, {"Connection": "Upgrade", "Upgrade": PROTOCOL})
        try:
            await self._switch(await self._peer.begin(ask))
        except WrongTime:
            await self._switch(await self._peer.begin(ask))

    async def _switch(self, exchange: Exchange) -> None:
        """Speak frames on the connection, if that is what the node answers."""
        try:
            connection, headers = await exchange.switched(PROTOCOL)
            try:
                credit = Credit.parse(headers[CREDIT.lower()]).least(WANTED)
                salt = bytes.fromhex(headers[SALT.lower()])
            except (KeyError, ValueError):
                raise NodeUnreachable("the node's answer begins nothing") from None
            if self._stopped:
                raise NodeUnreachable("the service is stopping")
        except BaseException:
            exchange.close()
            raise

        def over(silent: bool) -> None:
            if silent:
                exchange.distrust()
            exchange.close()
            self._ended(made)

        key = self._peer.conversation_key(exchange, salt)
        made = Conversation(
            connection, key, credit, self._clock, self._peer.clock_shows, over
        )
        self._all.add(made)
        self._conversation = made
        made.begin()

    def _ended(self, conversation: Conversation) -> None:
        self._all.discard(conversation)
        self._before += conversation.operations
        if self._conversation is conversation:
            self._conversation = None
        if conversation.answered:
            self._pause = 0.0
        else:
            self._failed()

    def _failed(self) -> None:
        self._pause = min(LONGEST, max(FIRST, 2 * self._pause))
        self._wait(self._pause)

    def _wait(self, seconds: float) -> None:
        """Not before so long, give or take a quarter: apis shall not come all at once."""
        chance = int.from_bytes(self._entropy(2), "big") / 0xFFFF
        pause = seconds * (0.75 + chance / 2)
        self._not_before = self._clock.monotonic() + pause
