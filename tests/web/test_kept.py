"""The headers an object keeps."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.errors import Malformed
from ostore.web.api.kept import given_back, kept_headers

VALUES = st.binary(max_size=40).map(
    lambda raw: bytes(octet for octet in raw if octet == 9 or 32 <= octet != 127)
)
NAMES = st.sampled_from(
    [b"Content-Type", b"cache-control", b"X-Ostore-Meta-Note", b"X-OSTORE-META-a.b_c"]
)


class KeptTests(SynchronousTestCase):
    """From what came in to what goes out."""

    @settings(deadline=None)
    @given(name=NAMES, value=VALUES)
    def test_round_trip(self, name: bytes, value: bytes) -> None:
        """Any octets but control characters go out as they came in."""
        kept = kept_headers([(name, [value])])
        for text in kept.values():
            text.encode("utf-8")
        out = {key.lower(): text for key, text in given_back(kept).items()}
        stripped = value.strip(b" \t")
        if stripped:
            got = out[name.decode().lower()].encode("utf-8", "surrogateescape")
            self.assertEqual(got, stripped)

    def test_lists_are_joined(self) -> None:
        """Several lines of a list become one."""
        kept = kept_headers([(b"Cache-Control", [b"private", b"max-age=1"])])
        self.assertEqual(kept, {"cache-control": "private, max-age=1"})

    def test_only_the_kept_ones(self) -> None:
        """Nothing else is taken."""
        lines = [(b"Host", [b"x"]), (b"Content-Length", [b"3"]), (b"Digest", [b"y"])]
        self.assertEqual(kept_headers(lines), {})

    def test_default_type(self) -> None:
        """Without a type, or with an empty one, it is bytes."""
        for lines in ([], [(b"Content-Type", [b""])]):
            back = given_back(kept_headers(lines))
            self.assertEqual(back, {"Content-Type": "application/octet-stream"})

    def test_control_characters(self) -> None:
        """No control character but the tab is kept."""
        for octet in [*range(9), *range(10, 32), 127]:
            with self.assertRaises(Malformed):
                kept_headers([(b"X-Ostore-Meta-A", [b"a" + bytes([octet]) + b"b"])])

    def test_strange_names(self) -> None:
        """What follows X-Ostore-Meta- is a token."""
        for name in (b"", b" ", b"a b", b"\xe9", b"a:b", b"(a)"):
            with self.assertRaises(Malformed):
                kept_headers([(b"X-Ostore-Meta-" + name, [b"x"])])
