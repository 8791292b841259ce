"""A channel: calls that wait for their reply, and messages that come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredLock
from txamqp.message import Message

from ostore.backends.bus.amqp.codec import BadFrame
from ostore.backends.bus.amqp.contents import Contents
from ostore.backends.bus.amqp.frames import pack_method
from ostore.backends.bus.amqp.reasons import BrokerLost
from ostore.streaming.tasks import start

if TYPE_CHECKING:
    from ostore.backends.bus.amqp.client import Client

REPLY_TIMEOUT = 5.0
"""Seconds that a broker has for a reply."""


class Channel:
    """One channel of a client, which makes it and ends with it.

    The client adds the methods of AMQP (`queue_declare`, …), which call `invoke`. One
    call waits at a time: a broker may answer two out of order.
    """

    def __init__(self, number: int, client: Client, contents: Contents) -> None:
        self.number = number
        self.contents = contents
        self._client = client
        self._lock = DeferredLock()
        self._expected: list[Any] = []
        self._reply: Deferred[Any] | None = None
        self._ended: BrokerLost | None = None

    def invoke(self, method: Any, arguments: tuple[Any, ...]) -> Deferred[Any]:
        """Send a method; its reply, or None at once when none is due.

        Raises BrokerLost, TimedOut.
        """
        nowait = (
            "nowait" in method.fields.byname
            and arguments[method.fields.index(method.fields.byname["nowait"])]
        )
        return start(
            self._invoke(method, arguments, bool(method.responses) and not nowait)
        )

    async def _invoke(self, method: Any, arguments: Any, waits: bool) -> Any:
        if not waits:
            self._send(method, arguments)
            return None
        await self._lock.acquire()
        try:
            self._send(method, arguments)
            self._expected = method.responses
            self._reply = Deferred()
            return await self._client.clock.within(REPLY_TIMEOUT, self._reply)
        finally:
            self._reply = None
            self._lock.release()

    def _send(self, method: Any, arguments: tuple[Any, ...]) -> None:
        if self._ended is not None:
            raise self._ended
        self._client.send(pack_method(self.number, method, arguments))

    def replied(self, message: Message) -> None:
        """A reply came; for the client. Raises BadFrame when nobody waits for it."""
        waiting = self._reply
        if waiting is None or message.method not in self._expected:
            raise BadFrame("a reply that nobody waits for")
        if not waiting.called:
            waiting.callback(message)

    def end(self, reason: BrokerLost) -> None:
        """No more calls; the one that waits fails."""
        if self._ended is None:
            self._ended = reason
        if self._reply is not None and not self._reply.called:
            self._reply.errback(reason)
