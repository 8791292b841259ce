"""Upload tokens."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.tokens import GUESS, Forged, Token, Tokens

SECRET = b"s" * 32
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
nodes = st.one_of(st.just(""), ids.filter(lambda node: node[:GUESS] != "0" * GUESS))
tokens = st.builds(Token, ids, st.lists(nodes, min_size=1, max_size=32).map(tuple))


class TokenTests(SynchronousTestCase):
    """Sealed, opened, forged."""

    @settings(deadline=None)
    @given(tokens)
    def test_round(self, token: Token) -> None:
        """What was sealed is opened; of a node's id its beginning is kept."""
        text = Tokens([SECRET]).seal(token)
        opened = Tokens([SECRET]).open(text)
        self.assertEqual(opened.upload, token.upload)
        self.assertEqual(opened.nodes, tuple(node[:GUESS] for node in token.nodes))
        self.assertTrue(set(text) <= set(ALPHABET))

    def test_short(self) -> None:
        """With six nodes it has 108 characters."""
        text = Tokens([SECRET]).seal(Token("ab" * 16, ("cd" * 16,) * 6))
        self.assertEqual(len(text), 108)

    @settings(deadline=None)
    @given(tokens, st.data())
    def test_changed(self, token: Token, data: st.DataObject) -> None:
        """Any other character anywhere, one less or one more: forged."""
        keys = Tokens([SECRET])
        text = keys.seal(token)
        at = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.sampled_from([c for c in ALPHABET if c != text[at]]))
        for forged in (
            text[:at] + other + text[at + 1 :],
            text[:at] + text[at + 1 :],
            text[:at] + other + text[at:],
            text + "=",
            text + "\n",
        ):
            self.assertRaises(Forged, keys.open, forged)

    @settings(deadline=None)
    @given(tokens, st.integers(0, 7))
    def test_changed_bytes(self, token: Token, bit: int) -> None:
        """Any other bit anywhere: forged."""
        keys = Tokens([SECRET])
        text = keys.seal(token)
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        for at in range(len(raw)):
            forged = bytearray(raw)
            forged[at] ^= 1 << bit
            changed = urlsafe_b64encode(forged).rstrip(b"=").decode()
            self.assertRaises(Forged, keys.open, changed)

    @settings(deadline=None)
    @given(st.text(max_size=400))
    def test_anything(self, text: str) -> None:
        """Whatever a client sends is opened or forged, and no other error."""
        self.assertRaises(Forged, Tokens([SECRET]).open, text)

    @settings(deadline=None)
    @given(st.binary(max_size=320))
    def test_any_bytes(self, raw: bytes) -> None:
        """Well written, and no mac of ours: forged."""
        text = urlsafe_b64encode(raw).rstrip(b"=").decode()
        self.assertRaises(Forged, Tokens([SECRET]).open, text)

    def test_several_secrets(self) -> None:
        """The first secret signs, all verify; another one's tokens are forged."""
        token = Token("ab" * 16, ("cd" * 16,))
        old, new = Tokens([SECRET]), Tokens([b"n" * 32, SECRET])
        self.assertEqual(new.open(old.seal(token)), old.open(old.seal(token)))
        self.assertRaises(Forged, old.open, new.seal(token))
        self.assertRaises(ValueError, Tokens, [])
