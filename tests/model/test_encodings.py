"""Which coding a client gets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.encodings import IDENTITY, OFFERED, choose, taken, worth_coding

NAMED = ("gzip", "zstd", "identity", "*", "br")
Wishes = dict[str, int]
"""Codings and their q-values in thousandths."""


@st.composite
def accepts(draw: st.DrawFn) -> tuple[str, Wishes]:
    """A right Accept-Encoding, in any way of writing it, and what it says."""
    wishes = draw(st.dictionaries(st.sampled_from(NAMED), st.integers(0, 1000)))
    parts = []
    for coding, thousandths in wishes.items():
        name = draw(st.sampled_from([coding, coding.upper()]))
        space = draw(st.sampled_from(["", " ", "\t"]))
        q = f"{thousandths / 1000:.3f}"
        q = draw(st.sampled_from([q, q.rstrip("0")]))
        letter = draw(st.sampled_from("qQ"))
        bare = thousandths == 1000 and draw(st.booleans())
        parts.append(name if bare else f"{name}{space};{space}{letter}={q}")
        parts.extend(draw(st.sampled_from([[], [""], [" "]])))
    return draw(st.sampled_from([",", ", ", " ,\t"])).join(parts), wishes


def quality(wishes: Wishes, coding: str) -> float:
    """How much a coding is wished for; identity is welcome where nothing forbids it."""
    if coding in wishes:
        return wishes[coding]
    if coding != IDENTITY:
        return wishes.get("*", 0)
    return wishes.get("*", 0.5)


class ChooseTests(SynchronousTestCase):
    """Accept-Encoding (RFC 9110, 12.5.3)."""

    def test_table(self) -> None:
        """What each header gets; None stands for 406."""
        for header, coding in (
            (None, IDENTITY),
            ("", IDENTITY),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("GZIP", "gzip"),
            ("gzip, zstd", "zstd"),
            ("gzip;q=1.0, zstd;q=0.5", "gzip"),
            ("gzip ; q=0.2 , zstd;Q=0.1", "gzip"),
            ("*", "zstd"),
            ("zstd;q=0, *", "gzip"),
            ("gzip;q=0", IDENTITY),
            ("gzip;q=0, *;q=0.5", "zstd"),
            ("br", IDENTITY),
            ("br, deflate;q=0.5", IDENTITY),
            ("identity", IDENTITY),
            ("identity;q=0.5, gzip;q=0.4", IDENTITY),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("identity;q=0", None),
            ("*;q=0", None),
            ("identity;q=0, gzip;q=0.001", "gzip"),
            ("*;q=0, identity", IDENTITY),
            ("gzip;q=2", IDENTITY),
            ("gzip;q=0.1234", IDENTITY),
            ("gzip;q=0.5;level=9, zstd", "zstd"),
        ):
            self.assertEqual(choose(header), coding, header)

    @settings(deadline=None, max_examples=300)
    @given(accepts())
    def test_as_the_rfc_says(self, asked: tuple[str, Wishes]) -> None:
        """All that is acceptable and nothing else, the greatest quality first."""
        header, wishes = asked
        found = taken(header)
        ranks = [quality(wishes, coding) for coding in found]
        self.assertEqual(ranks, sorted(ranks, reverse=True))
        wanted = {c for c in (*OFFERED, IDENTITY) if quality(wishes, c) > 0}
        self.assertEqual((set(found), len(found)), (wanted, len(wanted)))
        for one, other in pairwise(found):
            if quality(wishes, one) == quality(wishes, other):
                self.assertNotEqual(one, IDENTITY)

    @settings(deadline=None, max_examples=200)
    @given(st.text(alphabet="gzipstdenty*;q=01., -", max_size=60))
    def test_anything(self, header: str) -> None:
        """Whatever is sent, the choice is one of ours, and none that was refused."""
        coding = choose(header)
        self.assertIn(coding, (*OFFERED, IDENTITY, None))
        refused = [part.replace(" ", "") for part in header.split(",")]
        if coding is not None and refused.count(f"{coding};q=0") == 1:
            last = [p for p in refused if p.startswith(coding)][-1]
            self.assertNotEqual(last, f"{coding};q=0")

    def test_worth(self) -> None:
        """Compressed types, coded bodies and small ones stay as they are."""
        for kind, coded in (
            ("text/plain; charset=utf-8", True),
            ("application/json", True),
            ("image/svg+xml", True),
            ("application/octet-stream", True),
            ("", True),
            ("image/png", False),
            ("IMAGE/JPEG", False),
            ("video/mp4", False),
            ("application/zip", False),
            ("application/x-7z-compressed", False),
            ("application/gzip", False),
            ("application/vnd.openxmlformats-officedocument.wordprocessingml", False),
        ):
            self.assertEqual(worth_coding({"content-type": kind}, 1000), coded, kind)
        self.assertFalse(worth_coding({"content-encoding": "br"}, 1000))
        self.assertFalse(worth_coding({}, 100))
