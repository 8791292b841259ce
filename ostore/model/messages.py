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
from typing import Any

import attrs
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ostore.model.errors import Malformed
from ostore.model.fields import (
    BadMessage,
    Fields,
    listed,
    matched,
    one_of,
    read_object,
    shard,
    whole,
)
from ostore.model.layouts import Layout
from ostore.model.nodes import SERVING, Boot, Heartbeat

API_TOPIC = "apiServers"
DATA_TOPIC = "dataServers"
MAX_MESSAGE = 64 * 1024
"""Bytes of a sealed message."""
MAX_TTL = 600_000
"""The longest time to live of a locate, in milliseconds."""
MAX_HASHES = 128
"""Contents that one message asks for."""
LOCATES = "ostore-locates/1"
"""The capability of nodes that answer Locates."""

_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{1,64}")
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
_MAYBE_NAME = re.compile(r"[0-9A-Za-z_-]{0,64}")
_CAPABILITY = re.compile(r"[\x21-\x7e]{1,64}")
_HOLDING = frozenset({"have", "none", "unsure"})
_MIN_SECRET = 32
_REMEMBERED, _REMEMBERED_SIZE = 1024, 4096
"""How many messages a signer remembers to have sealed, and of which size at most."""


Shards = tuple[tuple[int, Layout], ...]
"""Index and layout of each."""


@attrs.frozen
class Locate:
    """Who holds this content? Every node answers to `reply_to` within `ttl_ms`."""

    hash: str
    id: str
    ttl_ms: int
    reply_to: str


@attrs.frozen
class Locates:
    """Who holds these contents? As a Locate of each, to nodes that know LOCATES."""

    hashes: tuple[str, ...]
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
    shards: Shards = ()


@attrs.frozen
class Answers:
    """What a node holds of some of the contents that the locates `id` asked for.

    Of each its place among the hashes, from 0, then state and shards as in an Answer.
    """

    id: str
    node: str
    found: tuple[tuple[int, str, Shards], ...]


@attrs.frozen
class Taken:
    """The node id of a claim is alive already, in this boot."""

    node: str
    boot: Boot


Message = Heartbeat | Locate | Locates | Hello | Claim | Answer | Answers | Taken


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


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
            envelope = read_object(body.decode("utf-8"))
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
        return _message(read_object(text))

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


def _message(fields: Fields) -> Message:
    reader = _READERS.get(fields.text("type"))
    if reader is None:
        raise BadMessage("a message has a type that is not known")
    return reader(fields)


def _read_heartbeat(fields: Fields) -> Heartbeat:
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
            matched("capabilities", item, _CAPABILITY)
            for item in fields.items("capabilities", 64)
        ),
    )


def _read_locate(fields: Fields) -> Locate:
    return Locate(
        hash=fields.match("hash", _HASH),
        id=fields.match("id", _ID),
        ttl_ms=fields.integer("ttl_ms", 1, MAX_TTL),
        reply_to=fields.line("reply_to"),
    )


def _read_locates(fields: Fields) -> Locates:
    hashes = fields.items("hashes", MAX_HASHES)
    if not hashes:
        raise BadMessage("hashes are none")
    return Locates(
        hashes=tuple(matched("hashes", each, _HASH) for each in hashes),
        id=fields.match("id", _ID),
        ttl_ms=fields.integer("ttl_ms", 1, MAX_TTL),
        reply_to=fields.line("reply_to"),
    )


def _read_answer(fields: Fields) -> Answer:
    return Answer(
        id=fields.match("id", _ID),
        node=fields.match("node", _NAME),
        state=fields.choice("state", _HOLDING),
        shards=_shards(fields.values.get("shards")),
    )


def _read_answers(fields: Fields) -> Answers:
    found = tuple(map(_found, fields.items("found", MAX_HASHES)))
    if len({place for place, _, _ in found}) != max(1, len(found)):
        raise BadMessage("found is empty, or speaks twice of a content")
    return Answers(fields.match("id", _ID), fields.match("node", _NAME), found)


def _found(item: object) -> tuple[int, str, Shards]:
    """Place, state and shards from [place, state, shards]."""
    if not isinstance(item, list) or len(item) != 3:
        raise BadMessage("what was found of a content is not a list of three")
    place = whole("place", item[0], 0, MAX_HASHES - 1)
    return place, one_of("state", item[1], _HOLDING), _shards(item[2])


def _shards(value: object) -> Shards:
    return tuple(map(shard, listed("shards", value, MAX_MESSAGE)))


def _read_claim(fields: Fields) -> Claim:
    return Claim(fields.match("node", _NAME), fields.boot(), fields.line("reply_to"))


_READERS: Mapping[str, Callable[[Fields], Message]] = {
    "heartbeat": _read_heartbeat,
    "locate": _read_locate,
    "locates": _read_locates,
    "hello": lambda fields: Hello(fields.line("reply_to")),
    "claim": _read_claim,
    "answer": _read_answer,
    "answers": _read_answers,
    "taken": lambda fields: Taken(fields.match("node", _NAME), fields.boot()),
}
_TYPES: Mapping[type[Any], str] = {
    Heartbeat: "heartbeat",
    Locate: "locate",
    Locates: "locates",
    Hello: "hello",
    Claim: "claim",
    Answer: "answer",
    Answers: "answers",
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
        shown["shards"] = _shown(message.shards)
    if isinstance(message, Answers):
        shown["found"] = [
            [place, state, _shown(shards)] for place, state, shards in message.found
        ]
    return shown


def _shown(shards: Shards) -> list[list[Any]]:
    return [
        [index, layout.id, layout.data, layout.parity, layout.size]
        for index, layout in shards
    ]
