"""What travels on the bus, and what must not get in."""

from __future__ import annotations

import contextlib
import hmac
import json
from hashlib import sha256
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.errors import Malformed
from ostore.model.fields import BadMessage
from ostore.model.layouts import Layout
from ostore.model.messages import (
    LOCATES,
    MAX_HASHES,
    MAX_MESSAGE,
    Answer,
    Answers,
    Claim,
    Hello,
    Locate,
    Locates,
    Message,
    Signer,
    Taken,
    secret_lines,
)
from ostore.model.nodes import SERVING, Boot, Heartbeat

OLD, NEW, FOREIGN = (letter * 32 for letter in (b"o", b"n", b"f"))
SIGNER = Signer([NEW])


def hkdf(secret: bytes) -> bytes:
    """RFC 5869 with one block and no salt, written out."""
    extracted = hmac.digest(bytes(32), secret, sha256)
    return hmac.digest(extracted, b"ostore bus 1\x01", sha256)


KEY = hkdf(NEW)


def envelope(text: str, **changed: Any) -> bytes:
    """A rightly signed envelope, except for what is changed."""
    mac = hmac.new(KEY, text.encode("utf-8"), sha256).hexdigest()
    return json.dumps({"v": 1, "body": text, "mac": mac, **changed}).encode()


def hexes(size: int) -> st.SearchStrategy[str]:
    """Hex digits of that many bytes."""
    return st.binary(min_size=size, max_size=size).map(bytes.hex)


BIG = st.integers(0, (1 << 63) - 1)
NAMES = st.text("abcXYZ019_-", min_size=1, max_size=64)
TEXTS = st.text(st.characters(categories=["L", "N", "P"]), max_size=40)
BOOTS = st.builds(Boot, BIG, hexes(8))
LAYOUTS = st.integers(1, 32).flatmap(
    lambda k: st.builds(Layout, st.just(k), st.integers(0, 32 - k), BIG, hexes(16))
)
SHARDS = LAYOUTS.flatmap(
    lambda layout: st.tuples(st.integers(0, layout.shards - 1), st.just(layout))
)
HOLDINGS = st.sampled_from(["have", "none", "unsure"])
FOUND = st.tuples(
    st.integers(0, MAX_HASHES - 1), HOLDINGS, st.lists(SHARDS, max_size=4).map(tuple)
)
MESSAGES = st.one_of(
    st.builds(
        Heartbeat,
        node=NAMES, boot=BOOTS, seq=BIG, url=TEXTS, zone=TEXTS, free=BIG, total=BIG,
        shards=BIG, state=st.sampled_from(sorted(SERVING)), time=st.floats(0, 1e12),
        cluster=st.just("") | NAMES, epoch=BIG,
        capabilities=st.lists(NAMES, max_size=4).map(tuple),
    ),
    st.builds(Locate, hexes(32), hexes(16), st.integers(1, 600_000), TEXTS),
    st.builds(Hello, TEXTS),
    st.builds(Claim, NAMES, BOOTS, TEXTS),
    st.builds(
        Answer, hexes(16), NAMES, HOLDINGS, st.lists(SHARDS, max_size=8).map(tuple)
    ),
    st.builds(
        Locates, st.lists(hexes(32), min_size=1, max_size=8).map(tuple), hexes(16),
        st.integers(1, 600_000), TEXTS,
    ),
    st.builds(
        Answers, hexes(16), NAMES,
        st.lists(FOUND, min_size=1, max_size=6, unique_by=lambda f: f[0]).map(tuple),
    ),
    st.builds(Taken, NAMES, BOOTS),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


class SignerTests(SynchronousTestCase):
    """Sealing and opening."""

    @settings(deadline=None)
    @given(MESSAGES)
    def test_round_trip(self, message: Message) -> None:
        """Every message comes back as it was, and is plain ASCII on the way."""
        sealed = SIGNER.seal(message)
        self.assertEqual(SIGNER.open(sealed), message)
        self.assertTrue(sealed.isascii())

    def test_wire_form(self) -> None:
        """The envelope, the key and the fields are what other programs can make."""
        layout = Layout(4, 2, 10, "ab" * 16)
        sealed = SIGNER.seal(Answer("12", "n1", "have", ((3, layout),)))
        outer = json.loads(sealed)
        self.assertEqual((set(outer), outer["v"]), ({"v", "body", "mac"}, 1))
        mac = hmac.new(KEY, outer["body"].encode(), sha256).hexdigest()
        self.assertEqual(outer["mac"], mac)
        expected = {
            "type": "answer",
            "id": "12",
            "node": "n1",
            "state": "have",
            "shards": [[3, "ab" * 16, 4, 2, 10]],
        }
        self.assertEqual(json.loads(outer["body"]), expected)
        sealed = SIGNER.seal(Locates(("ab" * 32, "cd" * 32), "12", 1000, "me"))
        self.assertEqual(
            json.loads(json.loads(sealed)["body"]),
            {
                "type": "locates",
                "hashes": ["ab" * 32, "cd" * 32],
                "id": "12",
                "ttl_ms": 1000,
                "reply_to": "me",
            },
        )
        found = (1, "have", ((3, layout),)), (0, "unsure", ())
        sealed = SIGNER.seal(Answers("12", "n1", found))
        self.assertEqual(
            json.loads(json.loads(sealed)["body"]),
            {
                "type": "answers",
                "id": "12",
                "node": "n1",
                "found": [[1, "have", [[3, "ab" * 16, 4, 2, 10]]], [0, "unsure", []]],
            },
        )
        taken = SIGNER.seal(Taken("n1", Boot(7, "0" * 16)))
        self.assertEqual(json.loads(json.loads(taken)["body"])["boot"], [7, "0" * 16])

    def test_text_as_received(self) -> None:
        """The signature is over the text, however its author spells JSON."""
        text = ' {"reply_to": "ä",\n "type": "hello", "new": [1.5, {"x": null}]} '
        self.assertEqual(SIGNER.open(envelope(text, more=1)), Hello("ä"))

    def test_secrets(self) -> None:
        """The first secret signs, all of them verify, others do not."""
        hello = Hello("me")
        both = Signer([OLD, NEW])
        self.assertEqual(Signer([OLD]).open(both.seal(hello)), hello)
        self.assertEqual(both.open(SIGNER.seal(hello)), hello)
        self.assertRaises(BadMessage, SIGNER.open, both.seal(hello))
        self.assertRaises(BadMessage, both.open, Signer([FOREIGN]).seal(hello))
        self.assertRaises(ValueError, Signer, [])

    def test_changed_text(self) -> None:
        """A text that differs in any byte from what was signed is refused."""
        sealed = json.loads(SIGNER.seal(Hello("me")))
        for at in range(len(sealed["body"])):
            text = sealed["body"]
            text = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
            body = json.dumps({**sealed, "body": text}).encode()
            self.assertRaises(BadMessage, SIGNER.open, body)

    def test_bad_envelopes(self) -> None:
        """Whatever is no envelope is a BadMessage, and never another error."""
        good = '{"type":"hello","reply_to":"me"}'
        self.assertEqual(SIGNER.open(envelope(good)), Hello("me"))
        wrong = [
            b"", b"{}", b"[]", b"1", b"null", b"\xff", b'"', b"NaN", b"\xef\xbb\xbf{}",
            b"[" * MAX_MESSAGE, b'{"a":' * 13_000, b"9" * 10_000,
            envelope(good).decode().encode("utf-16"),
            envelope(good, v=2), envelope(good, v=True), envelope(good, v=1.0),
            envelope(good, v=None), envelope(good, mac=""), envelope(good, mac="\xe4" * 64),
            envelope(good, mac="0" * 64), envelope(good, mac=1), envelope(good, body=None),
            json.dumps({"v": 1, "body": "\ud800", "mac": "0" * 64}).encode(),
            envelope(good) + b" " * MAX_MESSAGE,
        ]  # fmt: skip
        for body in wrong:
            self.assertRaises(BadMessage, SIGNER.open, body)

    def test_bad_texts(self) -> None:
        """A right signature does not excuse what it signs."""
        wrong = (
            "", "[]", '"x"', "{}", '{"type":1}', '{"type":["hello"]}',
            '{"type":"unheard"}', '{"type":"hello"}', '{"type":"hello","reply_to":1}',
            '{"type":"hello","reply_to":"a\\nb"}', '{"type":"hello","reply_to":"\\ud800"}',
            '{"type":"hello","reply_to":"%s"}' % ("x" * 1025), "[" * 30_000,
            '{"type":"hello","reply_to":"me","new":NaN}',
            '{"type":"hello","reply_to":"me","new":-Infinity}',
        )  # fmt: skip
        for text in wrong:
            self.assertRaises(BadMessage, SIGNER.open, envelope(text))

    def test_too_long(self) -> None:
        """What would not be accepted is not sent."""
        self.assertRaises(ValueError, SIGNER.seal, Hello("x" * MAX_MESSAGE))
        layout = Layout(4, 2, 10, "ab" * 16)
        many = Answer("1", "n", "have", ((1, layout),) * 5000)
        self.assertRaises(ValueError, SIGNER.seal, many)

    @settings(deadline=None, max_examples=300)
    @given(MESSAGES, st.data())
    def test_any_field(self, message: Message, data: st.DataObject) -> None:
        """Any value in any field gives a whole message or BadMessage."""
        fields = json.loads(json.loads(SIGNER.seal(message))["body"])
        name = data.draw(st.sampled_from(sorted(fields)))
        fields[name] = data.draw(JSON)
        with contextlib.suppress(BadMessage):
            opened = SIGNER.open(envelope(json.dumps(fields)))
            self.assertEqual(SIGNER.open(SIGNER.seal(opened)), opened)

    @settings(deadline=None)
    @given(st.binary(max_size=80) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_any_bytes(self, body: bytes) -> None:
        """Nothing that is not signed opens."""
        self.assertRaises(BadMessage, SIGNER.open, body)


class FieldTests(SynchronousTestCase):
    """Limits of single fields."""

    def refused(self, message: Message, **changed: Any) -> None:
        """Whether each changed field alone makes the message bad."""
        fields = json.loads(json.loads(SIGNER.seal(message))["body"])
        self.assertEqual(SIGNER.open(envelope(json.dumps(fields))), message)
        for name, values in changed.items():
            for value in values:
                text = json.dumps({**fields, name: value})
                self.assertRaises(BadMessage, SIGNER.open, envelope(text))
            del_text = json.dumps({k: v for k, v in fields.items() if k != name})
            self.assertRaises(BadMessage, SIGNER.open, envelope(del_text))

    def test_heartbeat(self) -> None:
        """Every field of a heartbeat has its form and is needed."""
        beat = Heartbeat(
            "n1", Boot(1, "0" * 16), 1, "http://a", "z", 1, 2, 3, "up", 4.0
        )
        numbers = (-1, 1 << 63, 1.0, True, "1", None)
        chance = "0" * 16
        self.refused(
            beat,
            node=("", "a/b", "a" * 65, "n1\n", "ä", 1),
            boot=([], [1], [1, chance, 1], [-1, chance], [1, "0"], [1, 1], {}, "x"),
            seq=numbers, free=numbers, total=numbers, shards=numbers, epoch=numbers,
            url=("a\r\n", "x" * 1025, 1), zone=("\0", "x" * 1025, []),
            state=("down", "conflict", "", 1), cluster=("a b", "x" * 65, None),
            time=(float("nan"), float("inf"), -1, "1", True, None, 10**400),
            capabilities=({}, "ab", ["a b"], [1], [""], ["a"] * 65),
        )  # fmt: skip
        whole = attrs.evolve(beat, time=7.0)
        text = json.loads(SIGNER.seal(whole))["body"].replace("7.0", "7")
        self.assertEqual(SIGNER.open(envelope(text)), whole)
        self.assertRaises(
            BadMessage, SIGNER.open, envelope(text.replace('"time":7', '"time":1e999'))
        )

    def test_locate(self) -> None:
        """A locate has a hash, an id, and a bounded time to live."""
        self.refused(
            Locate("ab" * 32, "1", 1000, "me"),
            hash=("ab" * 31, "AB" * 32, "", None),
            id=("", "g", "0" * 65, 1),
            ttl_ms=(0, -1, 600_001, 1.5, "1", True),
            reply_to=("\n", 1, "x" * 1025),
        )

    def test_answer(self) -> None:
        """Each shard of an answer lies within its layout."""
        layout = "ab" * 16
        self.refused(
            Answer("1", "n1", "have", ((5, Layout(4, 2, 10, layout)),)),
            state=("bad", "", 1),
            shards=(
                {}, [1], [[]], [[6, layout, 4, 2, 1]], [[-1, layout, 4, 2, 1]],
                [[0, "ab", 4, 2, 1]], [[0, layout, 0, 2, 1]], [[0, layout, 31, 2, 1]],
                [[0, layout, 4, -1, 1]], [[0, layout, 4, 2, -1]],
                [[0, layout, 4, 2, 1 << 63]], [[0, layout, 4, 2]],
                [[0, layout, 4, 2, 1, 1]], [[0.0, layout, 4, 2, 1]],
            ),
        )  # fmt: skip

    def test_locates(self) -> None:
        """One that asks for many has as many hashes as is allowed, and each its form."""
        hash = "ab" * 32
        self.refused(
            Locates((hash, hash), "1", 1000, "me"),
            hashes=(
                [], {}, None, hash, [hash, "ab"], ["AB" * 32], [hash, 1], [[hash]],
                [hash] * (MAX_HASHES + 1),
            ),
            id=("", "g", "0" * 65, 1),
            ttl_ms=(0, -1, 600_001, 1.5, "1", True),
            reply_to=("\n", 1, "x" * 1025),
        )  # fmt: skip

    def test_answers(self) -> None:
        """What was found names each content once, by its place, with whole shards."""
        layout = "ab" * 16
        none = [0, "none", []]
        self.refused(
            Answers("1", "n1", ((127, "have", ((5, Layout(4, 2, 10, layout)),)),)),
            id=("", "g", 1),
            node=("", "a/b", 1),
            found=(
                [], {}, None, "ab", [1], [[]], [[0, "none"]], [[0, "none", [], 1]],
                [[-1, "none", []]], [[MAX_HASHES, "none", []]], [[0.0, "none", []]],
                [[True, "none", []]], [["0", "none", []]], [[0, "bad", []]],
                [[0, ["none"], []]], [[0, {}, []]], [[0, "none", {}]],
                [[0, "none", None]], [[0, "have", [1]]],
                [[0, "have", [[6, layout, 4, 2, 1]]]], [none, none],
                [none, [0, "unsure", []]], [[n, "none", []] for n in range(129)],
            ),
        )  # fmt: skip

    def test_many(self) -> None:
        """As many hashes as are allowed always fit into a message."""
        hashes = ("ab" * 32,) * MAX_HASHES
        widest = Locates(
            hashes, "f" * 64, 600_000, "\N{LINEAR B SYLLABLE B008 A}" * 1024
        )
        self.assertEqual(SIGNER.open(SIGNER.seal(widest)), widest)

    def test_capability(self) -> None:
        """What nodes say that they can comes through."""
        beat = Heartbeat("n", Boot(1, "0" * 16), 1, "", "", 0, 0, 0, "up", 0.0)
        able = attrs.evolve(beat, capabilities=(LOCATES,))
        self.assertEqual(Signer([NEW]).open(SIGNER.seal(able)), able)

    def test_claim(self) -> None:
        """A claim and its answer name node and boot."""
        boot = Boot(1, "0" * 16)
        self.refused(Claim("n", boot, "me"), node=("",), boot=(0,), reply_to=(0,))
        self.refused(Taken("n", boot), node=("",), boot=([1, "x"],))


class SecretTests(SynchronousTestCase):
    """The secret file."""

    def test_lines(self) -> None:
        """White space and empty lines do not count."""
        text = f"\n  {'a' * 32}\t\r\n\n{'b' * 40}"
        self.assertEqual(secret_lines(text), [b"a" * 32, b"b" * 40])

    def test_refused(self) -> None:
        """A short line, or none, is refused without being shown."""
        for text in ("", " \n", "short", f"{'a' * 32}\n{'s3cret' * 5}"):
            error = self.assertRaises(Malformed, secret_lines, text)
            self.assertNotIn("s3cret", str(error))
