"""Signatures of requests: what they open, and what they do not."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.signing import (
    GUARDED,
    WINDOW,
    Caller,
    Guard,
    Nonces,
    Signed,
    Unsigned,
    WrongTime,
)

SECRET = b"a secret of more than thirty-two characters"
OTHER = b"another secret of more than thirty-two chars"
HOST = "10.0.0.1:8081"


class Both:
    """A caller and a node, each with a clock, and a source of nonces that counts."""

    def __init__(self, secrets: tuple[bytes, ...] = (SECRET,)) -> None:
        self.here = self.there = 1_700_000_000.5
        self._count = 0
        self.nonces = Nonces()
        self.caller = Caller("api-1", SECRET, lambda: self.here, self._entropy)
        self.secrets = secrets
        self.start()

    def start(self) -> None:
        """The node's process starts."""
        self.guard = Guard(
            self.secrets, lambda: {HOST}, lambda: self.there, self.nonces
        )

    def _entropy(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size)

    def sign(
        self, method: str = "GET", target: str = "/x", **guarded: str
    ) -> dict[str, str]:
        """All headers of one request."""
        given = {key.replace("_", "-"): value for key, value in guarded.items()}
        signature = self.caller.headers(HOST, method, HOST, target, given)
        return {"Host": HOST, **given, **signature}

    def check(
        self, headers: dict[str, str], method: str = "GET", target: str = "/x"
    ) -> str:
        """What the node says of a request."""
        return self.guard.check(method, target, headers.get).caller


class SigningTests(SynchronousTestCase):
    """One caller, one node."""

    def setUp(self) -> None:
        """A caller and a node that share a secret."""
        self.both = Both()

    def refused(self, headers: dict[str, str], *more: Any) -> None:
        """The node does not take it."""
        with self.assertRaises(Unsigned):
            self.both.check(headers, *more)

    def test_form(self) -> None:
        """The mac is HMAC-SHA256 over the ten lines that the documentation names."""
        lines = "OSTORE1\nPUT\nh:1\n/t?a=b\n17\n00ff\nme\nSHA-256=x\n-\n5"
        expected = hmac.new(SECRET, lines.encode(), hashlib.sha256).hexdigest()
        signed = Signed(
            "PUT", "h:1", "/t?a=b", "17", "00ff", "me", "SHA-256=x", None, "5"
        )
        self.assertEqual(signed.mac(SECRET), expected)

    def test_accepted(self) -> None:
        """A signed request names its caller; the body's headers are part of it."""
        headers = self.both.sign("PATCH", "/temp/1", Upload_Offset="0", Size="9")
        self.assertEqual(self.both.check(headers, "PATCH", "/temp/1"), "api-1")

    def test_unsigned(self) -> None:
        """Each of the three headers must be there and have its form."""
        for missing in ("Authorization", "X-Ostore-Date", "X-Ostore-Nonce"):
            headers = self.both.sign()
            del headers[missing]
            self.refused(headers)
        for key, wrong in (
            ("Authorization", "Basic abc"),
            ("Authorization", "OSTORE1 a:b:" + "0" * 64),
            ("X-Ostore-Date", "-1"),
            ("X-Ostore-Nonce", "0" * 31),
        ):
            self.refused({**self.both.sign(), key: wrong})
        self.assertEqual(self.both.guard.refused, 7)

    def test_tampered(self) -> None:
        """Another method, target, host, digest, size or offset: refused."""
        self.refused(self.both.sign(), "DELETE")
        self.refused(self.both.sign(), "GET", "/y")
        for key in ("Host", *GUARDED, "X-Ostore-Date", "X-Ostore-Nonce"):
            headers = self.both.sign()
            old = headers.get(key, "")
            self.refused({**headers, key: ("1" if old[:1] == "0" else "0") + old[1:]})
        for key in GUARDED:
            headers = self.both.sign(**{key.replace("-", "_"): "1"})
            del headers[key]
            self.refused(headers)

    def test_other_host(self) -> None:
        """A request for one node does not open another, though the secret is one."""
        headers = self.both.sign()
        self.both.guard = Guard(
            [SECRET], lambda: {"10.0.0.2:8081"}, lambda: self.both.there, Nonces()
        )
        self.refused(headers)

    def test_replay(self) -> None:
        """A nonce is taken once, also by a sibling that shares the memory."""
        headers = self.both.sign()
        self.both.check(headers)
        self.refused(headers)
        self.both.start()
        self.refused(headers)
        self.both._count = 0
        self.both.here += 1
        self.refused(self.both.sign())  # the same nonce under another date

    def test_dates(self) -> None:
        """A minute either way is of now; more is not, and says so apart."""
        for skew, fits in ((WINDOW - 1, True), (WINDOW + 2, False)):
            for sign in (1, -1):
                self.setUp()
                self.both.guard = Guard(
                    [SECRET], lambda: {HOST}, lambda: 0.0, self.both.nonces
                )
                self.both.guard._wall = lambda: self.both.there  # the start is long ago
                self.both.here += sign * skew
                headers = self.both.sign()
                if fits:
                    self.both.check(headers)
                else:
                    with self.assertRaises(WrongTime):
                        self.both.check(headers)

    def test_start(self) -> None:
        """What was signed before the node's start is refused: its nonce is forgotten."""
        headers = self.both.sign()
        self.both.there += 1
        self.both.nonces = Nonces()
        self.both.start()
        with self.assertRaises(WrongTime):
            self.both.check(headers)

    def test_offset(self) -> None:
        """A caller that was told the peer's time signs by it: two minutes do not matter."""
        self.both.there += 120
        self.both.start()
        self.refused(self.both.sign())
        self.both.caller.told(HOST, self.both.there)
        self.both.check(self.both.sign())
        self.assertEqual(self.both.caller.time_of(HOST), self.both.there)
        self.both.caller.keep([])
        self.assertEqual(self.both.caller.time_of(HOST), self.both.here)

    def test_rotation(self) -> None:
        """Every secret of the file opens; one that is not in it does not."""
        self.both = Both((OTHER, SECRET))
        self.both.check(self.both.sign())
        self.both = Both((OTHER,))
        self.refused(self.both.sign())

    def test_bounded(self) -> None:
        """So many nonces are remembered and no more; old ones make room."""
        nonces = Nonces(limit=2)
        self.assertTrue(nonces.take("0" * 32, 100, 100))
        self.assertTrue(nonces.take("1" * 32, 100, 100))
        self.assertFalse(nonces.take("2" * 32, 100, 100))
        self.assertTrue(nonces.take("2" * 32, 161, 161.5))

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, 30), st.integers(-60, 60)), max_size=60),
        st.integers(0, 100),
    )
    def test_no_replay_ever(self, asked: list[tuple[int, int]], step: int) -> None:
        """Whatever the times, no nonce that is accepted for its date passes twice."""
        nonces, now = Nonces(), 1000.0
        taken: set[tuple[int, int]] = set()
        for number, shift in asked:
            date = int(now) + shift
            accepted = abs(date - now) <= WINDOW and nonces.take(
                f"{number:032x}", date, now
            )
            if accepted:
                self.assertNotIn((number, date), taken)
                taken.add((number, date))
            now += step / 10
