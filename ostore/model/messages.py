"""What travels on the bus: signed JSON, checked field by field.

An envelope is `{"v": 1, "body": "<JSON text>", "mac": "<hex>"}` with an HMAC-SHA256
over the text's UTF-8 bytes; its key comes from the cluster secret by HKDF-SHA256
(RFC 5869), so that a signature of the bus opens nothing else. Unknown fields are
ignored. Whatever else is wrong with a message makes it a BadMessage.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostore.model.errors import Malformed, OstoreError
from ostore.model.layouts import MAX_SHARDS, MAX_SIZE, Layout
from ostore.model.nodes import SERVING, Boot, Heartbeat

MAX_MESSAGE = 64 * 1024
"""Bytes of a sealed message."""
MAX_TTL = 600_000
"""The longest time to live of a locate, in milliseconds."""
MAX_TEXT = 1024
"""Characters of a URL, a zone, an address."""

_MAX_INTEGER = (1 << 63) - 1
_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{1,64}")
_RANDOM = re.compile(r"[0-9a-f]{16}")
_LAYOUT = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
_MAYBE_NAME = re.compile(r"[0-9A-Za-z_-]{0,64}")
_CAPABILITY = re.compile(r"[\x21-\x7e]{1,64}")
_HOLDING = frozenset({"have", "none", "unsure"})
_MIN_SECRET = 32
_REMEMBERED, _REMEMBERED_SIZE = 1024, 4096
"""How many messages a signer remembers to have sealed, and of which size at most."""


class BadMessage(OstoreError):
    """Not a message of this cluster: to be counted and dropped."""


@attrs.frozen
class Locate:
    """Who holds this content? Every node answers to `reply_to` within `ttl_ms`."""

    hash: str
    id: str
    ttl_ms: int
    reply_to: str


@attrs.frozen
class Hello:
    """Somebody is new here: every node sends a heartbeat at once."""

    reply_to: str


@attrs.frozen
class Claim:
    """A node is about to start under this id; a live holder of it answers Taken."""

    node: str
    boot: Boot
    reply_to: str


@attrs.frozen
class Answer:
    """What a node holds of the content that the locate `id` asked for.

    `state` is `have`, `none` or `unsure`; `shards` are index and layout.
    """

    id: str
    node: str
    state: str
    shards: tuple[tuple[int, Layout], ...] = ()


@attrs.frozen
class Taken:
    """The node id of a claim is alive already, in this boot."""

    node: str
    boot: Boot


Message = Heartbeat | Locate | Hello | Claim | Answer | Taken


class Signer:
    """Seals messages with the first secret and opens those of any.

    Made once by the service from the lines of its secret file; holds only keys.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("a signer needs at least one secret")
        keys = (
            HKDF(SHA256(), length=32, salt=None, info=b"ostore bus 1").derive(secret)
            for secret in secrets
        )
        # Copied for each message: cheaper than a key schedule, and a short update
        # does not let go of the interpreter lock as hmac.digest() does.
        self._keys = [hmac.new(key, digestmod="sha256") for key in keys]
        self._sealed: dict[bytes, Message] = {}

    def seal(self, message: Message) -> bytes:
        """The message as it goes on the bus; ValueError when it is too long."""
        text = _encode(_fields_of(message))
        mac = self._mac(self._keys[0], text.encode("ascii")).hex()
        sealed = _encode({"v": 1, "body": text, "mac": mac}).encode("ascii")
        if len(sealed) > MAX_MESSAGE:
            raise ValueError(f"a message has at most {MAX_MESSAGE} bytes")
        if len(sealed) <= _REMEMBERED_SIZE:
            if len(self._sealed) >= _REMEMBERED:
                self._sealed.clear()
            self._sealed[sealed] = message
        return sealed

    def open(self, body: bytes) -> Message:
        """The message in `body`. Raises BadMessage, and nothing else.

        What this very signer sealed a moment ago is not read anew: on a bus within
        one process that is every message.
        """
        if (ours := self._sealed.get(body)) is not None:
            return ours
        if len(body) > MAX_MESSAGE:
            raise BadMessage("a message is too long")
        try:
            envelope = _object(_text(body))
            text = envelope.text("body", MAX_MESSAGE)
            signed = text.encode("utf-8")
        except UnicodeError:
            raise BadMessage("a message is not UTF-8") from None
        if envelope.integer("v", 0) != 1:
            raise BadMessage("a message has a version that is not known")
        mac = bytes.fromhex(envelope.match("mac", _HASH))
        if not any(
            hmac.compare_digest(self._mac(key, signed), mac) for key in self._keys
        ):
            raise BadMessage("a message has a wrong signature")
        return _message(_object(text))

    @staticmethod
    def _mac(key: hmac.HMAC, text: bytes) -> bytes:
        mac = key.copy()
        mac.update(text)
        return mac.digest()


def secret_lines(text: str) -> list[bytes]:
    """The secrets in a secret file, one a line. Raises Malformed."""
    lines = [line for each in text.splitlines() if (line := each.strip())]
    if not lines or any(len(line) < _MIN_SECRET for line in lines):
        raise Malformed(
            f"a secret file has one or more lines of at least {_MIN_SECRET} characters"
        )
    return [line.encode("utf-8", "surrogateescape") for line in lines]


@attrs.frozen
class _Fields:
    """A JSON object whose fields are checked as they are read."""

    values: Mapping[str, Any]

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        """A string of at most `limit` characters."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > limit:
            raise BadMessage(f"{name} is not a text of at most {limit} characters")
        return value

    def line(self, name: str) -> str:
        """A string without control characters."""
        value = self.text(name)
        if not value.isprintable():
            raise BadMessage(f"{name} holds control characters")
        return value

    def match(self, name: str, pattern: re.Pattern[str]) -> str:
        """A string of that form."""
        return _match(name, self.values.get(name), pattern)

    def choice(self, name: str, allowed: frozenset[str]) -> str:
        """One of these strings."""
        value = self.text(name)
        if value not in allowed:
            raise BadMessage(f"{name} is none of the values that are known")
        return value

    def integer(self, name: str, low: int, high: int = _MAX_INTEGER) -> int:
        """A whole number low <= n <= high."""
        return _integer(name, self.values.get(name), low, high)

    def seconds(self, name: str) -> float:
        """Seconds since 1970, whole or not."""
        value = self.values.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or not number or not 0 <= value <= _MAX_INTEGER:
            raise BadMessage(f"{name} is not a time")
        return float(value)

    def items(self, name: str, limit: int) -> list[Any]:
        """A list of at most `limit` items."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > limit:
            raise BadMessage(f"{name} is not a list of at most {limit} items")
        return value

    def boot(self) -> Boot:
        """The start of a node: counter and chance."""
        pair = self.items("boot", 2)
        if len(pair) != 2:
            raise BadMessage("boot is not a pair")
        return Boot(_integer("boot", pair[0], 0), _match("boot", pair[1], _RANDOM))

    def shard(self, item: object) -> tuple[int, Layout]:
        """Index and layout from [index, layout id, k, m, size]."""
        if not isinstance(item, list) or len(item) != 5:
            raise BadMessage("a shard is not a list of five")
        data = _integer("k", item[2], 1, MAX_SHARDS)
        parity = _integer("m", item[3], 0, MAX_SHARDS - data)
        size = _integer("size", item[4], 0, MAX_SIZE)
        layout = Layout(data, parity, size, _match("layout", item[1], _LAYOUT))
        return _integer("index", item[0], 0, layout.shards - 1), layout


def _integer(name: str, value: object, low: int, high: int = _MAX_INTEGER) -> int:
    if type(value) is not int or not low <= value <= high:
        raise BadMessage(f"{name} is not a whole number from {low} to {high}")
    return value


def _match(name: str, value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise BadMessage(f"{name} does not have its form")
    return value


def _text(body: bytes) -> str:
    return body.decode("utf-8")


def _no_constant(_: str) -> NoReturn:
    raise ValueError("JSON has no such number")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _object(text: str) -> _Fields:
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        raise BadMessage("a message is not JSON") from None
    if not isinstance(value, dict):
        raise BadMessage("a message is not a JSON object")
    return _Fields(value)


def _message(fields: _Fields) -> Message:
    reader = _READERS.get(fields.text("type"))
    if reader is None:
        raise BadMessage("a message has a type that is not known")
    return reader(fields)


def _read_heartbeat(fields: _Fields) -> Heartbeat:
    return Heartbeat(
        node=fields.match("node", _NAME),
        boot=fields.boot(),
        seq=fields.integer("seq", 0),
        url=fields.line("url"),
        zone=fields.line("zone"),
        free=fields.integer("free", 0),
        total=fields.integer("total", 0),
        shards=fields.integer("shards", 0),
        state=fields.choice("state", SERVING),
        time=fields.seconds("time"),
        cluster=fields.match("cluster", _MAYBE_NAME),
        epoch=fields.integer("epoch", 0),
        capabilities=tuple(
            _match("capabilities", item, _CAPABILITY)
            for item in fields.items("capabilities", 64)
        ),
    )


def _read_locate(fields: _Fields) -> Locate:
    return Locate(
        hash=fields.match("hash", _HASH),
        id=fields.match("id", _ID),
        ttl_ms=fields.integer("ttl_ms", 1, MAX_TTL),
        reply_to=fields.line("reply_to"),
    )


def _read_answer(fields: _Fields) -> Answer:
    return Answer(
        id=fields.match("id", _ID),
        node=fields.match("node", _NAME),
        state=fields.choice("state", _HOLDING),
        shards=tuple(map(fields.shard, fields.items("shards", MAX_MESSAGE))),
    )


def _read_claim(fields: _Fields) -> Claim:
    return Claim(fields.match("node", _NAME), fields.boot(), fields.line("reply_to"))


_READERS: Mapping[str, Callable[[_Fields], Message]] = {
    "heartbeat": _read_heartbeat,
    "locate": _read_locate,
    "hello": lambda fields: Hello(fields.line("reply_to")),
    "claim": _read_claim,
    "answer": _read_answer,
    "taken": lambda fields: Taken(fields.match("node", _NAME), fields.boot()),
}
_TYPES: Mapping[type[Any], str] = {
    Heartbeat: "heartbeat",
    Locate: "locate",
    Hello: "hello",
    Claim: "claim",
    Answer: "answer",
    Taken: "taken",
}


def _fields_of(message: Message) -> dict[str, Any]:
    shown = {
        "type": _TYPES[type(message)],
        **{
            field.name: getattr(message, field.name)
            for field in attrs.fields(type(message))
        },
    }
    if isinstance(message, Heartbeat | Claim | Taken):
        shown["boot"] = [message.boot.counter, message.boot.random]
    if isinstance(message, Answer):
        shown["shards"] = [
            [index, layout.id, layout.data, layout.parity, layout.size]
            for index, layout in message.shards
        ]
    return shown
