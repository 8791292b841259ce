"""A JSON object that somebody else wrote: its fields are checked as they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from ostore.model.errors import OstoreError
from ostore.model.layouts import MAX_SHARDS, MAX_SIZE, Layout
from ostore.model.nodes import Boot

MAX_TEXT = 1024
"""Characters of a URL, a zone, an address."""

_MAX_INTEGER = (1 << 63) - 1
_RANDOM = re.compile(r"[0-9a-f]{16}")
_LAYOUT = re.compile(r"[0-9a-f]{32}")


class BadMessage(OstoreError):
    """Not a message of this cluster: to be counted and dropped."""


@attrs.frozen
class Fields:
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
        return matched(name, self.values.get(name), pattern)

    def choice(self, name: str, allowed: frozenset[str]) -> str:
        """One of these strings."""
        return one_of(name, self.values.get(name), allowed)

    def integer(self, name: str, low: int, high: int = _MAX_INTEGER) -> int:
        """A whole number low <= n <= high."""
        return whole(name, self.values.get(name), low, high)

    def seconds(self, name: str) -> float:
        """Seconds since 1970, whole or not."""
        value = self.values.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or not number or not 0 <= value <= _MAX_INTEGER:
            raise BadMessage(f"{name} is not a time")
        return float(value)

    def items(self, name: str, limit: int) -> list[Any]:
        """A list of at most `limit` items."""
        return listed(name, self.values.get(name), limit)

    def boot(self) -> Boot:
        """The start of a node: counter and chance."""
        pair = self.items("boot", 2)
        if len(pair) != 2:
            raise BadMessage("boot is not a pair")
        return Boot(whole("boot", pair[0], 0), matched("boot", pair[1], _RANDOM))


def shard(item: object) -> tuple[int, Layout]:
    """Index and layout from [index, layout id, k, m, size]. Raises BadMessage."""
    if not isinstance(item, list) or len(item) != 5:
        raise BadMessage("a shard is not a list of five")
    data = whole("k", item[2], 1, MAX_SHARDS)
    parity = whole("m", item[3], 0, MAX_SHARDS - data)
    size = whole("size", item[4], 0, MAX_SIZE)
    layout = Layout(data, parity, size, matched("layout", item[1], _LAYOUT))
    return whole("index", item[0], 0, layout.shards - 1), layout


def listed(name: str, value: object, limit: int) -> list[Any]:
    """`value`, a list of at most `limit` items. Raises BadMessage."""
    if not isinstance(value, list) or len(value) > limit:
        raise BadMessage(f"{name} is not a list of at most {limit} items")
    return value


def whole(name: str, value: object, low: int, high: int = _MAX_INTEGER) -> int:
    """`value`, a whole number low <= n <= high. Raises BadMessage."""
    if type(value) is not int or not low <= value <= high:
        raise BadMessage(f"{name} is not a whole number from {low} to {high}")
    return value


def matched(name: str, value: object, pattern: re.Pattern[str]) -> str:
    """`value`, a string of that form. Raises BadMessage."""
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise BadMessage(f"{name} does not have its form")
    return value


def one_of(name: str, value: object, allowed: frozenset[str]) -> str:
    """`value`, one of these strings. Raises BadMessage."""
    if not isinstance(value, str) or value not in allowed:
        raise BadMessage(f"{name} is none of the values that are known")
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError("JSON has no such number")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def read_object(text: str) -> Fields:
    """The JSON object in `text`. Raises BadMessage."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        raise BadMessage("a message is not JSON") from None
    if not isinstance(value, dict):
        raise BadMessage("a message is not a JSON object")
    return Fields(value)
