"""Query parameters: each at most once, unknown ones ignored."""

from __future__ import annotations

import re

from ostore.model.errors import Malformed
from ostore.model.layouts import MAX_SIZE
from ostore.streaming.resource import Call

MAX_LIMIT = 1000
MAX_NUMBER = 2**63 - 1
"""No version has this number; whatever is greater counts as it."""

_FIRST = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{1,19})-", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,40}")


def text(call: Call, name: str) -> str:
    """The value, "" without it. Raises Malformed."""
    return _one(call, name) or ""


def limit(call: Call) -> int | None:
    """`limit`, from 1 to 1000; None without it. Raises Malformed."""
    value = _number(call, "limit", f"a number from 1 to {MAX_LIMIT}")
    if value is not None and not 1 <= value <= MAX_LIMIT:
        raise Malformed(f"limit must be a number from 1 to {MAX_LIMIT}")
    return value


def version(call: Call) -> int | None:
    """`version`, from 1; None without it. Raises Malformed."""
    value = _number(call, "version", "a number from 1")
    if value == 0:
        raise Malformed("version must be a number from 1")
    return value


def after_number(call: Call) -> int:
    """`after` where it is the number of a version; 0 without it. Raises Malformed."""
    return _number(call, "after", "the number of a version") or 0


def switch(call: Call, name: str) -> bool:
    """Whether it is 1; 0 is as good as none, an empty one is not. Raises Malformed."""
    value = _one(call, name)
    if value not in (None, "0", "1"):
        raise Malformed(f"{name} is 1, or left out")
    return value == "1"


def size(call: Call) -> int | None:
    """The header `Size`; None without it. Raises Malformed."""
    value = call.header("Size")
    if value is None:
        return None
    found = value.strip(" \t")
    if not (found.isascii() and found.isdigit()) or int(found[:40]) > MAX_SIZE:
        raise Malformed(f"Size must be a number of bytes from 0 to {MAX_SIZE}")
    return int(found)


def first(call: Call) -> int:
    """Where a part begins: `Range: bytes={first}-`, 0 without it. Raises Malformed."""
    value = call.header("Range")
    if value is None:
        return 0
    match = _FIRST.fullmatch(value.strip(" \t"))
    if match is None or int(match[1]) > MAX_SIZE:
        raise Malformed("the Range of a part must read 'bytes={first}-'")
    return int(match[1])


def _number(call: Call, name: str, allowed: str) -> int | None:
    value = _one(call, name)
    if value is None:
        return None
    if _DIGITS.fullmatch(value) is None:
        raise Malformed(f"{name} must be {allowed}")
    return min(int(value), MAX_NUMBER)


def _one(call: Call, name: str) -> str | None:
    values = call.query.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise Malformed(f"{name} may be given only once")
    return values[0]
