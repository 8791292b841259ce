"""The records of a conversation with a node: how they are cut and sealed.

Behind the 101 each end sends records: a length (4 bytes, of what follows) and then,
from the caller, a seal, a number and an operation with its arguments; from the node the
number of what is answered, a status, its clock and a result. docs/data-api.md describes
them.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import attrs

from ostore.erasure.geometry import Buffer

PROTOCOL = "ostore-frames/1"
"""What `Upgrade` says."""
TARGET = "/frames"
"""Where a conversation begins."""
CREDIT = "X-Ostore-Credit"
"""Answered with the 101: `operations=N; bytes=N` that the node takes at once."""
SALT = "X-Ostore-Salt"
"""Answered with the 101: 32 hex digits, the node's share in the key."""

LARGEST = (1 << 20) + (16 << 10)
"""Bytes of a record behind its length: a small shard and what is said of it."""
ANSWER_ROOM = 16 << 10
"""Bytes of a result, but for operations that say how many they take."""
SEAL = 16
"""Bytes of a seal: keyed BLAKE2b (RFC 7693) over the rest of the record.

Of small records it costs half of what HMAC-SHA256 does, and it holds on to the
interpreter meanwhile.
"""

LENGTH = struct.Struct(">I")
ASKED = struct.Struct(">QB")
"""Number and operation."""
ANSWERED = struct.Struct(">QBd")
"""Number, status, and the node's clock in seconds since 1970."""

LEAST_ASKED: Final = SEAL + ASKED.size
LEAST_ANSWERED: Final = ANSWERED.size

_CREDIT = re.compile(r"operations=([0-9]{1,6}); bytes=([0-9]{1,12})")


@attrs.frozen
class Credit:
    """Operations, and bytes of these and their answers, that may be under way."""

    operations: int
    bytes: int

    def header(self) -> str:
        """The value of `X-Ostore-Credit`."""
        return f"operations={self.operations}; bytes={self.bytes}"

    @classmethod
    def parse(cls, text: str) -> Credit:
        """Read header(). Raises ValueError."""
        match = _CREDIT.fullmatch(text)
        if match is None:
            raise ValueError("no credit")
        return cls(int(match[1]), int(match[2]))

    def least(self, other: Credit) -> Credit:
        """What both grant."""
        return Credit(
            min(self.operations, other.operations), min(self.bytes, other.bytes)
        )


class Cutter:
    """Cuts what comes into records; holds at most one that is not whole yet."""

    def __init__(self, least: int) -> None:
        """A record has `least` to LARGEST bytes behind its length."""
        self._least = least
        self._held = bytearray()

    @property
    def inside(self) -> bool:
        """Whether a record has begun and not ended."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The records that `data` completes, without their lengths.

        Raises ValueError for a length that cannot be.
        """
        source: bytes | bytearray = data
        if self._held:
            self._held += data
            source = self._held
        records: list[bytes] = []
        at, size = 0, len(source)
        while size - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(source, at)
            if not self._least <= length <= LARGEST:
                raise ValueError(f"a record has no {length} bytes")
            begin = at + LENGTH.size
            if begin + length > size:
                break
            at = begin + length
            records.append(bytes(source[begin:at]))
        if source is data:
            self._held += source[at:]
        else:
            del self._held[:at]
        return records


def sealed(
    key: bytes, number: int, operation: int, parts: Sequence[Buffer]
) -> tuple[bytes, bytes]:
    """A record from the caller, in two pieces to be sent one behind the other."""
    body = b"".join((ASKED.pack(number, operation), *parts))
    seal = blake2b(body, digest_size=SEAL, key=key).digest()
    return LENGTH.pack(SEAL + len(body)) + seal, body


def unsealed(key: bytes, record: bytes) -> tuple[int, int, memoryview]:
    """Number, operation and arguments. Raises ValueError for a wrong seal."""
    body = memoryview(record)[SEAL:]
    seal = blake2b(body, digest_size=SEAL, key=key).digest()
    if not hmac.compare_digest(seal, record[:SEAL]):
        raise ValueError("the seal does not fit the record")
    number, operation = ASKED.unpack_from(body)
    return number, operation, body[ASKED.size :]


def answered(
    number: int, status: int, now: float, parts: Sequence[Buffer] = ()
) -> bytes:
    """A record from the node."""
    size = ANSWERED.size + sum(map(len, parts))
    head = LENGTH.pack(size) + ANSWERED.pack(number, status, now)
    return b"".join((head, *parts))
