"""The message bus of processes that share a RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.backends.bus.amqp.brokers import (
    ALLOWED,
    Broker,
    endpoint,
    parse,
    trust,
)
from ostore.backends.bus.amqp.client import Client
from ostore.backends.bus.amqp.contents import MAX_BODY
from ostore.backends.bus.amqp.link import Link
from ostore.backends.bus.amqp.reasons import BrokerLost, BrokerRefused
from ostore.backends.bus.amqp.session import REPLY_TO, Session, is_reply_address
from ostore.interfaces import IMessageBus
from ostore.model.errors import BusUnavailable, Malformed
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks

TOPICS: Final = ("apiServers", "dataServers")
HEARTBEAT: Final = 10
"""Seconds."""
MAX_SAID: Final = 20
"""Different reasons that are logged before the bus is up again."""
AWAY: Final = "the message bus is away"
NOT_YET: Final = "no connection to the message bus yet"
NOT_JOINED: Final = "this process has not joined the message bus"


@implementer(IMessageBus)
class AMQPBus:
    """This process upon the bus; owned by the service, from start() to stop().

    `urls` are tried in turn, for ever; `ca` (PEM) vouches for amqps instead of the
    system's authorities. `refused` gets one sentence when a broker refuses user or
    vhost, or cannot show its certificate: trying goes on, but somebody must act. It is
    called once until the bus has been up again. `dropped` counts messages that were
    unfit, or addressed to nobody. Raises Malformed for a bad URL or CA file.
    """

    address = REPLY_TO

    def __init__(
        self,
        clock: Clock,
        reactor: Any,
        entropy: Callable[[int], bytes],
        urls: Sequence[str],
        ca: bytes | None = None,
        *,
        refused: Callable[[str], None] = lambda _: None,
        topics: Sequence[str] = TOPICS,
        heartbeat: int = HEARTBEAT,
    ) -> None:
        if not urls:
            raise Malformed(f"no broker is named; {ALLOWED}")
        root = trust(ca)
        ways = [(b, endpoint(reactor, b, root)) for b in map(parse, urls)]
        self.dropped = 0
        self._clock = clock
        self._topics = topics
        self._heartbeat = heartbeat
        self._refused = refused
        self._told = False
        self._link = Link(
            clock, entropy, ways, self._client, self._prepare, self._failed
        )
        self._session: Session | None = None
        self._joined = False
        self._was_up = False
        self._why = NOT_YET
        self._said: set[str] = set()
        self._silent_since: float | None = None
        self._followed: set[str] = set()
        self._handlers: dict[bytes, list[Callable[[bytes, str], None]]] = {}
        self._listeners: list[Callable[[bytes], None]] = []
        self._watchers: list[Callable[[float], None]] = []
        self._log = Logger()
        self._tasks = Tasks(self._log)

    @property
    def up(self) -> bool:
        """Whether a publish now would go to the broker."""
        return self.trouble is None

    @property
    def trouble(self) -> str | None:
        """Why it is not up, in one sentence; None when it is."""
        if not self._joined:
            return NOT_JOINED
        if self._session is None:
            return self._why
        client = self._session.client
        if client.ended is not None:
            return str(client.ended)
        if client.blocked is not None:
            return f"{client.broker} takes no messages: {client.blocked}"
        if client.full:
            return f"{client.broker} reads too slowly"
        return None

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._joined:
            return
        self._joined = True
        self._why = NOT_YET
        if self._silent_since is None:
            self._silent_since = self._clock.monotonic()
        self._tasks = Tasks(self._log)
        self._tasks.spawn("the link to the message bus", self._link.run)

    async def stop(self) -> None:
        """Leave; returns when the connection is gone."""
        if not self._joined:
            return
        self._joined = False
        self._changed()
        if self._session is not None:
            await self._session.client.close()
        await self._tasks.stop()
        self._session = None

    def subscribe(self, topic: str, handler: Callable[[bytes, str], None]) -> None:
        """Call `handler(body, reply_to)` for each message published to `topic`."""
        self._check_topic(topic)
        self._followed.add(topic)
        self._handlers.setdefault(topic.encode(), []).append(handler)
        session = self._session
        if session is not None:
            self._tasks.spawn("subscribing", lambda: self._follow(session))

    def listen(self, handler: Callable[[bytes], None]) -> None:
        """Call `handler(body)` for each message sent to this member's address."""
        self._listeners.append(handler)

    def on_up(self, handler: Callable[[float], None]) -> None:
        """Call `handler(away)` each time the bus comes up."""
        self._watchers.append(handler)

    async def publish(self, topic: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to every subscriber of `topic`, this member included."""
        self._check_topic(topic)
        session = self._ready(body)
        if session.binding:
            await session.bound()
            session = self._ready(body)
            if session.binding:
                raise BusUnavailable(AWAY)
        session.publish(topic, body, ttl)

    async def send(self, address: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to the member at `address`; dropped if it is gone.

        So is what goes to an address that no handler was given: anything else would
        let a message name any queue of the broker.
        """
        session = self._ready(body)
        if not is_reply_address(address):
            self.dropped += 1
            return
        session.send(address, body, ttl)

    def _check_topic(self, topic: str) -> None:
        if topic not in self._topics:
            raise ValueError(f"the topics of this bus are {', '.join(self._topics)}")

    def _ready(self, body: bytes) -> Session:
        if type(body) is not bytes:
            raise TypeError("a message body is bytes")
        if not 0 < len(body) <= MAX_BODY:
            raise ValueError(f"a message body has 1 to {MAX_BODY} bytes")
        session = self._session
        if session is None or not self.up:
            raise BusUnavailable(AWAY)
        return session

    def _client(self, broker: Broker) -> Client:
        return Client(broker, self._clock, self._heartbeat, self._changed, self._drop)

    async def _prepare(self, client: Client) -> None:
        session = Session(
            client, self._topics, self._followed, self._heard, self._replied
        )
        await session.open()
        self._session = session
        self._told = False
        self._said.clear()
        self._log.info("the message bus is up: {where}", where=str(client.broker))
        self._changed()

    async def _follow(self, session: Session) -> None:
        try:
            await session.bind()
        except (BrokerLost, TimedOut) as error:
            where = session.client.broker
            session.client.abort(BrokerLost(f"{where} did not subscribe us: {error}"))

    def _failed(self, reason: BrokerLost) -> None:
        self._why, self._session = str(reason), None
        if self._joined and self._why not in self._said and len(self._said) < MAX_SAID:
            self._said.add(self._why)
            self._log.warn("the message bus is away: {why}", why=self._why)
        self._changed()
        if isinstance(reason, BrokerRefused) and not self._told:
            self._told = True
            self._guarded(self._refused, self._why)

    def _changed(self) -> None:
        up = self.up
        if up == self._was_up:
            return
        self._was_up = up
        now = self._clock.monotonic()
        if up:
            away = 0.0 if self._silent_since is None else now - self._silent_since
            for watcher in self._watchers:
                self._guarded(watcher, away)
            return
        session = self._session
        lost = session is not None and session.client.ended is not None
        self._silent_since = session.client.heard if session and lost else now

    def _heard(self, exchange: bytes, reply_to: bytes, body: bytes) -> None:
        handlers = self._handlers.get(exchange)
        if handlers is None or not reply_to.isascii():
            self._drop()
            return
        address = reply_to.decode("ascii")
        for handler in handlers:
            if self._joined:
                self._guarded(handler, body, address)

    def _replied(self, exchange: bytes, reply_to: bytes, body: bytes) -> None:
        for listener in self._listeners:
            if self._joined:
                self._guarded(listener, body)

    def _drop(self) -> None:
        self.dropped += 1

    def _guarded(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:  # noqa: BLE001 - logged; the others still get theirs
            self._log.failure("a handler of the bus failed", Failure())  # type: ignore[no-untyped-call]  # untyped in Twisted
