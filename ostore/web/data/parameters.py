"""What a request to a node says beside its path, read strictly.

An order may bear preconditions in its query: one that is not known here is refused,
never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from ostore.backends.nodes.protocol import FRAMES, LAYOUT, parse_digest
from ostore.backends.shards.paths import checked_hash, checked_id
from ostore.model.errors import Malformed
from ostore.model.layouts import Layout
from ostore.streaming.resource import Call

T = TypeVar("T")

MAX_LIMIT = 1000
MAX_NUMBER = 2**63 - 1

_NUMBER = re.compile(r"[0-9]{1,19}")
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_STRIPES = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")


class Query:
    """The query parameters of one request, those that its route knows."""

    def __init__(self, call: Call, *known: str) -> None:
        """Raises Malformed for an unknown one, and for one that comes twice."""
        self._given: dict[str, str] = {}
        for name, values in call.query.items():
            if name not in known:
                allowed = ", ".join(known) or "none"
                raise Malformed(f"unknown query parameter; known here: {allowed}")
            if len(values) > 1:
                raise Malformed(f"{name} may be given only once")
            self._given[name] = values[0]

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def text(self, name: str) -> str:
        """The value, "" without it."""
        return self._given.get(name, "")

    def id(self, name: str) -> str:
        """32 hex digits, "" without it. Raises Malformed."""
        return self._parsed(name, checked_id) or ""

    def hash(self, name: str) -> str:
        """64 hex digits, "" without it or when it is empty. Raises Malformed."""
        return checked_hash(self._given[name]) if self.text(name) else ""

    def number(self, name: str) -> int | None:
        """A number from 0. Raises Malformed."""
        return self._parsed(name, lambda text: number(name, text))

    def needed(self, name: str) -> int:
        """A number that has to be given. Raises Malformed."""
        found = self.number(name)
        if found is None:
            raise Malformed(f"{name} is missing")
        return found

    def limit(self) -> int:
        """`limit`, from 1 to 1000, which is also the default. Raises Malformed."""
        value = self.number("limit")
        if value is None:
            return MAX_LIMIT
        if not 1 <= value <= MAX_LIMIT:
            raise Malformed(f"limit is a number from 1 to {MAX_LIMIT}")
        return value

    def deadline(self) -> float | None:
        """`deadline` in seconds since 1970; it is given in milliseconds."""
        value = self.number("deadline")
        return None if value is None else value / 1000

    def age(self) -> float:
        """`age` in seconds, 0 without it. Raises Malformed."""
        return self.seconds("age")

    def seconds(self, name: str) -> float:
        """A number of seconds, 0 without it. Raises Malformed."""
        text = self._given.get(name, "0")
        if _SECONDS.fullmatch(text) is None:
            raise Malformed(f"{name} is a number of seconds below 1,000,000,000")
        return float(text)

    def stripes(self) -> tuple[int, int] | None:
        """First and last of `stripes=a-b`. Raises Malformed."""
        text = self._given.get("stripes")
        if text is None:
            return None
        match = _STRIPES.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise Malformed("stripes are given as first-last")
        return int(match[1]), int(match[2])

    def _parsed(self, name: str, parse: Callable[[str], T]) -> T | None:
        text = self._given.get(name)
        return None if text is None else parse(text)


def number(name: str, text: str) -> int:
    """A number from 0 that fits 63 bits. Raises Malformed."""
    if _NUMBER.fullmatch(text) is None or int(text) > MAX_NUMBER:
        raise Malformed(f"{name} must be a number from 0")
    return int(text)


def number_header(call: Call, name: str) -> int | None:
    """The number in a header, None without it. Raises Malformed."""
    text = call.header(name)
    return None if text is None else number(name, text.strip(" \t"))


def layout_header(call: Call) -> Layout:
    """`X-Ostore-Layout`. Raises Malformed."""
    return Layout.parse(call.header(LAYOUT) or "")


def digest_header(call: Call) -> bytes | None:
    """The SHA-256 in `Digest`, None without it. Raises Malformed."""
    text = call.header("Digest")
    return None if text is None else parse_digest(text)


def sends_frames(call: Call) -> bool:
    """Whether the body is made of frames."""
    return _media_type(call.header("Content-Type")) == FRAMES


def wants_frames(call: Call) -> bool:
    """Whether frames are to be answered."""
    accepted = (call.header("Accept") or "").split(",")
    return any(_media_type(each) == FRAMES for each in accepted)


def _media_type(text: str | None) -> str:
    return (text or "").partition(";")[0].strip(" \t").lower()
