"""Which coding a client gets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.encodings import IDENTITY, OFFERED, choose, worth_coding


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
