"""Conditional requests: entity tags, If-Match and its family (RFC 9110 section 13).

The entity tag of an object is its content hash in hex. Header values come in as
one text each: several lines of one header are joined by a comma first.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Sequence
from datetime import date
from typing import Literal

import attrs

from ostore.model.encodings import IDENTITY, OFFERED
from ostore.model.errors import AlreadyExists, ConditionFailed, Malformed

EVERY = (IDENTITY, *OFFERED)
"""All that a body may be given in; in a coding its tag is `<hash>-<coding>`."""

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
    """What must hold of the newest version in the moment of a write.

    `if_unmodified_since` is in seconds since 1970; If-Match stands before it.
    """

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None
    create_only: bool = False
    if_unmodified_since: int | None = None

    @classmethod
    def parse(
        cls,
        if_match: str | None,
        if_none_match: str | None,
        if_unmodified_since: str | None = None,
        *,
        create_only: bool = False,
    ) -> WriteCondition:
        """Read the header values, None where there is no header.

        An invalid date is as good as none. Raises Malformed for invalid tags.
        """
        return cls(
            _tags(if_match),
            _tags(if_none_match),
            create_only,
            parse_http_date(if_unmodified_since),
        )

    def check(self, current_etag: str | None, modified: float | None = None) -> None:
        """Raise AlreadyExists or ConditionFailed unless the condition holds.

        `current_etag` is the newest version's content hash, `modified` its time in
        seconds (without it no date counts); no tag when there is no object or its
        newest version is a delete marker. The tag of an encoded body names the same
        version as the plain one.
        """
        if self.create_only and current_etag is not None:
            raise AlreadyExists("the object exists already, and stays as it was")
        names = [] if current_etag is None else _names(current_etag)
        if self.if_match and not any(map(self.if_match.match_strongly, names)):
            raise ConditionFailed("If-Match does not hold for the newest version")
        limit = None if self.if_match else self.if_unmodified_since
        if names and limit is not None and int(modified or 0) > limit:
            raise ConditionFailed("the newest version is newer than that")
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

    def decide(
        self,
        etag: str,
        modified: float,
        codings: Sequence[str] = EVERY,
        *,
        part: bool = False,
    ) -> Verdict:
        """What becomes of the request, in the order of RFC 9110 section 13.2.2.

        `etag` is the plain body's tag, `modified` its time in seconds. For If-Match the
        tag of an encoded body names the same version, unless a `part` is asked for:
        that is one of the plain body. For If-None-Match the tags are those of the body
        in the `codings` that the client takes: a cache must not be told to use another.
        """
        seconds = int(modified)
        if self.if_match is not None:
            names = [etag] if part else _names(etag)
            if not any(map(self.if_match.match_strongly, names)):
                return "failed"
        elif (
            self.if_unmodified_since is not None and seconds > self.if_unmodified_since
        ):
            return "failed"
        if self.if_none_match is not None:
            if self.held(etag, codings) is not None:
                return "not-modified"
        elif self.if_modified_since is not None and seconds <= self.if_modified_since:
            return "not-modified"
        return "ok"

    def held(self, etag: str, codings: Sequence[str] = EVERY) -> str | None:
        """The tag by which If-None-Match says that the client has the body already.

        Of several that one which stands first among the `codings`; so for `*`.
        """
        asked = self.if_none_match
        if asked is None:
            return None
        names = [
            etag if coding == IDENTITY else f"{etag}-{coding}" for coding in codings
        ]
        return next(filter(asked.match_weakly, names), None)

    @property
    def range_by_date(self) -> bool:
        """Whether If-Range has a date: it proves nothing where two share a second."""
        return type(self.if_range) is int

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
    return [etag, *(f"{etag}-{coding}" for coding in OFFERED)]


def _if_range(text: str) -> str | int | Literal[False]:
    if _ONE_TAG.fullmatch(text):
        return text[1:-1] if text[0] == '"' else False
    moment = parse_http_date(text)
    return False if moment is None else moment
