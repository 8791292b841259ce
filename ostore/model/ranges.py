"""The Range header and the spans of bytes it asks for (RFC 9110 section 14)."""

from __future__ import annotations

import re

import attrs

from ostore.model.errors import Refused

MAX_RANGES = 64
"""A header that asks for more ranges is ignored."""
GAP = 1 << 20
"""Bytes that are rather read than skipped: a stripe holds so many."""

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_BEYOND = 1 << 63
"""Stands for every number too long to be read: no object is that large."""


class Unsatisfiable(Refused):
    """None of the ranges lies within the `size` bytes there are."""

    def __init__(self, size: int) -> None:
        super().__init__(f"none of the ranges lies within the {size} bytes there are")
        self.size = size

    @property
    def content_range(self) -> str:
        """The value of `Content-Range` in the answer."""
        return f"bytes */{self.size}"


@attrs.frozen
class Span:
    """The bytes start <= i < stop."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The value of `Content-Range` for this part of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_ranges(header: str, size: int) -> list[Span] | None:
    """What a Range header asks for, in its order; None when it is to be ignored.

    Ignored are other units, what breaks the syntax, more than MAX_RANGES ranges,
    several ranges that hold more bytes together than the whole (it is cheaper),
    and the last n bytes of nothing. Ranges out of reach are left out. Raises
    Unsatisfiable when all of them are.
    """
    unit, equals, text = header.strip(" \t").partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    specs = [spec for part in text.split(",") if (spec := part.strip(" \t"))]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    asked = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        if not match[1]:
            last = _number(match[2])
            if last and not size:
                return None
            asked.append((max(0, size - last), size))
            continue
        first = _number(match[1])
        stop = _number(match[2]) + 1 if match[2] else _BEYOND + 1
        if stop <= first:
            return None
        asked.append((first, min(stop, size)))
    spans = [Span(start, stop) for start, stop in asked if start < stop]
    if not spans:
        raise Unsatisfiable(size)
    if len(spans) > 1 and sum(span.length for span in spans) > size:
        return None
    return spans


def merged(spans: list[Span]) -> list[Span]:
    """The same bytes in ranges that are apart, in their order if they were so.

    Ranges that overlap or touch become one, and all are in ascending order then
    (RFC 9110 section 15.3.7.2). What lies between two others was not asked for.
    """
    ascending = sorted(spans, key=lambda span: span.start)
    apart = [ascending[0]]
    for span in ascending[1:]:
        last = apart[-1]
        if span.start <= last.stop:
            apart[-1] = Span(last.start, max(last.stop, span.stop))
        else:
            apart.append(span)
    return spans if len(apart) == len(spans) else apart


def runs(spans: list[Span]) -> list[list[Span]]:
    """The same in their order, neighbours together: ascending, less than GAP apart."""
    found = [spans[:1]]
    for span in spans[1:]:
        if 0 <= span.start - found[-1][-1].stop < GAP:
            found[-1].append(span)
        else:
            found.append([span])
    return found


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return min(int(digits or "0"), _BEYOND) if len(digits) < 20 else _BEYOND
