"""Records and operations of conversations: what is read is what was written, or refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.nodes import operations as ops
from ostore.backends.nodes.operations import ERRORS, Operation, Status
from ostore.backends.nodes.records import (
    ANSWERED,
    LARGEST,
    LEAST_ANSWERED,
    LENGTH,
    Credit,
    Cutter,
    answered,
    sealed,
    unsealed,
)
from ostore.erasure.framing import TableBuilder
from ostore.model.errors import (
    Malformed,
    NodeUnreachable,
    ShardError,
    ShardRefused,
)
from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
from tests.contracts.shards import Sample, sample

SOME = settings(deadline=None, max_examples=60)
KEY = b"k" * 32
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
KEYS = st.builds(ShardKey, HASHES, st.integers(0, 31), IDS)
AGES = st.floats(0, 1e9, allow_nan=False)
EPOCHS = st.none() | st.integers(0, 2**63 - 1)
GEOMETRIES = st.tuples(st.integers(1, 16), st.integers(0, 16))


@st.composite
def facts(draw: st.DrawFn) -> ShardFacts:
    """What a node may say of a shard."""
    (k, m), size = draw(GEOMETRIES), draw(st.integers(0, 2**63 - 1))
    return ShardFacts(
        draw(HASHES),
        draw(st.integers(0, k + m - 1)),
        Layout(k, m, size, draw(IDS)),
        draw(st.integers(0, 2**64 - 1)),
        draw(AGES),
        draw(st.sampled_from(("whole", "bad", "garbage"))),
    )


def table_of(one: Sample) -> bytes:
    """Its stripe table as it travels."""
    builder = TableBuilder(one.layout.data, one.layout.parity)
    for frame in one.frames:
        builder.append(frame.raw, frame.stored, frame.coding, frame.stripe_crc)
    return builder.table().to_bytes()


def stream(one: Sample) -> bytes:
    """Its frames as they travel."""
    return b"".join(f.header() + bytes(f.block) for f in one.frames)


class RecordTests(SynchronousTestCase):
    """Cutting, sealing, granting."""

    @SOME
    @given(
        st.lists(st.binary(max_size=300), max_size=8),
        st.lists(st.integers(0, 3000), max_size=12),
    )
    def test_cut_anywhere(self, bodies: list[bytes], cuts: list[int]) -> None:
        """Records come out whole and in order, wherever the stream is cut."""
        data = b"".join(answered(n, 0, 1.5, (b,)) for n, b in enumerate(bodies, 1))
        cutter, found = Cutter(LEAST_ANSWERED), []
        ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
        for begin, end in zip([0, *ends], ends, strict=False):
            found += cutter.feed(data[begin:end])
        self.assertFalse(cutter.inside)
        self.assertEqual([r[ANSWERED.size :] for r in found], bodies)
        numbers = [ANSWERED.unpack_from(r)[0] for r in found]
        self.assertEqual(numbers, list(range(1, len(bodies) + 1)))

    @SOME
    @given(st.integers(0, 2**32 - 1), st.binary(max_size=50))
    def test_lengths(self, length: int, rest: bytes) -> None:
        """A length that no record has is refused when it comes; others are waited for."""
        cutter = Cutter(LEAST_ANSWERED)
        if LEAST_ANSWERED <= length <= LARGEST:
            self.assertEqual(
                len(cutter.feed(LENGTH.pack(length) + rest)),
                0 if length > len(rest) else 1,
            )
        else:
            self.assertRaises(ValueError, cutter.feed, LENGTH.pack(length) + rest)

    @SOME
    @given(
        st.integers(0, 2**64 - 1),
        st.integers(0, 255),
        st.lists(st.binary(max_size=100), max_size=3),
        st.data(),
    )
    def test_seal(
        self, number: int, operation: int, parts: list[bytes], data: st.DataObject
    ) -> None:
        """A sealed record is read back; with any bit changed it is refused."""
        record = b"".join(sealed(KEY, number, operation, parts))[LENGTH.size :]
        found = unsealed(KEY, record)
        self.assertEqual(found[:2], (number, operation))
        self.assertEqual(bytes(found[2]), b"".join(parts))
        bit = data.draw(st.integers(0, 8 * len(record) - 1))
        spoilt = bytearray(record)
        spoilt[bit // 8] ^= 1 << bit % 8
        self.assertRaises(ValueError, unsealed, KEY, bytes(spoilt))
        self.assertRaises(ValueError, unsealed, b"j" * 32, record)

    def test_credit(self) -> None:
        """A credit is read as it is written; nothing else is one."""
        credit = Credit(1024, 1 << 25)
        self.assertEqual(Credit.parse(credit.header()), credit)
        self.assertEqual(credit.least(Credit(2000, 5)), Credit(1024, 5))
        for text in (
            "",
            "operations=1",
            "operations=-1; bytes=1",
            "operations=1; bytes=1x",
        ):
            self.assertRaises(ValueError, Credit.parse, text)


class OperationTests(SynchronousTestCase):
    """Arguments, as a node reads them."""

    @SOME
    @given(KEYS, IDS, AGES, EPOCHS, st.booleans(), st.integers(0, 2**32 - 1))
    def test_round_trip(
        self,
        key: ShardKey,
        token: str,
        age: float,
        epoch: int | None,
        bad: bool,
        room: int,
    ) -> None:
        """Each operation is read as it was written."""
        view = memoryview
        asked = view(ops.pack_open(key, bad=bad, room=room))
        self.assertEqual(ops.read_open(asked), (key, bad, room))
        self.assertEqual(ops.room_of(Operation.OPEN, asked), room)
        self.assertEqual(ops.read_hash(view(ops.pack_hash(key.hash))), key.hash)
        renew = ops.read_renew(view(ops.pack_renew(key.hash, key.layout)))
        self.assertEqual(renew, (key.hash, key.layout))
        order = ops.read_order(view(ops.pack_order(key, age, epoch)))
        self.assertEqual(order, (key, age, epoch))
        discard = ops.read_discard(view(ops.pack_discard(key, token, epoch)))
        self.assertEqual(discard, (key, token, epoch))
        self.assertEqual(ops.read_key(view(ops.pack_key(key))), key)

    @SOME
    @given(st.integers(0, 9000), st.none() | st.floats(0, 4e9), AGES)
    def test_put(self, size: int, deadline: float | None, age: float) -> None:
        """A put is read as it was written, its frames checked."""
        one = sample(size, size, stripe=1000)
        head = ops.pack_put(one.key, one.layout, deadline, age)
        found = ops.read_put(memoryview(head + stream(one)))
        self.assertEqual(
            found, ops.Put(one.key, one.layout, deadline, age, list(one.frames))
        )
        if size:
            spoilt = bytearray(head + stream(one))
            spoilt[-1] ^= 1
            self.assertRaises(ShardRefused, ops.read_put, memoryview(bytes(spoilt)))
            self.assertRaises(ShardRefused, ops.read_put, memoryview(spoilt)[:-1])

    def test_frames_have_a_limit(self) -> None:
        """A shard of more than 256 frames is no small one."""
        one = sample(1, 257, stripe=1)
        head = ops.pack_put(one.key, one.layout, None, 0)
        self.assertRaises(ShardRefused, ops.read_put, memoryview(head + stream(one)))

    @SOME
    @given(st.binary(max_size=200))
    def test_nonsense(self, data: bytes) -> None:
        """Whatever comes is read, or refused in one of two ways."""
        for read in _READ:
            with contextlib.suppress(Malformed, ShardRefused):
                read(memoryview(data))


_READ: tuple[Callable[[memoryview], Any], ...] = (
    ops.read_put,
    ops.read_open,
    ops.read_hash,
    ops.read_renew,
    ops.read_order,
    ops.read_discard,
    ops.read_key,
)


class ResultTests(SynchronousTestCase):
    """Results, as a caller believes them."""

    @SOME
    @given(st.sampled_from(("have", "none", "unsure")), st.lists(facts(), max_size=4))
    def test_holding(self, state: str, shards: list[ShardFacts]) -> None:
        """A holding is read as it was written."""
        holding = Holding(state, tuple(shards))
        packed = b"".join(ops.pack_holding(holding))
        self.assertEqual(ops.read_holding(memoryview(packed)), holding)

    @SOME
    @given(st.integers(1, 9000))
    def test_opened(self, size: int) -> None:
        """An open shard comes with all its frames, or none."""
        one = sample(size, size, stripe=1000)
        said = ShardFacts(one.key.hash, one.key.index, one.layout, size, 1.5)
        head = ops.pack_opened(said, table_of(one))
        whole = ops.read_opened(memoryview(head + stream(one)))
        self.assertEqual((whole.facts, whole.frames), (said, list(one.frames)))
        self.assertEqual(whole.table.layout(), one.layout)
        self.assertIsNone(ops.read_opened(memoryview(head)).frames)

    def test_frames_of_another_table(self) -> None:
        """Frames that differ from the table, or exceed it, are not believed."""
        one, other = sample(1, 3000, stripe=1000), sample(2, 3000, stripe=1000)
        said = ShardFacts(one.key.hash, one.key.index, one.layout, 1, 0.0)
        longer = sample(1, 4000, stripe=1000)
        for frames in (stream(other), stream(longer), stream(one)[:-1]):
            answer = ops.pack_opened(said, table_of(one)) + frames
            self.assertRaises(NodeUnreachable, ops.read_opened, memoryview(answer))

    @SOME
    @given(st.binary(max_size=300))
    def test_nonsense(self, data: bytes) -> None:
        """Whatever comes is read, or stands for a node out of reach."""
        for read in (
            ops.read_holding,
            ops.read_opened,
            ops.read_erased,
            ops.read_token,
        ):
            with contextlib.suppress(NodeUnreachable):
                read(memoryview(data))

    @SOME
    @given(facts(), st.data())
    def test_impossible_facts(self, said: ShardFacts, data: st.DataObject) -> None:
        """Facts that contradict themselves are not believed."""
        shards = said.layout.shards
        wrong = data.draw(
            st.sampled_from(
                (
                    attrs.evolve(said, index=shards),
                    attrs.evolve(said, age=float("nan")),
                    attrs.evolve(said, layout=attrs.evolve(said.layout, data=0)),
                    attrs.evolve(said, layout=attrs.evolve(said.layout, data=33)),
                )
            )
        )
        packed = b"".join(ops.pack_holding(Holding("have", (wrong,))))
        self.assertRaises(NodeUnreachable, ops.read_holding, memoryview(packed))

    def test_errors(self) -> None:
        """Every status stands for an error of shards, unknown ones too."""
        for status in range(256):
            error = ops.error_of(status, memoryview(b"it is \xff so" * 500))
            self.assertIsInstance(error, ShardError)
        for kind, status in ERRORS.items():
            if issubclass(kind, ShardError):
                found = ops.error_of(status, memoryview(b"why"))
                self.assertIs(type(found), kind)
                self.assertEqual(str(found), "why")
        self.assertEqual(Status.LEAVING, 255)
