"""Bytes on the way to a broker and back: codec, tables, frames, contents, facts."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.amqp import frames
from ostore.backends.bus.amqp.codec import (
    MAX_DEPTH,
    BadFrame,
    Codec,
    decode_table,
    encode_table,
)
from ostore.backends.bus.amqp.contents import MAX_BODY, Contents
from ostore.backends.bus.amqp.spec import FACTS, SPEC

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
strings = st.binary(max_size=255).map(lambda b: b.decode("utf-8", "surrogateescape"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.builds(
        lambda digits, scale: Decimal(digits).scaleb(-scale),
        st.integers(-(1 << 31), (1 << 31) - 1),
        st.integers(0, 200),
    ),
    strings,
    st.binary(),
    st.integers(0, 10**10).map(lambda s: EPOCH + timedelta(seconds=s)),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4)
    ),
    max_leaves=10,
)
tables = st.dictionaries(strings, values, max_size=5)


class TableTests(SynchronousTestCase):
    """Header tables."""

    @settings(deadline=None, max_examples=150)
    @given(tables)
    def test_round_trip(self, table: dict[str, Any]) -> None:
        """What goes in comes out, with its type."""
        found = decode_table(encode_table(table))
        self.assertEqual(found, table)
        self.assertEqual(repr(found), repr(table))

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are a table or a BadFrame."""
        for garbage in (data, struct.pack("!I", len(data)) + data):
            try:
                decode_table(garbage)
            except BadFrame:
                continue

    @settings(deadline=None, max_examples=100)
    @given(tables, st.data())
    def test_cut(self, table: dict[str, Any], data: st.DataObject) -> None:
        """A table that ends too early, or goes on, is a BadFrame."""
        whole = encode_table(table)
        cut = data.draw(st.integers(0, len(whole) - 1))
        for wrong in (whole[:cut], whole + b"\x00"):
            with self.assertRaises(BadFrame):
                decode_table(wrong)

    def test_letters(self) -> None:
        """Every letter that RabbitMQ writes is read."""
        written = {
            b"t\x00": False,
            b"b\xff": -1,
            b"B\xff": 255,
            b"s\xff\xfe": -2,
            b"u\xff\xfe": 65_534,
            b"I\xff\xff\xff\xff": -1,
            b"i\xff\xff\xff\xff": (1 << 32) - 1,
            b"l" + b"\xff" * 8: -1,
            b"f\x3f\x80\x00\x00": 1.0,
            b"d\x3f\xf0" + b"\x00" * 6: 1.0,
            b"D\x02\x00\x00\x00\x7b": Decimal("1.23"),
            b"S\x00\x00\x00\x02\xc3\xa9": "é",
            b"x\x00\x00\x00\x01\xff": b"\xff",
            b"A\x00\x00\x00\x04t\x01b\x05": [True, 5],
            b"F\x00\x00\x00\x04\x01kb\x05": {"k": 5},
            b"T" + b"\x00" * 7 + b"\x01": EPOCH + timedelta(seconds=1),
            b"T" + b"\xff" * 8: (1 << 64) - 1,
            b"V": None,
        }
        for data, value in written.items():
            entry = b"\x01k" + data
            table = decode_table(struct.pack("!I", len(entry)) + entry)
            self.assertEqual(table, {"k": value})
            self.assertIs(type(table["k"]), type(value))

    def test_refused(self) -> None:
        """What AMQP cannot say is refused before a byte is written."""
        deep: Any = 1
        for _ in range(MAX_DEPTH + 2):
            deep = [deep]
        for value in (
            1 << 63,
            object(),
            Decimal("NaN"),
            Decimal(1 << 31),
            Decimal("1e3"),
            {"x" * 256: 1},
            deep,
        ):
            with self.assertRaises(ValueError):
                encode_table({"k": value})

    def test_depth(self) -> None:
        """Tables and arrays that lie too deep are a BadFrame, not a full stack."""
        for opened in (b"A", b"\x01kF"):
            data = b"V" if opened == b"A" else b""
            for _ in range(MAX_DEPTH + 2):
                data = opened + struct.pack("!I", len(data)) + data
            entry = b"\x01k" + data if opened == b"A" else data
            with self.assertRaises(BadFrame):
                decode_table(struct.pack("!I", len(entry)) + entry)


class SpecTests(SynchronousTestCase):
    """The facts of AMQP 0-9-1."""

    def test_replies(self) -> None:
        """Every method that waits names replies that know that they are."""
        for kind in SPEC.classes:
            for method in kind.methods:
                for reply in method.responses:
                    self.assertTrue(reply.response)
                    self.assertIs(reply.klass, kind)
                self.assertEqual(bool(method.responses), method.synchronous)

    def test_known_places(self) -> None:
        """Numbers, contents and arguments are where RabbitMQ has them."""
        known = {
            "connection.blocked": (10, 60, False, ["reason"]),
            "connection.update-secret": (10, 70, False, ["new-secret", "reason"]),
            "basic.publish": (
                60,
                40,
                True,
                ["ticket", "exchange", "routing-key", "mandatory", "immediate"],
            ),
            "basic.nack": (60, 120, False, ["delivery-tag", "multiple", "requeue"]),
            "confirm.select": (85, 10, False, ["nowait"]),
            "exchange.unbind-ok": (40, 51, False, []),
            "queue.unbind": (
                50,
                50,
                False,
                ["ticket", "queue", "exchange", "routing-key", "arguments"],
            ),
        }
        for name, (kind, number, content, fields) in known.items():
            method = SPEC.parse_method(name)
            found = [field.name for field in method.fields]
            self.assertEqual((method.klass.id, method.id), (kind, number))
            self.assertEqual((method.content, found), (content, fields))
        properties = [field.name for field in SPEC.classes.byname["basic"].fields]
        self.assertEqual(properties.index("reply-to"), 15 - 9)
        self.assertEqual(properties.index("expiration"), 15 - 8)
        self.assertEqual(len(properties), 14)

    def test_nowait(self) -> None:
        """The bit bears the name by which txAMQP knows it."""
        self.assertNotIn("no-wait", FACTS)
        named = [
            m for k in SPEC.classes for m in k.methods if "nowait" in m.fields.byname
        ]
        self.assertEqual(len(named), 11)

    @settings(deadline=None, max_examples=150)
    @given(st.data())
    def test_methods(self, data: st.DataObject) -> None:
        """Every method comes back from its frame as it went in."""
        kinds = {
            "bit": st.booleans(),
            "octet": st.integers(0, 255),
            "short": st.integers(0, (1 << 16) - 1),
            "long": st.integers(0, (1 << 32) - 1),
            "longlong": st.integers(0, (1 << 64) - 1),
            "timestamp": st.integers(0, (1 << 64) - 1),
            "shortstr": strings,
            "longstr": st.binary(),
            "table": tables,
        }
        every = [method for kind in SPEC.classes for method in kind.methods]
        method = data.draw(st.sampled_from(every))
        arguments = tuple(data.draw(kinds[field.type]) for field in method.fields)
        packed = frames.pack_method(7, method, arguments)
        ((kind, channel, payload),) = frames.Frames().feed(packed)
        self.assertEqual((kind, channel), (frames.METHOD, 7))
        self.assertEqual(frames.unpack_method(payload), (method, arguments))
        if payload[4:]:
            with self.assertRaises(BadFrame):
                frames.unpack_method(payload[:-1])

    def test_text(self) -> None:
        """The length of a string is that of its bytes; too long a one is refused."""
        codec = Codec()
        codec.encode_shortstr("é")
        codec.encode_longstr("é")
        self.assertEqual(codec.getvalue(), b"\x02\xc3\xa9\x00\x00\x00\x02\xc3\xa9")
        with self.assertRaises(ValueError):
            codec.encode_shortstr("é" * 128)


pieces = st.tuples(
    st.sampled_from(sorted(frames.KINDS)),
    st.integers(0, 65_535),
    st.binary(max_size=300),
)


class FramesTests(SynchronousTestCase):
    """A stream of bytes cut into frames."""

    @settings(deadline=None, max_examples=150)
    @given(st.lists(pieces, max_size=8), st.lists(st.integers(1, 40), max_size=60))
    def test_any_cuts(self, wanted: list[frames.Frame], cuts: list[int]) -> None:
        """However the stream is cut, the same frames come out, as early as can be."""
        stream = b"".join(frames.pack(*frame) for frame in wanted)
        parser, found, fed = frames.Frames(), [], 0
        ends = [0]
        for frame in wanted:
            ends.append(ends[-1] + len(frames.pack(*frame)))
        for size in [*cuts, len(stream) + 1]:
            found += parser.feed(stream[fed : fed + size])
            fed = min(fed + size, len(stream))
            self.assertEqual(len(found), sum(end <= fed for end in ends[1:]))
        self.assertEqual(found, wanted)

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=100))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are frames, the begin of one, or a BadFrame."""
        parser = frames.Frames()
        try:
            for at in range(0, len(data), 7):
                parser.feed(data[at : at + 7])
        except BadFrame:
            return

    def test_limit(self) -> None:
        """A frame larger than agreed is refused before its payload is kept."""
        parser = frames.Frames()
        parser.limit = 100
        self.assertEqual(len(parser.feed(frames.pack(3, 1, b"x" * 100))), 1)
        with self.assertRaises(BadFrame):
            parser.feed(frames.pack(3, 1, b"x" * 101)[:8])

    @settings(deadline=None, max_examples=60)
    @given(
        st.binary(min_size=1, max_size=5000),
        st.text(max_size=60),
        st.none() | st.integers(0, 10**6),
        st.integers(1, 600),
    )
    def test_content(
        self, body: bytes, reply_to: str, ttl: int | None, limit: int
    ) -> None:
        """A message of any body comes back from however many frames."""
        taken: list[tuple[bytes, bytes, bytes]] = []
        contents = Contents(lambda *message: taken.append(message), self.fail)
        contents.begin(b"\x00\x3c\x00\x3c\x01t" + bytes(9) + b"\x01a\x00")
        packed = frames.pack_content(1, body, reply_to, ttl, limit)
        for kind, _, payload in frames.Frames().feed(packed):
            if kind == frames.HEADER:
                contents.header(payload)
            else:
                self.assertLessEqual(len(payload), limit)
                contents.body(payload)
        self.assertEqual(taken, [(b"a", reply_to.encode(), body)])

    @settings(deadline=None, max_examples=100)
    @given(tables, st.integers(0, 0x3FFF), strings)
    def test_properties(self, headers: dict[str, Any], present: int, text: str) -> None:
        """The reply-to is found among any other properties, or seen to be missing."""
        codec = Codec()
        for field in ("short", "short", "longlong", "short"):
            codec.encode(field, {"longlong": 5}.get(field, 60))
        flags = present << 2
        header = codec.getvalue()[:12] + struct.pack("!H", flags)
        rest = Codec()
        given_ = {"table": headers, "octet": 2, "shortstr": text, "timestamp": 1}
        for index, field in enumerate(SPEC.classes.byname["basic"].fields):
            if flags >> (15 - index) & 1:
                rest.encode(field.type, given_[field.type])
        payload = header + rest.getvalue()
        expected = text.encode("utf-8", "surrogateescape")
        wanted = expected if flags & frames.REPLY_TO else b""
        self.assertEqual(frames.read_header(payload), (5, wanted))

    @settings(deadline=None, max_examples=150)
    @given(st.binary(max_size=40))
    def test_foreign_headers(self, data: bytes) -> None:
        """Whatever others wrote into a header, reading it ends in a verdict."""
        size, reply_to = frames.read_header(
            struct.pack("!HHQ", 60, 0, 9) + b"\x02\x00" + data
        )
        self.assertEqual(size, 9)
        if reply_to is not None:
            self.assertEqual(data[1 : 1 + data[0]], reply_to)
        with self.assertRaises(BadFrame):
            frames.read_header(data[:13])


class ContentsTests(SynchronousTestCase):
    """Messages that are unfit."""

    def test_nothing_kept(self) -> None:
        """Of a message that is too large not a byte is kept."""
        dropped: list[int] = []
        contents = Contents(lambda *_: self.fail("taken"), lambda: dropped.append(1))
        contents.begin(b"\x00\x3c\x00\x3c\x00" + bytes(9) + b"\x01a\x00")
        contents.header(struct.pack("!HHQH", 60, 0, MAX_BODY + 1, 0))
        contents.body(b"x" * MAX_BODY)
        self.assertEqual((contents._parts, dropped), ([], []))
        contents.body(b"x")
        self.assertEqual(dropped, [1])

    def test_too_much(self) -> None:
        """More body than the header said is a BadFrame."""
        contents = Contents(lambda *_: None, lambda: None)
        contents.skip()
        contents.header(struct.pack("!HHQH", 60, 0, 3, 0))
        with self.assertRaises(BadFrame):
            contents.body(b"1234")

    def test_body_before_header(self) -> None:
        """Even an empty piece of a body comes behind its header."""
        contents = Contents(lambda *_: self.fail("taken"), self.fail)
        with self.assertRaises(BadFrame):
            contents.body(b"")
        contents.begin(b"\x00\x3c\x00\x3c\x00" + bytes(9) + b"\x01a\x00")
        with self.assertRaises(BadFrame):
            contents.body(b"")

    def test_cut_delivery(self) -> None:
        """A delivery whose exchange is cut short is unfit."""
        dropped: list[int] = []
        contents = Contents(lambda *_: self.fail("taken"), lambda: dropped.append(1))
        contents.begin(b"\x00\x3c\x00\x3c\x00" + bytes(9) + b"\x02a")
        contents.header(struct.pack("!HHQH", 60, 0, 1, 0))
        contents.body(b"x")
        self.assertEqual(dropped, [1])

    def test_more_flags(self) -> None:
        """A header whose flags go on has properties that AMQP does not know."""
        header = struct.pack("!HHQH", 60, 0, 1, frames.REPLY_TO | 1) + b"\x01a"
        self.assertEqual(frames.read_header(header), (1, None))
