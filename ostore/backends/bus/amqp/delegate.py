"""What a broker says of its own accord, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from txamqp import delegate

from ostore import __version__
from ostore.backends.bus.amqp.codec import BadFrame
from ostore.backends.bus.amqp.frames import FRAME_MAX
from ostore.backends.bus.amqp.reasons import (
    BrokerLost,
    BrokerRefused,
    closed_by_broker,
    printable,
)

if TYPE_CHECKING:
    from ostore.backends.bus.amqp.channel import Channel
    from ostore.backends.bus.amqp.client import Client

PROPERTIES: Final = {
    "product": "ostore",
    "version": __version__,
    "platform": "Python, Twisted, txAMQP",
    "capabilities": {
        "authentication_failure_close": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
    },
}
FRAME_MIN: Final = 4096
"""Bytes of the largest frame that a broker must take (AMQP 0-9-1)."""
FIRST: Final = frozenset(("start", "tune"))
"""Methods of a connection that belong to its login."""


class Delegate(delegate.Delegate):  # type: ignore[misc]  # txAMQP has no types
    """The broker's own words, one method each; a method without one is refused.

    Made and called by its Client.
    """

    client: Client

    def dispatch(self, channel: Channel, message: Any) -> None:
        """Call the method for the message. Raises BadFrame."""
        method = message.method
        name = f"{method.klass.name}_{method.name}"
        started = self.client.tuned
        if not hasattr(self, name) or (method.name in FIRST and started):
            raise BadFrame(f"{method.klass.name}.{method.name} out of place")
        super().dispatch(channel, message)

    def connection_start(self, channel: Any, message: Any) -> None:
        """Log in, if by PLAIN is a way."""
        broker = self.client.broker
        if b"PLAIN" not in message.mechanisms.split():
            self.client.abort(
                BrokerRefused(f"{broker} does not take a password (PLAIN) to log in")
            )
            return
        channel.connection_start_ok(
            client_properties=PROPERTIES,
            mechanism="PLAIN",
            response=f"\0{broker.user}\0{broker.password}",
            locale="en_US",
        )

    def connection_tune(self, channel: Any, message: Any) -> None:
        """Agree on the size of frames and the pulse: the smaller of both."""
        size = min(message.frame_max or FRAME_MAX, FRAME_MAX)
        if size < FRAME_MIN:
            raise BadFrame(f"frames of {size} bytes are too small")
        ours = self.client.heartbeat
        pulse = min(message.heartbeat or ours, ours)
        channel.connection_tune_ok(
            channel_max=message.channel_max, frame_max=size, heartbeat=pulse
        )
        self.client.tune(size, pulse)

    def connection_close(self, channel: Any, message: Any) -> None:
        """The broker ends the connection."""
        channel.connection_close_ok()
        self.client.leave(closed_by_broker(str(self.client.broker), message))

    def connection_blocked(self, channel: Channel, message: Any) -> None:
        """The broker is short of memory or disk: it reads nothing more from us."""
        self.client.block(printable(message.reason))

    def connection_unblocked(self, channel: Channel, message: Any) -> None:
        """The broker reads again."""
        self.client.block(None)

    def channel_flow(self, channel: Any, message: Any) -> None:
        """The broker asks for silence, or for an end of it."""
        channel.channel_flow_ok(active=message.active)
        self.client.block(None if message.active else "flow control")

    def channel_close(self, channel: Any, message: Any) -> None:
        """The broker ends a channel: all is declared again on a new connection."""
        channel.channel_close_ok()
        self.client.leave(closed_by_broker(str(self.client.broker), message))

    def basic_cancel(self, channel: Channel, message: Any) -> None:
        """The broker ends a consumer: its queue is gone."""
        self.client.leave(
            BrokerLost(f"{self.client.broker} removed the queue of this process")
        )
