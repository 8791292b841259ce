"""One connection to a broker: its login, its frames, its pulse, its end."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from txamqp.client import TwistedEvent
from txamqp.message import Message
from txamqp.protocol import AMQClient

from ostore.backends.bus.amqp import frames
from ostore.backends.bus.amqp.brokers import Broker
from ostore.backends.bus.amqp.channel import Channel
from ostore.backends.bus.amqp.codec import BadFrame
from ostore.backends.bus.amqp.contents import DELIVER, Contents, Take
from ostore.backends.bus.amqp.delegate import Delegate
from ostore.backends.bus.amqp.outflow import Outflow
from ostore.backends.bus.amqp.reasons import BrokerLost, BrokerRefused, lost
from ostore.backends.bus.amqp.spec import SPEC
from ostore.streaming.clock import Clock, TimedOut

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a broker has to take leave."""
SILENCES: Final = 2
"""Heartbeat periods without a byte after which a broker is dead."""

CLEANLY: Final = Failure(ConnectionDone())  # type: ignore[no-untyped-call]  # untyped in Twisted
_BoundChannel: Final = type("BoundChannel", (Channel, SPEC.klass), {})


class Client(AMQClient):  # type: ignore[misc]  # txAMQP has no types
    """txAMQP's client with its own way to read, write, wait and end.

    Made by the Link for one attempt. `over` fires as soon as nothing more can be done
    with it, `disconnected` when the transport is gone. `changed` is called when
    `blocked`, `full` or `ended` may have changed; `dropped` is called for each message
    that is unfit.
    """

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        heartbeat: int,
        changed: Callable[[], None],
        dropped: Callable[[], None],
    ) -> None:
        super().__init__(Delegate(), broker.vhost, SPEC, clock=clock.timers)
        self.broker = broker
        self.clock = clock
        self.heard = clock.monotonic()
        self.tuned = False
        self.over = TwistedEvent()
        self.blocked: str | None = None
        self.ended: BrokerLost | None = None
        self.heartbeat = heartbeat
        self.changed = changed
        self._drop = dropped
        self.limit = frames.FRAME_MAX - frames.OVERHEAD
        self._frames = frames.Frames()
        self._channels: dict[int, Any] = {}
        self._outflow: Outflow | None = None
        self._pulse: IDelayedCall | None = None
        self._log = Logger()

    @property
    def full(self) -> bool:
        """Whether too much waits to be sent."""
        return self._outflow is not None and self._outflow.full

    def connectionMade(self) -> None:
        """Say which protocol; the broker begins the login."""
        self._outflow = Outflow(self.transport, self.changed)
        self._add(0, self._unwanted)
        self.send(frames.PROTOCOL)

    async def login(self) -> None:
        """Wait until the broker has let us in. Raises BrokerLost, TimedOut."""
        await self.started.wait()
        await self._channels[0].connection_open(virtual_host=self.vhost)
        self._beat()

    async def open_channel(self, number: int, take: Take) -> Any:
        """A new Channel with AMQP's methods; its messages go to `take`."""
        channel = self._add(number, take)
        await channel.channel_open()
        return channel

    def send(self, data: bytes) -> None:
        """Write whole frames. Raises BrokerLost when the connection is over."""
        if self.ended is not None or self._outflow is None:
            raise self.ended or BrokerLost(f"{self.broker} is not connected")
        self._outflow.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Called by the transport."""
        self.heard = self.clock.monotonic()
        try:
            for kind, number, payload in self._frames.feed(data):
                if self.ended is not None:
                    return
                if kind != frames.HEARTBEAT:
                    self._take(kind, self._channels[number], payload)
        except (BadFrame, KeyError, IndexError, struct.error) as error:
            if data.startswith(b"AMQP") and not self.tuned:
                reason: BrokerLost = BrokerRefused(
                    f"{self.broker} does not speak AMQP 0-9-1"
                )
            else:
                reason = BrokerLost(f"{self.broker} broke the protocol: {error}")
            self.abort(reason)

    def _take(self, kind: int, channel: Channel, payload: bytes) -> None:
        if kind == frames.HEADER:
            channel.contents.header(payload)
        elif kind == frames.BODY:
            channel.contents.body(payload)
        elif payload.startswith(DELIVER):
            channel.contents.begin(payload)
        else:
            method, arguments = frames.unpack_method(payload)
            message = Message(method, arguments)
            if method.response:
                channel.replied(message)
            elif method.content:
                channel.contents.skip()
            else:
                self.delegate.dispatch(channel, message)

    def tune(self, frame_max: int, heartbeat: int) -> None:
        """What both ends agreed on; for the delegate."""
        self.tuned = True
        self.limit = self._frames.limit = frame_max - frames.OVERHEAD
        self.heartbeat = heartbeat
        self.started.fire()

    def block(self, reason: str | None) -> None:
        """The broker takes no messages, or does again; for the delegate."""
        self.blocked = reason
        self.changed()

    async def close(self) -> None:
        """Take leave of the broker, within two seconds; returns when all is over."""
        try:
            if self.ended is None and self.tuned:
                farewell = self._channels[0].connection_close(reply_code=200)
                await self.clock.within(CLOSE_TIMEOUT, farewell)
        except (BrokerLost, TimedOut):
            self._log.debug("left a broker that did not say good-bye")
        finally:
            self.abort(BrokerLost(f"{self.broker} was left"))
        try:
            await self.clock.within(CLOSE_TIMEOUT, self.disconnected.wait())
        except TimedOut:
            self._log.warn("{where} does not let go", where=str(self.broker))

    def leave(self, reason: BrokerLost) -> None:
        """End the connection once everything is written."""
        self._end(reason)
        self.transport.loseConnection()

    def abort(self, reason: BrokerLost) -> None:
        """End the connection at once."""
        self._end(reason)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = CLEANLY) -> None:
        """Called by the transport."""
        self._end(lost(str(self.broker), reason.value, reached=True))
        self.disconnected.fire()

    def _end(self, reason: BrokerLost) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
        if self._outflow is not None:
            self._outflow.end()
        for channel in self._channels.values():
            channel.end(reason)
        self.started.fail_if_not_fired(reason)
        self.over.fire()
        self.changed()

    def _beat(self) -> None:
        """Twice a period: say that we live, and see whether the broker does."""
        self._pulse = None
        if self.clock.monotonic() - self.heard > SILENCES * self.heartbeat:
            self.abort(BrokerLost(f"{self.broker} fell silent"))
            return
        outflow = self._outflow
        if self.ended is not None or outflow is None:
            return
        if not outflow.wrote:
            outflow.write(frames.PULSE)
        outflow.wrote = False
        self._pulse = self.clock.call_later(self.heartbeat / 2, self._beat)

    def _add(self, number: int, take: Take) -> Any:
        contents = Contents(take, self._drop)
        channel = _BoundChannel(number, self, contents)
        self._channels[number] = channel
        return channel

    def _unwanted(self, exchange: bytes, reply_to: bytes, body: bytes) -> None:
        self._drop()
