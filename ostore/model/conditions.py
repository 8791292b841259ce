"""Conditional requests: entity tags, If-Match and its family (RFC 9110 section 13).

The entity tag of an object is its content hash in hex. Header values come in as
one text each: several lines of one header are joined by a comma first.
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import date
from typing import Literal

import attrs

from ostore.model.errors import AlreadyExists, ConditionFailed, Malformed

ENCODINGS = ("gzip", "zstd")
"""Content codings a body may be given in; its tag is then `<hash>-<coding>`."""

_TAG = r'(?:W/)?"[^\x00-\x20\x22\x7f]*"'
_ONE_TAG = re.compile(_TAG)
_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")


@attrs.frozen
class EntityTags:
    """The value of If-Match or If-None-Match.

    `strong` and `weak` hold the tags without quotes; `any` stands for `*`.
    """

    any: bool = False
    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> EntityTags:
        """Read `*` or a list of quoted tags. Raises Malformed."""
        if text.strip(" \t") == "*":
            return cls(any=True)
        if _TAGS.fullmatch(text) is None:
            raise Malformed(
                "If-Match and If-None-Match must read '*' or a list of quoted tags "
                'like "abc", "def"'
            )
        found = _ONE_TAG.findall(text)
        return cls(
            strong=frozenset(tag[1:-1] for tag in found if tag[0] == '"'),
            weak=frozenset(tag[3:-1] for tag in found if tag[0] == "W"),
        )

    def match_strongly(self, etag: str) -> bool:
        """Whether `*` or a strong tag names the strong tag `etag`."""
        return self.any or etag in self.strong

    def match_weakly(self, etag: str) -> bool:
        """Whether `*` or any tag, weak or strong, names `etag`."""
        return self.any or etag in self.strong or etag in self.weak


@attrs.frozen
class WriteCondition:
    """What must hold of the newest version in the moment of a write."""

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    create_only: bool = False

    @classmethod
    def parse(
        cls,
        if_match: str | None,
        if_none_match: str | None,
        *,
        create_only: bool = False,
    ) -> WriteCondition:
        """Read the header values, None where there is no header. Raises Malformed."""
        return cls(_tags(if_match), _tags(if_none_match), create_only)

    def check(self, current_etag: str | None) -> None:
        """Raise AlreadyExists or ConditionFailed unless the condition holds.

        `current_etag` is the newest version's content hash; None when there is no
        object or its newest version is a delete marker. The tag of an encoded body
        names the same version as the plain one.
        """
        if self.create_only and current_etag is not None:
            raise AlreadyExists("the object exists already, and stays as it was")
        names = [] if current_etag is None else _names(current_etag)
        if self.if_match and not any(map(self.if_match.match_strongly, names)):
            raise ConditionFailed("If-Match does not hold for the newest version")
        if self.if_none_match and any(map(self.if_none_match.match_weakly, names)):
            raise ConditionFailed("If-None-Match does not hold for the newest version")


Verdict = Literal["ok", "not-modified", "failed"]


@attrs.frozen
class ReadConditions:
    """The conditions of a GET or HEAD; dates are in seconds since 1970.

    `if_range` is a strong tag without quotes, a date, `False` for what can never
    match, or None.
    """

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None
    if_range: str | int | Literal[False] | None = None

    @classmethod
    def parse(
        cls,
        if_match: str | None = None,
        if_none_match: str | None = None,
        if_modified_since: str | None = None,
        if_unmodified_since: str | None = None,
        if_range: str | None = None,
    ) -> ReadConditions:
        """Read the header values, None where there is no header.

        Invalid dates are as good as none. Raises Malformed for invalid tags.
        """
        return cls(
            _tags(if_match),
            _tags(if_none_match),
            parse_http_date(if_modified_since),
            parse_http_date(if_unmodified_since),
            None if if_range is None else _if_range(if_range.strip(" \t")),
        )

    def decide(self, etag: str, modified: float) -> Verdict:
        """What becomes of the request, in the order of RFC 9110 section 13.2.2.

        `etag` is the plain body's tag, `modified` its time in seconds. The tag of an
        encoded body names the same version.
        """
        seconds, names = int(modified), _names(etag)
        if self.if_match is not None:
            if not any(map(self.if_match.match_strongly, names)):
                return "failed"
        elif (
            self.if_unmodified_since is not None and seconds > self.if_unmodified_since
        ):
            return "failed"
        if self.if_none_match is not None:
            if any(map(self.if_none_match.match_weakly, names)):
                return "not-modified"
        elif self.if_modified_since is not None and seconds <= self.if_modified_since:
            return "not-modified"
        return "ok"

    def range_allowed(self, etag: str, modified: float) -> bool:
        """Whether If-Range lets a Range header count; `etag` is the plain body's."""
        if self.if_range is None:
            return True
        if isinstance(self.if_range, str):
            return self.if_range == etag
        return self.if_range is not False and self.if_range == int(modified)


_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_MONTH = f"(?P<month>{'|'.join(re.findall('...', _MONTHS))})"
_TIME = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_SHORT_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_YEAR = "(?P<year>[0-9]{4})"
_DATES = (
    re.compile(rf"{_SHORT_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} {_YEAR} {_TIME} GMT"),
    re.compile(
        rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(rf"{_SHORT_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} {_YEAR}"),
)


def parse_http_date(text: str | None) -> int | None:
    """Seconds since 1970 of an HTTP-date in any of its three forms, else None.

    Two-digit years are those from 1969 to 2068.
    """
    if text is None:
        return None
    for form in _DATES:
        match = form.fullmatch(text.strip(" \t"))
        if match is None:
            continue
        year = int(match["year"])
        if len(match["year"]) == 2:
            year += 1900 if year >= 69 else 2000
        month = _MONTHS.index(match["month"]) // 3 + 1
        try:
            day = date(year, month, int(match["day"]))
        except ValueError:
            return None
        clock = int(match["hour"]), int(match["minute"]), int(match["second"])
        return timegm((day.year, day.month, day.day, *clock))
    return None


def _tags(text: str | None) -> EntityTags | None:
    return None if text is None else EntityTags.parse(text)


def _names(etag: str) -> list[str]:
    return [etag, *(f"{etag}-{coding}" for coding in ENCODINGS)]


def _if_range(text: str) -> str | int | Literal[False]:
    if _ONE_TAG.fullmatch(text):
        return text[1:-1] if text[0] == '"' else False
    moment = parse_http_date(text)
    return False if moment is None else moment
