"""Globs over names."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.globs import Globs

CASES = (
    ("*.raw", ("a.raw", "x/y/a.raw", ".raw"), ("a.rawx", "a.raw/b")),
    ("x/*.raw", ("x/a.raw",), ("y/x/a.raw", "x/y/a.raw", "a.raw")),
    ("/a", ("a",), ("x/a",)),
    ("cache/", ("cache/a", "x/cache/a/b"), ("cache", "xcache/a")),
    ("/cache/", ("cache/a",), ("x/cache/a",)),
    ("x/**/z", ("x/z", "x/y/z", "x/y/y/z"), ("xz", "x/yz")),
    ("**", ("a", "a/b"), ()),
    ("a?c", ("abc", "x/a?c"), ("a/c", "ac")),
    ("[a-c]1", ("a1", "c1"), ("d1", "1")),
    ("[!a-c]1", ("d1",), ("a1",)),
    ("[]", ("[]",), ("a",)),
    ("[z-a]", ("[z-a]",), ("z",)),
    ("[^a]", ("^", "a"), ("b",)),
    ("a\nb", ("a\nb",), ("a b",)),
)


class GlobTests(SynchronousTestCase):
    """What fits, and what does not."""

    def test_cases(self) -> None:
        """Each pattern fits what it should."""
        for pattern, fitting, others in CASES:
            globs = Globs([pattern])
            for name in fitting:
                self.assertTrue(globs.match(name), (pattern, name))
            for name in others:
                self.assertFalse(globs.match(name), (pattern, name))

    def test_any(self) -> None:
        """One of several is enough; of none, nothing fits."""
        self.assertTrue(Globs(["a", "b"]).match("b"))
        self.assertFalse(Globs([]).match("b"))

    @given(st.text(min_size=1, max_size=20))
    @settings(deadline=None, max_examples=200)
    def test_plain(self, name: str) -> None:
        """A name without wild characters fits itself; any pattern can be read."""
        Globs([name]).match(name)
        plain = re.sub(r"[*?\[\]]", "x", name).strip("/")
        if plain:
            self.assertTrue(Globs([plain]).match(plain))
