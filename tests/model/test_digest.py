"""SHA-256 in headers and paths."""

from __future__ import annotations

import contextlib
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model import digest
from ostore.model.errors import Malformed

HASHES = st.binary(min_size=32, max_size=32)
ONE = sha256(b"one").hexdigest()
TWO = sha256(b"two").hexdigest()
ONE_64 = digest.hex_to_base64(ONE)
NOT_CANONICAL = "A" * 42 + "B="
"""Decodes to 32 bytes, but holds two bits that are lost on the way."""


def rfc3230(*lines: str) -> str | None:
    """What `Digest` alone promises."""
    return digest.parse_digest_headers(lines, (), ())


def rfc9530(*lines: str) -> str | None:
    """What `Content-Digest` alone promises; `Repr-Digest` must agree."""
    found = digest.parse_digest_headers((), lines, ())
    assert found == digest.parse_digest_headers((), (), lines)
    return found


class ContentHashTests(SynchronousTestCase):
    """The hash in a path."""

    @settings(deadline=None)
    @given(HASHES)
    def test_every_form_names_the_same_hash(self, raw: bytes) -> None:
        """Hex of either case, base64 and base64url with or without `=` all work."""
        url = urlsafe_b64encode(raw).decode()
        forms = (raw.hex(), raw.hex().upper(), b64encode(raw).decode(), url, url[:-1])
        for form in forms:
            self.assertEqual(digest.parse_content_hash(form), raw.hex())
        self.assertEqual(digest.parse_hex(raw.hex().upper()), raw.hex())

    def test_refused(self) -> None:
        """Other lengths, mixed alphabets, white space and stray bits are Malformed."""
        wrong = (
            "", "ab", ONE[:-1], ONE + "0", ONE + "\n", f" {ONE}", "g" * 64,
            "+" + "-" * 42 + "=", ONE_64 + "=", ONE_64[:-2] + "==", NOT_CANONICAL,
            NOT_CANONICAL[:-1], "\u0661" * 64,
        )  # fmt: skip
        for text in wrong:
            self.assertRaises(Malformed, digest.parse_content_hash, text)
            self.assertRaises(Malformed, digest.parse_hex, text)

    @settings(deadline=None)
    @given(st.text(max_size=70))
    def test_only_malformed(self, text: str) -> None:
        """No text does anything but give a hash or raise Malformed."""
        with contextlib.suppress(Malformed):
            self.assertRegex(digest.parse_content_hash(text), r"\A[0-9a-f]{64}\Z")

    def test_empty(self) -> None:
        """EMPTY is the hash of nothing."""
        self.assertEqual(digest.EMPTY, sha256().hexdigest())


class DigestTests(SynchronousTestCase):
    """The `Digest` header of RFC 3230."""

    def test_found(self) -> None:
        """SHA-256 is found in any case, among others, on any line."""
        self.assertEqual(rfc3230(digest.digest_header(ONE)), ONE)
        self.assertEqual(rfc3230(f"sha-256={ONE_64}"), ONE)
        self.assertEqual(rfc3230(f"MD5=x==, Sha-256={ONE_64} , unixsum=30637"), ONE)
        self.assertEqual(rfc3230("md5=abc", f"SHA-256={ONE_64}"), ONE)
        self.assertEqual(rfc3230(f"SHA-256={ONE_64},,SHA-256={ONE_64}"), ONE)

    def test_ignored(self) -> None:
        """Algorithms that are not SHA-256 promise nothing."""
        self.assertIsNone(rfc3230())
        self.assertIsNone(rfc3230("md5=HUXZLQLMuI/KZ5KDcJPcOA==", "SHA-512=x"))

    def test_malformed(self) -> None:
        """A bad SHA-256 is refused by a sentence that shows a good one."""
        values = ("", "incorrecthash", ONE, ONE_64[:-1], NOT_CANONICAL, f'"{ONE_64}"')
        wrong = [f"SHA-256={value}" for value in values]
        wrong += ["", ",", "SHA-256", "=x", f"md5=x, SHA-256={ONE_64[1:]}"]
        for line in wrong:
            error = self.assertRaises(Malformed, rfc3230, line)
            self.assertIn("SHA-256=<base64 of 32 bytes>", str(error))

    def test_two_promises(self) -> None:
        """Two SHA-256 values that differ are refused, wherever they stand."""
        one, two = digest.digest_header(ONE), digest.digest_header(TWO)
        self.assertRaises(Malformed, rfc3230, f"{one}, {two}")
        self.assertRaises(Malformed, rfc3230, one, two)
        second = digest.repr_digest_header(TWO)
        parse = digest.parse_digest_headers
        self.assertRaises(Malformed, parse, [one], [second], [])
        self.assertRaises(Malformed, parse, [one], [], [second])
        same = digest.repr_digest_header(ONE)
        self.assertEqual(parse([one], [same], [same]), ONE)


class ContentDigestTests(SynchronousTestCase):
    """`Content-Digest` and `Repr-Digest` of RFC 9530."""

    def test_found(self) -> None:
        """The member sha-256 is found among others, with or without parameters."""
        good = digest.repr_digest_header(ONE)
        self.assertEqual(good, f"sha-256=:{ONE_64}:")
        lines = (
            good,
            f"sha-512=:AAAA:,\t{good}",
            f"{good};note=x; q;s=\"a, b\" , md5=:AA==:;x",
            f"unixsum=30637, a=(1 \"),\" 2);b, {good}",
            f"flag, t=?1, {good}",
        )  # fmt: skip
        for line in lines:
            self.assertEqual(rfc9530(line), ONE)
        self.assertEqual(rfc9530("sha-512=:AAAA:", good), ONE)

    def test_ignored(self) -> None:
        """Other algorithms promise nothing."""
        self.assertIsNone(rfc9530())
        self.assertIsNone(rfc9530("sha-512=:AAAA:, md5"))

    def test_malformed(self) -> None:
        """What is no dictionary, or no 32 bytes, is refused."""
        good = digest.repr_digest_header(ONE)
        wrong = (
            "", ",", "sha-256", f"sha-256={ONE_64}", f'sha-256="{ONE_64}"',
            "sha-256=::", "sha-256=:", f"sha-256=:{NOT_CANONICAL}:",
            f"sha-256=:{ONE_64[:-1]}:", f"{good},", f",{good}", f"{good} {good}",
            f"SHA-256=:{ONE_64}:", f"{good};", f"sha-256=({good})",
        )  # fmt: skip
        for line in wrong:
            error = self.assertRaises(Malformed, rfc9530, line)
            self.assertIn("sha-256=:<base64 of 32 bytes>:", str(error))

    def test_wanted(self) -> None:
        """Want-Repr-Digest: a preference from 0 (not this) to 10, else nothing is said."""
        for header, wanted in (
            ("sha-256=1", True),
            ("sha-256=10", True),
            ("sha-256=0", False),
            ("sha-512=3, sha-256=7;x=1", True),
            ("sha-256=3, sha-256=0", False),
            ("sha-512=3", None),
            ("sha-256=11", None),
            ("sha-256", None),
            ("sha-256=:AA==:", None),
            ("sha-256=1,", None),
            ("", None),
            (None, None),
        ):
            self.assertIs(digest.wanted(header), wanted, header)

    @settings(deadline=None)
    @given(st.lists(st.text(st.characters(max_codepoint=255), max_size=60), max_size=3))
    def test_only_malformed(self, lines: list[str]) -> None:
        """No header text does anything but give a hash, None, or raise Malformed."""
        for parse in (rfc3230, rfc9530):
            with contextlib.suppress(Malformed):
                self.assertIsNone(parse(*lines))
