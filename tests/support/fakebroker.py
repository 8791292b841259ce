"""As much of a RabbitMQ as the bus uses, in memory, and willing to misbehave."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from ostore.backends.bus.amqp import frames
from ostore.backends.bus.amqp.spec import SPEC
from tests.support.fakenet import FakeNet

REPLY_TO = "amq.rabbitmq.reply-to"
DEFAULTS = {"bit": False, "table": {}, "shortstr": "", "longstr": b""}


def packed(number: int, name: str, **given: Any) -> bytes:
    """The frame of a method, with zeros and blanks for what is not given."""
    method = SPEC.parse_method(name)
    arguments = (
        given.get(field.name.replace("-", "_"), DEFAULTS.get(field.type, 0))
        for field in method.fields
    )
    return frames.pack_method(number, method, tuple(arguments))


def content(number: int, body: bytes, reply_to: str = "") -> bytes:
    """Header and body frames."""
    return frames.pack_content(number, body, reply_to, None, 4088)


class FakeBroker:
    """All its connections, exchanges and queues; a test turns its knobs."""

    def __init__(self, net: FakeNet, port: int = 5672) -> None:
        self.net = net
        self.port = port
        self.password = "guest"
        self.vhosts = {"/"}
        self.mechanisms = b"AMQPLAIN PLAIN"
        self.frame_max = 131_072
        self.heartbeat = 60
        self.refuses: dict[str, tuple[int, str]] = {}
        self.silent: set[str] = set()
        self.banner = b""
        self.exchanges: dict[str, set[str]] = {}
        self.queues: dict[str, tuple[Connection, int, str]] = {}
        self.connections: list[Connection] = []
        self.said: list[str] = []
        self.arguments: dict[str, Any] = {}
        self.headers: list[bytes] = []
        self.count = 0
        self.made = 0
        self.open()

    def open(self) -> None:
        """Accept connections."""
        self.net.servers[self.port] = lambda: Connection(self)

    def shut(self) -> None:
        """Refuse connections and drop those there are, as when it is killed."""
        self.net.servers.pop(self.port, None)
        for each in list(self.connections):
            each.transport.abortConnection()  # type: ignore[union-attr]  # an End

    def tell(self, number: int, name: str, **given: Any) -> None:
        """Send a method on that channel of every connection."""
        for each in list(self.connections):
            each.tell(number, name, **given)

    def raw(self, data: bytes) -> None:
        """Send bytes on every connection."""
        for each in list(self.connections):
            each.transport.write(data)  # type: ignore[union-attr]  # an End


class Connection(Protocol):
    """One connection to the fake, and what it has declared."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.address = ""
        self.replies: int | None = None
        self._frames: frames.Frames | None = None
        self._message: tuple[str, str] = ("", "")
        self._reply_to = ""
        self._missing = 0
        self._body = b""

    def connectionMade(self) -> None:
        """Count it."""
        self.broker.count += 1
        self.address = f"{REPLY_TO}.{self.broker.count}"
        self.broker.connections.append(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """What was its own is gone."""
        self.broker.connections.remove(self)
        for name, (owner, _, _) in list(self.broker.queues.items()):
            if owner is self:
                del self.broker.queues[name]
                for bound in self.broker.exchanges.values():
                    bound.discard(name)

    def tell(self, number: int, name: str, **given: Any) -> None:
        """Send a method."""
        self.transport.write(packed(number, name, **given))  # type: ignore[union-attr]  # an End

    def dataReceived(self, data: bytes) -> None:
        """Frames behind the greeting."""
        if self._frames is None:
            if self.broker.banner:
                self.transport.write(self.broker.banner)  # type: ignore[union-attr]  # an End
                return
            assert data.startswith(frames.PROTOCOL)
            data = data[len(frames.PROTOCOL) :]
            self._frames = frames.Frames()
            if "connection.start" not in self.broker.silent:
                self.tell(
                    0,
                    "connection.start",
                    version_minor=9,
                    server_properties={"product": "fake", "capabilities": {"x": True}},
                    mechanisms=self.broker.mechanisms,
                    locales=b"en_US",
                )
        for kind, number, payload in self._frames.feed(data):
            if kind == frames.METHOD:
                self._method(number, payload)
            elif kind == frames.HEADER:
                self._header(payload)
            elif kind == frames.BODY:
                self._piece(payload)

    def _method(self, number: int, payload: bytes) -> None:
        method, values = frames.unpack_method(payload)
        names = (field.name.replace("-", "_") for field in method.fields)
        given = dict(zip(names, values, strict=True))
        name = f"{method.klass.name}.{method.name}"
        self.broker.said.append(name)
        self.broker.arguments[name] = given
        if name in self.broker.silent:
            return
        if name in self.broker.refuses:
            code, text = self.broker.refuses[name]
            kind = "connection" if number == 0 else "channel"
            self.tell(number, f"{kind}.close", reply_code=code, reply_text=text)
            return
        answer = getattr(self, "_" + name.replace(".", "_").replace("-", "_"), None)
        if answer is not None:
            answer(number, **given)
        elif method.responses:
            self.tell(number, f"{method.klass.name}.{method.responses[0].name}")

    def _connection_start_ok(self, number: int, response: bytes, **_: Any) -> None:
        if response.split(b"\0")[2].decode() != self.broker.password:
            self.tell(
                0, "connection.close", reply_code=403, reply_text="ACCESS_REFUSED"
            )
            return
        self.tell(
            0,
            "connection.tune",
            channel_max=2047,
            frame_max=self.broker.frame_max,
            heartbeat=self.broker.heartbeat,
        )

    def _connection_tune_ok(self, number: int, frame_max: int, **_: Any) -> None:
        assert self._frames is not None
        self._frames.limit = frame_max - frames.OVERHEAD

    def _connection_open(self, number: int, virtual_host: str, **_: Any) -> None:
        if virtual_host in self.broker.vhosts:
            self.tell(0, "connection.open-ok")
        else:
            self.tell(0, "connection.close", reply_code=530, reply_text="NOT_ALLOWED")

    def _connection_close_ok(self, number: int, **_: Any) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]  # an End

    def _exchange_declare(self, number: int, exchange: str, **_: Any) -> None:
        self.broker.exchanges.setdefault(exchange, set())
        self.tell(number, "exchange.declare-ok")

    def _queue_declare(self, number: int, **_: Any) -> None:
        self.broker.made += 1
        name = f"amq.gen-{self.broker.made}"
        self.broker.queues[name] = self, number, ""
        self.tell(number, "queue.declare-ok", queue=name)

    def _queue_bind(self, number: int, queue: str, exchange: str, **_: Any) -> None:
        self.broker.exchanges[exchange].add(queue)
        self.tell(number, "queue.bind-ok")

    def _basic_consume(
        self, number: int, queue: str, consumer_tag: str, no_ack: bool, **_: Any
    ) -> None:
        assert no_ack
        if queue == REPLY_TO:
            self.replies = number
        else:
            self.broker.queues[queue] = self, number, consumer_tag
        self.tell(number, "basic.consume-ok", consumer_tag=consumer_tag)

    def _basic_publish(
        self, number: int, exchange: str, routing_key: str, **_: Any
    ) -> None:
        self._message = exchange, routing_key

    def _header(self, payload: bytes) -> None:
        self._missing, reply_to = frames.read_header(payload)
        self.broker.headers.append(payload)
        self._reply_to = self.address if reply_to == REPLY_TO.encode() else ""
        self._body = b""

    def _piece(self, payload: bytes) -> None:
        self._body += payload
        self._missing -= len(payload)
        if self._missing:
            return
        exchange, key = self._message
        if exchange:
            for name in list(self.broker.exchanges[exchange]):
                self.broker.queues[name][0].deliver(
                    self.broker.queues[name][1], exchange, self._body, self._reply_to
                )
            return
        for other in self.broker.connections:
            if other.address == key and other.replies is not None:
                other.deliver(other.replies, "", self._body, "")

    def deliver(self, number: int, exchange: str, body: bytes, reply_to: str) -> None:
        """Send a message to a consumer on that channel."""
        self.tell(number, "basic.deliver", consumer_tag="any", exchange=exchange)
        self.transport.write(content(number, body, reply_to))  # type: ignore[union-attr]  # an End
