"""Names from outside."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model import names
from ostore.model.errors import Malformed

HASH = "0123456789abcdef" * 4


class ObjectNameTests(SynchronousTestCase):
    """Names of objects."""

    @settings(deadline=None)
    @given(st.text(min_size=1, max_size=256))
    def test_round_trip(self, name: str) -> None:
        """Every name without NUL comes back from its URL form, which is plain ASCII."""
        assume("\0" not in name)
        quoted = names.quote_name(name)
        self.assertRegex(quoted, r"\A[A-Za-z0-9._~/%-]+\Z")
        self.assertEqual(names.object_name(quoted.encode("ascii")), name)

    def test_decoded_once(self) -> None:
        """An escaped percent sign stays one; a plus sign, dots and slashes too."""
        cases = {
            b"%2541": "%41", b"a+b": "a+b", b"../..//x": "../..//x", b"a%2Fb": "a/b",
            b"%2e%2E": "..", b"%0a": "\n", "ä".encode(): "ä", b"%C3%a4": "ä", b"/": "/",
        }  # fmt: skip
        for raw, name in cases.items():
            self.assertEqual(names.object_name(raw), name)

    def test_length(self) -> None:
        """1024 bytes after decoding are allowed, one more is not."""
        self.assertEqual(names.object_name(b"%61" * 1024), "a" * 1024)
        self.assertEqual(len(names.object_name(b"%C3%A4" * 512)), 512)
        for raw in (b"a" * 1025, b"%C3%A4" * 513):
            error = self.assertRaises(Malformed, names.object_name, raw)
            self.assertIn("1 to 1024", str(error))

    def test_refused(self) -> None:
        """Each fault has its own sentence."""
        cases = {
            b"": "empty", b"%": "hex digits", b"a%2": "hex digits", b"%zz": "hex digits",
            b"%00": "NUL", b"a\0": "NUL", b"%ff": "UTF-8", b"\xc3": "UTF-8",
            b"%ED%A0%80": "UTF-8", b"%C0%AF": "UTF-8",
        }  # fmt: skip
        for raw, word in cases.items():
            error = self.assertRaises(Malformed, names.object_name, raw)
            self.assertIn(word, str(error))

    @settings(deadline=None)
    @given(st.binary(max_size=40))
    def test_any_bytes(self, raw: bytes) -> None:
        """Whatever comes is a name of 1 to 1024 bytes, or Malformed."""
        try:
            name = names.object_name(raw)
        except Malformed:
            return
        self.assertTrue(1 <= len(name.encode()) <= names.MAX_NAME)


class ShardNameTests(SynchronousTestCase):
    """Names that become paths."""

    def test_good(self) -> None:
        """A hash alone, or with an index."""
        self.assertEqual(names.shard_name(HASH), (HASH, None))
        self.assertEqual(names.shard_name(f"{HASH}.0"), (HASH, 0))
        self.assertEqual(names.shard_name(f"{HASH}.31"), (HASH, 31))
        self.assertEqual(names.upload_name(HASH[:32]), HASH[:32])

    def test_refused(self) -> None:
        """Nothing else: no capitals, no second spelling of an index, no line end."""
        wrong = (
            "", HASH[1:], HASH.upper(), f"{HASH}.", f"{HASH}.00", f"{HASH}.32",
            f"{HASH}.100", f"{HASH}.-1", f"{HASH}.0\n", f"{HASH}\n", f"../{HASH}",
            f"{HASH}.1.2", f"{HASH}.\u0661", f"{HASH}/x",
        )  # fmt: skip
        for text in wrong:
            self.assertRaises(Malformed, names.shard_name, text)
        dashed = "01234567-89ab-cdef-0123-456789abcdef"
        for text in (
            "",
            HASH[:31],
            HASH[:33],
            HASH[:32].upper(),
            dashed,
            "a" * 31 + "\n",
        ):
            self.assertRaises(Malformed, names.upload_name, text)


class LogSafeTests(SynchronousTestCase):
    """Text for log lines."""

    @settings(deadline=None)
    @given(st.text(st.characters(), max_size=50))
    def test_one_line(self, text: str) -> None:
        """Whatever comes, what goes into the log is one printable line, bounded."""
        shown = names.log_safe(text, 20)
        self.assertTrue(shown.isprintable())
        self.assertLessEqual(len(shown), 21 * 10)

    def test_readable(self) -> None:
        """Plain text stays as it is; control characters show; the rest is cut."""
        self.assertEqual(names.log_safe("grün/\\n"), "grün/\\n")
        self.assertEqual(names.log_safe("a\r\nb\x1b\u2028"), r"a\r\nb\x1b\u2028")
        self.assertEqual(names.log_safe("abcdef", 3), "abc…")
