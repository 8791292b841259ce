"""Bytes cut into frames, and back (AMQP 0-9-1 section 4.2.3)."""

from __future__ import annotations

import struct
from typing import Any, Final

from ostore.backends.bus.amqp.codec import BadFrame, Codec, short
from ostore.backends.bus.amqp.spec import SPEC

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
KINDS: Final = frozenset((METHOD, HEADER, BODY, HEARTBEAT))
END: Final = 206
OVERHEAD: Final = 8
"""Bytes of a frame beside its payload."""
FRAME_MAX: Final = 131_072
"""Bytes of the largest frame that we offer to take."""

PROTOCOL: Final = b"AMQP\x00\x00\x09\x01"
PULSE: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
"""A heartbeat."""
BASIC: Final = 60
REPLY_TO: Final = 1 << 9
EXPIRATION: Final = 1 << 8

_HEAD: Final = struct.Struct("!BHI")
_CONTENT: Final = struct.Struct("!HHQH")
_PUBLISH: Final = struct.pack("!HHH", BASIC, 40, 0)
_END: Final = bytes((END,))

Frame = tuple[int, int, bytes]
"""Kind, channel, payload."""


class Frames:
    """Cuts what a connection receives; holds at most one frame. One for each client."""

    def __init__(self) -> None:
        self.limit = FRAME_MAX - OVERHEAD
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises BadFrame."""
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        frames: list[Frame] = []
        at, size, needed = 0, len(data), OVERHEAD
        while size - at >= OVERHEAD:
            kind, channel, length = _HEAD.unpack_from(data, at)
            if kind not in KINDS or length > self.limit:
                raise BadFrame("no frame of AMQP 0-9-1, or too large a one")
            end = at + 7 + length
            if end >= size:
                needed = OVERHEAD + length
                break
            if data[end] != END:
                raise BadFrame("a frame without its end")
            frames.append((kind, channel, data[at + 7 : end]))
            at = end + 1
        if at < size:
            self._parts.append(data[at:] if at else data)
            self._held, self._needed = size - at, needed
        return frames


def pack(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END


def pack_method(channel: int, method: Any, arguments: tuple[Any, ...]) -> bytes:
    """The frame of a method of SPEC with its arguments in order."""
    codec = Codec()
    codec.encode_short(method.klass.id)
    codec.encode_short(method.id)
    for field, argument in zip(method.fields, arguments, strict=True):
        codec.encode(field.type, argument)
    return pack(METHOD, channel, codec.getvalue())


def unpack_method(payload: bytes) -> tuple[Any, tuple[Any, ...]]:
    """A method of SPEC and its arguments. Raises BadFrame."""
    codec = Codec(payload)
    try:
        kind = SPEC.classes.byid[codec.decode_short()]
        method = kind.methods.byid[codec.decode_short()]
    except KeyError:
        raise BadFrame("a method that AMQP 0-9-1 does not have") from None
    return method, tuple(codec.decode(field.type) for field in method.fields)


def pack_publish(channel: int, exchange: str, key: str) -> bytes:
    """The first frame of every message to that exchange and routing key."""
    return pack(METHOD, channel, _PUBLISH + short(exchange) + short(key) + b"\x00")


def pack_content(
    channel: int, body: bytes, reply_to: str, ttl_ms: int | None, limit: int
) -> bytes:
    """Header and body frames of a message; `limit` is the largest payload."""
    flags, properties = 0, b""
    if reply_to:
        flags, properties = REPLY_TO, short(reply_to)
    if ttl_ms is not None:
        flags, properties = flags | EXPIRATION, properties + short(str(ttl_ms))
    header = _CONTENT.pack(BASIC, 0, len(body), flags) + properties
    frames = pack(HEADER, channel, header)
    for start in range(0, len(body), limit):
        frames += pack(BODY, channel, body[start : start + limit])
    return frames


def read_header(payload: bytes) -> tuple[int, bytes | None]:
    """Size of the body, and the reply-to: empty without one, None when unreadable.

    The properties are walked over, never decoded: anybody on the broker may have
    written them. Raises BadFrame for what a broker itself must not send.
    """
    if len(payload) < _CONTENT.size:
        raise BadFrame("a content header ends too early")
    _, _, size, flags = _CONTENT.unpack_from(payload)
    at = _CONTENT.size
    if flags & 1 or not flags & REPLY_TO:
        return size, (None if flags & 1 else b"")
    try:
        for bit in (15, 14, 13, 12, 11, 10):
            if flags >> bit & 1:
                at += _width(payload, at, bit)
        found = payload[at + 1 : at + 1 + payload[at]]
    except (IndexError, struct.error):
        return size, None
    return size, (found if len(found) == payload[at] else None)


def _width(payload: bytes, at: int, bit: int) -> int:
    if bit == 13:  # headers
        length: int = struct.unpack_from("!I", payload, at)[0]
        return 4 + length
    if bit in (12, 11):  # delivery-mode, priority
        return 1
    return 1 + payload[at]
