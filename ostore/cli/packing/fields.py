"""The smaller parts of a zip's records: extra fields, wide numbers, names, times. Pure."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

BIG = 0xFFFFFFFF
UTF8 = 0x800
ZIP64 = 0x0001
_EXTRA = struct.Struct("<2H")


class Broken(ValueError):
    """Bytes that are none of a zip's records."""


def is_short(seconds: int) -> bool:
    """Whether the field of a time can hold it."""
    return -(1 << 31) <= seconds < 1 << 31


def extra(kind: int, data: bytes, wanted: bool) -> bytes:
    """One extra field, or nothing."""
    return _EXTRA.pack(kind, len(data)) + data if wanted else b""


def extras(data: bytes) -> dict[int, bytes]:
    """The extra fields; what does not look like one ends them."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _EXTRA.size <= len(data):
        kind, size = _EXTRA.unpack_from(data, at)
        at += _EXTRA.size
        if at + size > len(data):
            break
        found.setdefault(kind, data[at : at + size])
        at += size
    return found


def widened(extras: dict[int, bytes], values: tuple[int, ...]) -> tuple[int, ...]:
    """Values of 32 bits, those that say so taken from the field of 64."""
    wide = extras.get(ZIP64, b"")
    found: list[int] = []
    for value in values:
        if value == BIG and ZIP64 in extras:
            if len(wide) < 8:
                raise Broken("a size of 64 bits is missing")
            (value,) = struct.unpack_from("<Q", wide)  # noqa: PLW2901  # its wide form
            wide = wide[8:]
        found.append(value)
    return tuple(found)


def name_of(raw: bytes, flags: int) -> str:
    """A member's name. Raises Broken."""
    try:
        return raw.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError:
        raise Broken("a member's name is not UTF-8") from None


def dos_time(seconds: int) -> tuple[int, int]:
    """Time and date as MS-DOS had them, from 1980 to 2107, in UTC."""
    low, high = 315_532_800, 4_354_819_198
    when = datetime.fromtimestamp(min(max(seconds, low), high), UTC)
    time = when.hour << 11 | when.minute << 5 | when.second // 2
    return time, (when.year - 1980) << 9 | when.month << 5 | when.day


def from_dos(date: int, time: int) -> int:
    """Unix seconds; 1980 for a date that is none."""
    try:
        when = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2,
            tzinfo=UTC,
        )
    except ValueError:
        return 315_532_800
    return int(when.timestamp())
