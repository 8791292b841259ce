"""If-Match and its family."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.conditions import (
    EntityTags,
    ReadConditions,
    WriteCondition,
    parse_http_date,
)
from ostore.model.errors import AlreadyExists, ConditionFailed, Malformed

NOW, OTHER = "a" * 64, "b" * 64
MOMENT = 784111777
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"


def quoted(*tags: str) -> str:
    """A list of strong tags."""
    return ", ".join(f'"{tag}"' for tag in tags)


class EntityTagsTests(SynchronousTestCase):
    """The list of tags."""

    def test_parsed(self) -> None:
        """Strong and weak tags are told apart; empty places are passed over."""
        tags = EntityTags.parse(' "a" , W/"b",, "c,d","" ,')
        self.assertEqual(tags.strong, {"a", "c,d", ""})
        self.assertEqual(tags.weak, {"b"})
        self.assertFalse(tags.any)
        self.assertEqual(EntityTags.parse(" * "), EntityTags(any=True))
        self.assertEqual(EntityTags.parse('"ä\u20ac\udcff"').strong, {"ä\u20ac\udcff"})

    def test_compared(self) -> None:
        """A weak tag never matches strongly (RFC 9110, 8.8.3.2)."""
        tags = EntityTags.parse('W/"1", "2"')
        self.assertEqual(
            [tags.match_strongly("1"), tags.match_weakly("1")], [False, True]
        )
        self.assertEqual(
            [tags.match_strongly("2"), tags.match_weakly("2")], [True, True]
        )
        self.assertFalse(tags.match_weakly("3"))

    def test_refused(self) -> None:
        """Unquoted, unfinished, mixed or missing tags are Malformed."""
        wrong = (
            "", ",", NOW, f'"{NOW}', '"a" "b"', '*, "a"', '"a", *', 'w/"a"', "W/a",
            '"a b"', '"a"b', '"\x7f"', "**",
        )  # fmt: skip
        for text in wrong:
            self.assertRaises(Malformed, EntityTags.parse, text)

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.booleans(), st.text("ab,/W*", max_size=4)), min_size=1)
    )
    def test_round_trip(self, items: list[tuple[bool, str]]) -> None:
        """What is written as a list of tags is read back as the same tags."""
        text = ",".join(('W/"' if weak else '"') + f'{tag}"' for weak, tag in items)
        tags = EntityTags.parse(text)
        self.assertEqual(tags.weak, {tag for weak, tag in items if weak})
        self.assertEqual(tags.strong, {tag for weak, tag in items if not weak})


class WriteConditionTests(SynchronousTestCase):
    """Conditions of PUT, POST and DELETE."""

    def holds(
        self,
        current: str | None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> bool:
        """Whether the check passes; anything but ConditionFailed is an error."""
        try:
            WriteCondition.parse(if_match, if_none_match).check(current)
        except ConditionFailed:
            return False
        return True

    def test_none(self) -> None:
        """Without a condition everything holds."""
        self.assertTrue(self.holds(None))
        self.assertTrue(self.holds(NOW))
        WriteCondition().check(NOW)

    def test_if_match(self) -> None:
        """If-Match compares strongly, and `*` wants the object to be there."""
        self.assertTrue(self.holds(NOW, quoted(OTHER, NOW)))
        self.assertFalse(self.holds(NOW, quoted(OTHER)))
        self.assertFalse(self.holds(NOW, f"W/{quoted(NOW)}"))
        self.assertFalse(self.holds(None, quoted(NOW)))
        self.assertTrue(self.holds(NOW, "*"))
        self.assertFalse(self.holds(None, "*"))

    def test_if_none_match(self) -> None:
        """If-None-Match compares weakly, and `*` wants the object to be absent."""
        self.assertTrue(self.holds(NOW, None, quoted(OTHER)))
        self.assertFalse(self.holds(NOW, None, quoted(NOW)))
        self.assertFalse(self.holds(NOW, None, f"W/{quoted(NOW)}"))
        self.assertTrue(self.holds(None, None, quoted(NOW)))
        self.assertFalse(self.holds(NOW, None, "*"))
        self.assertTrue(self.holds(None, None, "*"))

    def test_both(self) -> None:
        """Both must hold."""
        self.assertTrue(self.holds(NOW, quoted(NOW), quoted(OTHER)))
        self.assertFalse(self.holds(NOW, quoted(NOW), "*"))
        self.assertFalse(self.holds(None, "*", "*"))

    def test_encoded_body(self) -> None:
        """Who read the object in gzip may write with the tag that came with it."""
        self.assertTrue(self.holds(NOW, quoted(f"{NOW}-gzip")))
        self.assertTrue(self.holds(NOW, quoted(f"{NOW}-zstd")))
        self.assertFalse(self.holds(NOW, quoted(f"{OTHER}-gzip")))
        self.assertFalse(self.holds(NOW, None, quoted(f"{NOW}-gzip")))

    def test_create_only(self) -> None:
        """Create-only refuses an object that is there, before any other condition."""
        only = WriteCondition.parse(quoted(OTHER), None, create_only=True)
        self.assertRaises(AlreadyExists, only.check, NOW)
        self.assertRaises(ConditionFailed, only.check, None)
        WriteCondition(create_only=True).check(None)

    def test_unmodified_since(self) -> None:
        """The date is about what is there, to the second, and If-Match stands before it."""
        for header, modified, holds in (
            (DATE, MOMENT + 0.9, True),
            (DATE, MOMENT + 1, False),
            (BEFORE, MOMENT, False),
            (AFTER, MOMENT, True),
            ("yesterday", MOMENT, True),
        ):
            asked = WriteCondition.parse(None, None, header)
            check = partial(asked.check, NOW, modified)
            if holds:
                check()
            else:
                self.assertRaises(ConditionFailed, check)
        WriteCondition.parse(None, None, BEFORE).check(None)
        WriteCondition.parse(None, None, BEFORE).check(None, MOMENT)
        WriteCondition.parse(quoted(NOW), None, BEFORE).check(NOW, MOMENT)
        both = WriteCondition.parse(None, quoted(NOW), AFTER)
        self.assertRaises(ConditionFailed, both.check, NOW, MOMENT)


TAGS = st.sampled_from(
    [quoted(f"{hash}{coding}") for hash in (NOW, OTHER) for coding in ("", "-gzip")]
)
LISTS = st.none() | st.just("*") | st.lists(TAGS, min_size=1, max_size=3).map(", ".join)
DATES = st.sampled_from([None, BEFORE, DATE, AFTER])


class OrderTests(SynchronousTestCase):
    """RFC 9110, 13.2.2, step by step, for whatever is sent together."""

    @settings(deadline=None, max_examples=300)
    @given(LISTS, LISTS, DATES, DATES)
    def test_reads(
        self,
        match: str | None,
        none_match: str | None,
        since: str | None,
        unmodified: str | None,
    ) -> None:
        """The first step that decides, decides."""
        plain, gzip = quoted(NOW), quoted(f"{NOW}-gzip")

        def names(header: str) -> bool:
            return header == "*" or plain in header or gzip in header

        expected = "ok"
        if (match is not None and not names(match)) or (
            match is None and unmodified == BEFORE
        ):
            expected = "failed"
        elif none_match is not None:
            expected = "not-modified" if names(none_match) else "ok"
        elif since in (DATE, AFTER):
            expected = "not-modified"
        read = ReadConditions.parse(match, none_match, since, unmodified)
        self.assertEqual(read.decide(NOW, MOMENT + 0.5), expected)

    @settings(deadline=None)
    @given(LISTS, LISTS, st.sampled_from([("identity",), ("gzip",), ("zstd", "gzip")]))
    def test_what_the_client_has(
        self, match: str | None, none_match: str | None, codings: tuple[str, ...]
    ) -> None:
        """A 304 follows only from a tag of what the client takes, and names it."""
        read = ReadConditions.parse(match, none_match)
        held = read.held(NOW, codings)
        if held is not None:
            self.assertIn(
                held, [NOW if c == "identity" else f"{NOW}-{c}" for c in codings]
            )
            assert none_match is not None
            self.assertTrue(none_match == "*" or quoted(held) in none_match)
        if read.decide(NOW, MOMENT, codings) == "not-modified":
            self.assertIsNotNone(held)

    @settings(deadline=None)
    @given(LISTS)
    def test_parts(self, match: str | None) -> None:
        """For a part, If-Match is about the plain body alone."""
        verdict = ReadConditions.parse(match).decide(NOW, MOMENT, part=True)
        holds = match is None or match == "*" or quoted(NOW) in match
        self.assertEqual(verdict, "ok" if holds else "failed")


class ReadConditionsTests(SynchronousTestCase):
    """Conditions of GET and HEAD."""

    def decide(
        self,
        match: str | None = None,
        none_match: str | None = None,
        since: str | None = None,
        unmodified: str | None = None,
    ) -> str:
        """The verdict on NOW, modified half a second after MOMENT."""
        read = ReadConditions.parse(match, none_match, since, unmodified)
        return read.decide(NOW, MOMENT + 0.5)

    def test_alone(self) -> None:
        """Each condition decides what RFC 9110 says."""
        same, other, weak = quoted(NOW), quoted(OTHER), f"W/{quoted(NOW)}"
        self.assertEqual(self.decide(), "ok")
        self.assertEqual(self.decide(match=same), "ok")
        self.assertEqual(self.decide(match="*"), "ok")
        self.assertEqual(self.decide(match=other), "failed")
        self.assertEqual(self.decide(match=weak), "failed")
        self.assertEqual(self.decide(none_match=other), "ok")
        self.assertEqual(self.decide(none_match=weak), "not-modified")
        self.assertEqual(self.decide(none_match="*"), "not-modified")
        self.assertEqual(self.decide(since=BEFORE), "ok")
        self.assertEqual(self.decide(since=DATE), "not-modified")
        self.assertEqual(self.decide(since=AFTER), "not-modified")
        self.assertEqual(self.decide(unmodified=BEFORE), "failed")
        self.assertEqual(self.decide(unmodified=DATE), "ok")

    def test_order(self) -> None:
        """Tags go before dates, and what fails goes before what is not modified."""
        same, other = quoted(NOW), quoted(OTHER)
        self.assertEqual(self.decide(match=same, unmodified=BEFORE), "ok")
        self.assertEqual(self.decide(none_match=other, since=DATE), "ok")
        self.assertEqual(self.decide(none_match=same, since=BEFORE), "not-modified")
        self.assertEqual(self.decide(match=other, none_match=same), "failed")
        self.assertEqual(self.decide(match=same, none_match=same), "not-modified")
        self.assertEqual(self.decide(unmodified=BEFORE, since=DATE), "failed")
        self.assertEqual(self.decide(unmodified=DATE, since=DATE), "not-modified")

    def test_invalid_dates(self) -> None:
        """A date that cannot be read is as good as none."""
        self.assertEqual(self.decide(since="yesterday"), "ok")
        self.assertEqual(self.decide(unmodified="0"), "ok")

    def test_malformed_tags(self) -> None:
        """A tag without quotes is refused, not ignored."""
        self.assertRaises(Malformed, ReadConditions.parse, NOW)
        self.assertRaises(Malformed, ReadConditions.parse, None, NOW)

    def test_if_range(self) -> None:
        """If-Range wants the very tag, strong, or the very second."""
        cases = {
            quoted(NOW): True, quoted(OTHER): False, f"W/{quoted(NOW)}": False,
            quoted(f"{NOW}-gzip"): False, DATE: True, BEFORE: False, AFTER: False,
            NOW: False, "*": False, "": False, quoted(NOW, OTHER): False,
        }  # fmt: skip
        for header, allowed in cases.items():
            read = ReadConditions.parse(if_range=header)
            self.assertEqual(read.range_allowed(NOW, MOMENT + 0.9), allowed, header)
        self.assertTrue(ReadConditions().range_allowed(NOW, MOMENT))
        self.assertFalse(ReadConditions.parse(if_range="x").range_allowed(NOW, 0))


class DateTests(SynchronousTestCase):
    """The HTTP-date of RFC 9110, 5.6.7."""

    def test_three_forms(self) -> None:
        """All three forms name the same second."""
        for text in (
            DATE,
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse_http_date(text), MOMENT)
        self.assertEqual(parse_http_date("Thursday, 01-Jan-70 00:00:00 GMT"), 0)

    @settings(deadline=None)
    @given(st.datetimes(datetime(1900, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001 - made aware below
    def test_round_trip(self, moment: datetime) -> None:
        """What a server writes is read back to the second."""
        moment = moment.replace(tzinfo=UTC, microsecond=0)
        text = format_datetime(moment, usegmt=True)
        self.assertEqual(parse_http_date(text), moment.timestamp())

    def test_invalid(self) -> None:
        """Whatever is not exactly one of the forms is no date."""
        wrong = (
            None, "", "0", "-1", "Sun, 31 Feb 1994 08:49:37 GMT", DATE[:-4],
            "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT",
            "1994-11-06T08:49:37Z", "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        )  # fmt: skip
        for text in wrong:
            self.assertIsNone(parse_http_date(text), text)
