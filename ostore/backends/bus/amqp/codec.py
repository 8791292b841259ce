"""Fields and header tables to bytes, and back.

AMQP 0-9-1 section 4.2.5, with the letters as RabbitMQ reads and writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any, Final

from txamqp import codec

MAX_DEPTH: Final = 32
"""Tables within tables; deeper ones are refused."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

NUMBERS: Final = {
    letter: struct.Struct("!" + form)
    for letter, form in {
        b"b": "b",
        b"B": "B",
        b"s": "h",
        b"u": "H",
        b"I": "i",
        b"i": "I",
        b"l": "q",
        b"f": "f",
        b"d": "d",
    }.items()
}
LONG: Final = struct.Struct("!I")
STAMP: Final = struct.Struct("!Q")
DECIMAL: Final = struct.Struct("!Bi")


class BadFrame(Exception):
    """Bytes that AMQP 0-9-1 does not allow."""


def short(text: str | bytes) -> bytes:
    """A short string: one byte of length, then UTF-8."""
    data = _bytes(text)
    if len(data) > 255:
        raise ValueError("a short string has at most 255 bytes")
    return bytes((len(data),)) + data


def encode_table(table: Mapping[str, Any], depth: int = 0) -> bytes:
    """A table with its length in front; ValueError for what AMQP cannot say."""
    body = b"".join(short(k) + _encode(v, depth) for k, v in table.items())
    return LONG.pack(len(body)) + body


def decode_table(data: bytes) -> dict[str, Any]:
    """The table that `data` (length in front) holds, no more and no less."""
    reader = _Reader(data)
    table = reader.table(0)
    if reader.at != len(data):
        raise BadFrame("bytes behind a table")
    return table


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _encode(value: object, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise ValueError("tables lie too deep")
    if isinstance(value, Mapping):
        return b"F" + encode_table(value, depth + 1)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        items = b"".join(_encode(item, depth + 1) for item in value)
        return b"A" + LONG.pack(len(items)) + items
    return _encode_one(value)


def _encode_one(value: object) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            letter = b"I" if -(1 << 31) <= value < 1 << 31 else b"l"
            try:
                return letter + NUMBERS[letter].pack(value)
            except struct.error:
                raise ValueError(f"{value} has more than 64 bits") from None
        case float():
            return b"d" + NUMBERS[b"d"].pack(value)
        case Decimal():
            return b"D" + _decimal(value)
        case datetime():
            return b"T" + STAMP.pack(int(value.timestamp()))
        case str():
            data = _bytes(value)
            return b"S" + LONG.pack(len(data)) + data
        case bytes() | bytearray():
            return b"x" + LONG.pack(len(value)) + bytes(value)
    raise ValueError(f"a table cannot hold a {type(value).__name__}")


def _decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0:
        raise ValueError(f"{value} is no decimal of AMQP")
    number = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    try:
        return DECIMAL.pack(-exponent, number)
    except struct.error:
        raise ValueError(f"{value} is no decimal of AMQP") from None


class _Reader:
    """Walks through one table; every length is checked against what is there."""

    def __init__(self, data: bytes) -> None:
        self.at = 0
        self._data = data

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.at + count
        if end > len(self._data):
            raise BadFrame("a table ends too early")
        taken = self._data[self.at : end]
        self.at = end
        return taken

    def long(self) -> bytes:
        """The next bytes behind their length."""
        (size,) = LONG.unpack(self.take(4))
        return self.take(size)

    def table(self, depth: int) -> dict[str, Any]:
        """The next table."""
        if depth > MAX_DEPTH:
            raise BadFrame("tables lie too deep")
        inner = _Reader(self.long())
        table: dict[str, Any] = {}
        while inner.at < len(inner._data):
            name = inner.take(inner.take(1)[0]).decode("utf-8", "surrogateescape")
            table[name] = inner.value(depth)
        return table

    def value(self, depth: int) -> object:
        """The next value, by its letter."""
        letter = self.take(1)
        number = NUMBERS.get(letter)
        if number is not None:
            return number.unpack(self.take(number.size))[0]
        match letter:
            case b"t":
                return self.take(1) != b"\x00"
            case b"S":
                return self.long().decode("utf-8", "surrogateescape")
            case b"x":
                return self.long()
            case b"V":
                return None
            case b"F":
                return self.table(depth + 1)
            case b"A":
                return self._array(depth + 1)
            case b"D":
                scale, digits = DECIMAL.unpack(self.take(5))
                return Decimal(digits).scaleb(-scale)
            case b"T":
                return _when(STAMP.unpack(self.take(8))[0])
        raise BadFrame(f"a table cannot hold {letter!r}")

    def _array(self, depth: int) -> list[object]:
        if depth > MAX_DEPTH:
            raise BadFrame("tables lie too deep")
        inner = _Reader(self.long())
        items: list[object] = []
        while inner.at < len(inner._data):
            items.append(inner.value(depth))
        return items


def _when(seconds: int) -> datetime | int:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return seconds  # beyond the year 9999


class Codec(codec.Codec):  # type: ignore[misc]  # txAMQP has no types
    """txAMQP's codec with strings, tables and short reads put right.

    Short strings are str (any bytes, through surrogateescape), long ones bytes.
    """

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(BytesIO(data))

    def getvalue(self) -> bytes:
        """Everything that was encoded."""
        self.flushbits()
        whole: bytes = self.stream.getvalue()
        return whole

    def read(self, n: int) -> bytes:
        """Exactly `n` bytes."""
        data: bytes = self.stream.read(n)
        if len(data) != n:
            raise BadFrame("a method ends too early")
        return data

    def encode_shortstr(self, s: str | bytes) -> None:
        """At most 255 bytes."""
        self.write(short(s))

    def decode_shortstr(self) -> str:
        """As it came."""
        return self.read(self.decode_octet()).decode("utf-8", "surrogateescape")

    def encode_longstr(self, s: str | bytes) -> None:
        """Any bytes."""
        data = _bytes(s)
        self.write(LONG.pack(len(data)) + data)

    def decode_longstr(self) -> bytes:
        """As it came."""
        return self.read(self.decode_long())

    def encode_table(self, tbl: Mapping[str, Any]) -> None:
        """See the function of this name."""
        self.write(encode_table(tbl))

    def decode_table(self) -> dict[str, Any]:
        """See the function of this name."""
        size = self.read(4)
        return decode_table(size + self.read(LONG.unpack(size)[0]))
