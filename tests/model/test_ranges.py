"""The Range header."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.errors import Refused
from ostore.model.ranges import (
    GAP,
    MAX_RANGES,
    Span,
    Unsatisfiable,
    merged,
    parse_ranges,
    runs,
)

SIZES = st.integers(0, 300)
NUMBERS = st.integers(0, 320)


def spans(header: str, size: int = 100) -> list[tuple[int, int]] | None:
    """Start and stop of each span."""
    found = parse_ranges(header, size)
    return None if found is None else [(s.start, s.stop) for s in found]


class RangesTests(SynchronousTestCase):
    """Single and several ranges."""

    def test_forms(self) -> None:
        """From-to, from, and the last n; cut at the end of the object."""
        cases = {
            "bytes=0-0": (0, 1), "bytes=0-99": (0, 100), "bytes=10-1000": (10, 100),
            "bytes=99-": (99, 100), "bytes=0-": (0, 100), "bytes=-1": (99, 100),
            "bytes=-100": (0, 100), "bytes=-200": (0, 100), "BYTES=1-2": (1, 3),
            " bytes=,1-2,": (1, 3), "bytes=0010-0011": (10, 12),
            "bytes=5-99999999999999999999999999": (5, 100),
            "bytes=-99999999999999999999999999": (0, 100),
        }  # fmt: skip
        for header, span in cases.items():
            self.assertEqual(spans(header), [span], header)

    def test_several(self) -> None:
        """Several come back in the order in which they were asked for."""
        self.assertEqual(spans("bytes=50-59, 0-1 ,-2"), [(50, 60), (0, 2), (98, 100)])
        self.assertEqual(spans("bytes=0-9,5-14"), [(0, 10), (5, 15)])
        self.assertEqual(spans("bytes=200-,0-1,-0"), [(0, 2)])

    def test_ignored(self) -> None:
        """Other units and bad syntax leave the whole object."""
        wrong = (
            "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=2-1",
            "bytes=1", "bytes=--1", "bytes=1-2-3", "bytes=+1-2", "bytes=1_0-20",
            "bytes=0x1-2", "bytes=1 - 2", "bytes =1-2", "items=0-1", "bytes:0-1",
            "bytes=0-1;2-3", "bytes=0-1,x", "bytes=\u0661-\u0662", "bytes=1.0-2",
        )  # fmt: skip
        for header in wrong:
            self.assertIsNone(spans(header), header)

    def test_unsatisfiable(self) -> None:
        """When nothing is in reach the error knows the size."""
        for header in ("bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,-0",
                       f"bytes={'9' * 4000}-", f"bytes={'9' * 5000}-{'9' * 5000}"):  # fmt: skip
            error = self.assertRaises(Unsatisfiable, parse_ranges, header, 100)
            self.assertEqual(error.content_range, "bytes */100")
            self.assertIsInstance(error, Refused)

    def test_nothing_there(self) -> None:
        """Of an empty object no byte is in reach, and its last bytes are all of it."""
        self.assertRaises(Unsatisfiable, parse_ranges, "bytes=0-", 0)
        self.assertRaises(Unsatisfiable, parse_ranges, "bytes=-0", 0)
        self.assertIsNone(spans("bytes=-5", 0))

    def test_too_many(self) -> None:
        """Too many ranges, or more bytes than there are, leave the whole object."""
        many = ",".join(f"{2 * i}-{2 * i}" for i in range(MAX_RANGES))
        self.assertEqual(len(spans(f"bytes={many}", 1000) or ()), MAX_RANGES)
        self.assertIsNone(spans(f"bytes={many},999-", 1000))
        self.assertIsNone(spans("bytes=0-,0-"))

    def test_content_range(self) -> None:
        """Content-Range counts to the last byte, not behind it."""
        span = Span(3, 7)
        self.assertEqual(span.length, 4)
        self.assertEqual(span.content_range(10), "bytes 3-6/10")

    @settings(deadline=None)
    @given(SIZES, NUMBERS, NUMBERS)
    def test_like_slices(self, size: int, first: int, last: int) -> None:
        """A range holds just the bytes that a slice of the object would."""
        body = bytes(i % 251 for i in range(size))
        expected = {
            f"bytes={first}-": body[first:],
            f"bytes=-{first}": body[-first:] if first else b"",
        }
        if first <= last:
            expected[f"bytes={first}-{last}"] = body[first : last + 1]
        for header, part in expected.items():
            try:
                found = parse_ranges(header, size)
            except Unsatisfiable:
                self.assertEqual(part, b"")
                continue
            if found is None:
                self.assertEqual(size, 0)
                continue
            self.assertEqual([body[s.start : s.stop] for s in found], [part])
            self.assertNotEqual(part, b"")

    @settings(deadline=None)
    @given(st.lists(st.tuples(SIZES, st.integers(1, 200)), min_size=1, max_size=8))
    def test_merged(self, pairs: list[tuple[int, int]]) -> None:
        """Merging keeps every byte asked for, sends none twice, and adds none."""
        asked = [Span(10 * start, 10 * start + length) for start, length in pairs]
        found = merged(asked)
        held = [i for span in found for i in range(span.start, span.stop)]
        self.assertEqual(len(held), len(set(held)))
        wanted = {i for span in asked for i in range(span.start, span.stop)}
        self.assertEqual(wanted, set(held))
        if found != asked:
            self.assertEqual(found, sorted(found, key=lambda span: span.start))
        for one, other in pairwise(sorted(found, key=lambda span: span.start)):
            self.assertGreater(other.start, one.stop)

    @settings(deadline=None)
    @given(st.lists(st.tuples(SIZES, st.integers(1, 9)), min_size=1, max_size=8))
    def test_runs(self, pairs: list[tuple[int, int]]) -> None:
        """Runs are the same spans in their order; within one they ascend and are near."""
        spans = [Span(start << 17, (start << 17) + length) for start, length in pairs]
        found = runs(spans)
        self.assertEqual([span for run in found for span in run], spans)
        for run in found:
            for one, other in pairwise(run):
                self.assertTrue(0 <= other.start - one.stop < GAP)
        for run, following in pairwise(found):
            gap = following[0].start - run[-1].stop
            self.assertFalse(0 <= gap < GAP)

    @settings(deadline=None)
    @given(st.text("bytes=0123456789-, +_\u0661", max_size=40), SIZES)
    def test_any_text(self, text: str, size: int) -> None:
        """Whatever comes, spans lie within the object and hold something."""
        for header in (text, f"bytes={text}"):
            try:
                found = parse_ranges(header, size) or []
            except Unsatisfiable:
                continue
            for span in found:
                self.assertTrue(0 <= span.start < span.stop <= size)
