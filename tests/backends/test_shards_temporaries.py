"""Shards that are written over several requests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Awaitable, Sequence
from random import Random
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards import temporaries
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.plain import HEAD
from ostore.backends.shards.temporary import Commit, TooLong, WrongOffset
from ostore.erasure.framing import FrameParser, TableBuilder
from ostore.erasure.geometry import STRIPE, Geometry
from ostore.erasure.shardfile import PROLOGUE
from ostore.model.errors import (
    ClientGone,
    Malformed,
    NodeFull,
    NodeUnreachable,
    NotFound,
    Refused,
    ShardMissing,
    ShardRefused,
)
from ostore.model.layouts import Layout, ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.tasks import start
from tests.backends.test_shards_crash import NOW, ROOT, done, node_on, outcome
from tests.contracts.shards import Sample, blocks, put, sample
from tests.support.disk import PowerCut, SimulatedDisk

HASH = hashlib.sha256(b"a content").hexdigest()
UUID = "5" * 32
ONE = sample(1, 2500, stripe=1000)


class Body:
    """Bytes in pieces; with an error behind them, or the end."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = list(pieces)
        self._error = error

    async def __call__(self) -> bytes:
        """The next piece."""
        if self._pieces:
            return self._pieces.pop(0)
        if self._error is not None:
            raise self._error
        return b""


class Held:
    """A body that waits for the test."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[bytes]] = []

    async def __call__(self) -> bytes:
        """What the test gives."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append(waiting)
        return await waiting

    def give(self, piece: bytes) -> None:
        """Let whoever reads go on."""
        self._waiting.pop().callback(piece)


def framed(one: Sample, first: int = 0, stop: int | None = None) -> bytes:
    """Some frames as they travel."""
    frames = one.frames[first:stop]
    return b"".join(frame.header() + bytes(frame.block) for frame in frames)


def digest(one: Sample) -> bytes:
    """SHA-256 over the frame headers."""
    return hashlib.sha256(b"".join(f.header() for f in one.frames)).digest()


def commit_of(one: Sample, **change: Any) -> Commit:
    """What makes a temporary that shard."""
    commit = Commit(one.key.hash, one.key.index, one.layout, digest(one))
    return attrs.evolve(commit, **change)


def plain_layout(size: int, k: int, m: int) -> Layout:
    """That of a content cut without coding and without stripe crcs."""
    table = TableBuilder(k, m)
    for at in range(0, size, STRIPE):
        raw = min(STRIPE, size - at)
        table.append(raw, raw, 0, 0)
    return table.table().layout()


class Base(SynchronousTestCase):
    """A node on a simulated disk, its temporaries at hand."""

    def setUp(self) -> None:
        """An empty node."""
        self.disk = SimulatedDisk(lambda: NOW)
        self.disk.make("/data")
        self.time = task.Clock()
        self.wall = NOW
        clock = Clock(self.time, self.time.seconds, lambda: self.wall)
        self.node = ShardNode(
            ROOT, self.disk, InlineWorkers(), clock, Random(1).randbytes
        )
        done(self.node.start())
        self.temps = self.node.store.temporaries

    def got(self, work: Awaitable[Any]) -> Any:
        """What the work gives."""
        result = outcome(work)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def fails(self, error: type[Exception], work: Awaitable[Any]) -> Exception:
        """The work raises just that."""
        result = outcome(work)
        self.assertIsInstance(result, Failure, result)
        assert isinstance(result, Failure)
        self.assertIs(type(result.value), error, result)
        return result.value  # type: ignore[return-value]  # checked just now

    def create(self, limit: int | None = None) -> str:
        """A temporary."""
        self.got(self.temps.create(limit, UUID))
        return UUID

    def append(self, offset: int, *pieces: bytes, framed: bool = True) -> int:
        """Append to it; the bytes held."""
        held: int = self.got(self.temps.append(UUID, offset, framed, Body(*pieces)))
        return held

    def files(self) -> Sequence[str]:
        """Names in the folder of temporaries."""
        return self.disk.names(f"{ROOT}/temp")

    def bytes_held(self) -> bytes:
        """What reading gives."""

        async def read() -> bytes:
            found = await self.temps.open(UUID)
            try:
                parts = []
                while piece := await found.read():
                    parts.append(bytes(piece))
                self.assertEqual(sum(map(len, parts)), found.length)
                return b"".join(parts)
            finally:
                found.close()

        return bytes(self.got(read()))

    def assertGone(self) -> None:
        """Nothing is left of it."""
        self.fails(NotFound, self.temps.append(UUID, 0, True, Body(b"x")))
        self.assertEqual(self.files(), [])
        self.assertEqual(len(self.temps), 0)
        self.assertNothingOpen()

    def assertNothingOpen(self) -> None:
        """The node has only its lock open."""
        self.assertEqual(self.disk.open_files(), [f"{ROOT}/lock"])

    def assertShard(self, one: Sample) -> None:
        """The shard stands, with its blocks."""
        found = self.got(blocks(self.node.store, one.key))
        self.assertEqual(found, [bytes(frame.block) for frame in one.frames])


class Framed(Base):
    """Temporaries of frames."""

    def test_in_parts(self) -> None:
        """Written in parts it becomes the same file as a shard written at once."""
        self.create()
        self.assertEqual(self.append(0, framed(ONE, 0, 1)), 250)
        self.assertNothingOpen()
        self.assertEqual(self.append(250, framed(ONE, 1)), 625)
        self.assertEqual(self.temps.held(UUID), 625)
        layout = self.got(self.temps.commit(UUID, commit_of(ONE)))
        self.assertEqual(layout, ONE.layout)
        self.assertGone()
        self.assertShard(ONE)
        (path,) = self.disk.tree(f"{ROOT}/objects")
        other = node_on(SimulatedDisk(lambda: NOW))
        disk = other.store._disk.files
        assert isinstance(disk, SimulatedDisk)
        disk.make("/data")
        done(other.start())
        done(put(other.store, ONE))
        self.assertEqual(self.disk.content(path), disk.content(path))

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, 900), st.integers(1, 400)), max_size=6),
    )
    def test_cut_anywhere(self, cuts: list[tuple[int, int]]) -> None:
        """Of bodies that break off at any byte the whole frames are kept, no more."""
        self.setUp()
        self.create()
        whole = 0
        for length, piece in cuts:
            rest = framed(ONE, whole)
            cut = min(length, len(rest) - 1)
            pieces = [rest[at : min(at + piece, cut)] for at in range(0, cut, piece)]
            body = Body(*pieces, error=ClientGone("gone"))
            held = sum(len(each.block) for each in ONE.frames[:whole])
            self.fails(ClientGone, self.temps.append(UUID, held, True, body))
            whole += cut // len(framed(ONE, 0, 1))
            expected = b"".join(bytes(each.block) for each in ONE.frames[:whole])
            self.assertEqual(self.bytes_held(), expected)
            self.assertEqual(self.temps.held(UUID), len(expected))
        self.append(self.temps.held(UUID), framed(ONE, whole))
        done(self.temps.commit(UUID, commit_of(ONE)))
        self.assertShard(ONE)

    def test_ends_inside_a_frame(self) -> None:
        """A body that ends inside a frame is refused; the frames before are kept."""
        self.create()
        body = Body(framed(ONE)[:-1])
        self.fails(ShardRefused, self.temps.append(UUID, 0, True, body))
        self.assertEqual(self.append(500, framed(ONE, 2)), 625)

    def test_not_frames(self) -> None:
        """What is no frame, or not the next one, is refused; nothing is lost."""
        self.create()
        self.append(0, framed(ONE, 0, 1))
        flipped = bytearray(framed(ONE, 1, 2))
        flipped[40] ^= 1
        for wrong in (b"\0" * 40, framed(ONE, 0, 1), framed(ONE, 2), bytes(flipped)):
            self.fails(ShardRefused, self.temps.append(UUID, 250, True, Body(wrong)))
            self.assertEqual(self.temps.held(UUID), 250)
        self.append(250, framed(ONE, 1))
        done(self.temps.commit(UUID, commit_of(ONE)))
        self.assertShard(ONE)

    def test_wrong_commit(self) -> None:
        """A commit that contradicts the frames names nothing and keeps them."""
        self.create()
        self.append(0, framed(ONE))
        other = sample(1, 2500, stripe=1000, data=5)
        wrong = [
            commit_of(ONE, digest=bytes(32)),
            commit_of(ONE, layout=attrs.evolve(ONE.layout, size=2501)),
            commit_of(ONE, layout=attrs.evolve(ONE.layout, id="0" * 32)),
            commit_of(ONE, layout=other.layout),
            commit_of(ONE, index=6),
            commit_of(ONE, deadline=NOW - 1),
        ]
        for each in wrong:
            self.fails(ShardRefused, self.temps.commit(UUID, each))
        for malformed in (
            commit_of(ONE, index=32),
            commit_of(ONE, hash="../x"),
            commit_of(ONE, layout=attrs.evolve(ONE.layout, id="")),
        ):
            self.fails(Malformed, self.temps.commit(UUID, malformed))
        self.assertEqual(self.disk.tree(f"{ROOT}/objects"), [])
        self.assertNothingOpen()
        self.assertEqual(self.temps.held(UUID), 625)
        done(self.temps.commit(UUID, commit_of(ONE, deadline=NOW + 1)))
        self.assertShard(ONE)

    def test_grows_after_a_late_commit(self) -> None:
        """A commit that was refused leaves nothing in the way of more frames."""
        self.create()
        self.append(0, framed(ONE, 0, 1))
        short = sample(1, 1000, stripe=1000)
        late = commit_of(short, deadline=NOW - 1)
        self.fails(ShardRefused, self.temps.commit(UUID, late))
        self.append(250, framed(ONE, 1))
        done(self.temps.commit(UUID, commit_of(ONE)))
        self.assertShard(ONE)

    def test_stands_already(self) -> None:
        """A whole shard of that name is renewed instead."""
        done(put(self.node.store, ONE, age=5000))
        self.create()
        self.append(0, framed(ONE))
        done(self.temps.commit(UUID, commit_of(ONE)))
        self.assertGone()
        (facts,) = self.got(self.node.store.find(ONE.key.hash)).shards
        self.assertEqual(facts.age, 0)

    def test_age(self) -> None:
        """The shard begins with the age that the commit gives."""
        self.create()
        self.append(0, framed(ONE))
        done(self.temps.commit(UUID, commit_of(ONE, age=77.0)))
        (facts,) = self.got(self.node.store.find(ONE.key.hash)).shards
        self.assertEqual(facts.age, 77)

    def test_told_by_its_file(self) -> None:
        """The file alone tells the frames: a prologue and whole frames, then nothing."""
        self.create()
        self.append(0, framed(ONE, 0, 2))
        file = self.disk.content(f"{ROOT}/temp/{UUID}")
        self.assertEqual(file[: len(PROLOGUE)], PROLOGUE)
        parser = FrameParser()
        found = parser.feed(file[len(PROLOGUE) :])
        parser.finish()
        self.assertEqual(
            [bytes(f.block) for f in found], [bytes(f.block) for f in ONE.frames[:2]]
        )

    def test_large(self) -> None:
        """Frames enough to reserve room ahead, over several appends."""
        one = sample(2, 40 << 20)
        self.create()
        self.append(0, framed(one, 0, 9))
        self.append(9 * (STRIPE // 4), framed(one, 9, 30))
        self.append(30 * (STRIPE // 4), framed(one, 30))
        done(self.temps.commit(UUID, commit_of(one)))
        self.assertShard(one)


class Plain(Base):
    """Temporaries of plain bytes."""

    def test_any_layout(self) -> None:
        """Plain bytes become the frames that a content of that size is cut into."""
        rng = Random(3)
        sizes = (0, 1, 7, STRIPE - 1, STRIPE, STRIPE + 1, 2 * STRIPE + 5)
        for size in sizes:
            for k, m in ((1, 0), (3, 2), (4, 2), (31, 1)):
                cut = Geometry(k, m)
                length = size // STRIPE * cut.block(STRIPE) + cut.block(size % STRIPE)
                data = rng.randbytes(length)
                self.create()
                at = 0
                for piece in (data[: length // 3], data[length // 3 :]):
                    at = self.append(at, piece[:100], piece[100:], framed=False)
                self.assertEqual(self.bytes_held(), data)
                hash = hashlib.sha256(b"%d %d" % (size, k)).hexdigest()
                layout = Layout(k, m, size, "")
                commit = Commit(hash, k + m - 1, layout, hashlib.sha256(data).digest())
                told = self.got(self.temps.commit(UUID, commit))
                self.assertEqual(told, plain_layout(size, k, m))
                self.assertGone()
                key = ShardKey(hash, k + m - 1, told.id)
                found = self.got(blocks(self.node.store, key))
                self.assertEqual(b"".join(found), data)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.data())
    def test_what_came_is_kept(self, parts: list[bytes], data: st.DataObject) -> None:
        """Of a body that breaks off everything that came is kept."""
        self.setUp()
        self.create()
        sent = b""
        for part in parts:
            cut = data.draw(st.integers(0, len(part)))
            body = Body(part[:cut], part[cut:], error=ClientGone("gone"))
            work = self.temps.append(UUID, len(sent), False, body)
            # an empty piece is the end of a body
            _ = outcome(work)
            sent += part if cut else b""
            self.assertEqual(self.temps.held(UUID), len(sent))
        self.assertEqual(self.bytes_held(), sent)

    def test_wrong_commit(self) -> None:
        """Bytes of another length, digest or layout id name nothing and are kept."""
        self.create()
        self.append(0, b"x" * 25, framed=False)
        layout = plain_layout(100, 4, 2)
        right = Commit(HASH, 0, layout, hashlib.sha256(b"x" * 25).digest())
        for change in (
            {"layout": attrs.evolve(layout, size=101)},
            {"layout": attrs.evolve(layout, size=96)},
            {"layout": attrs.evolve(layout, size=2**63 - 1)},
            {"layout": attrs.evolve(layout, data=5)},
            {"layout": attrs.evolve(layout, id="1" * 32)},
            {"digest": bytes(32)},
            {"index": 6},
            {"deadline": NOW - 1},
        ):
            wrong = attrs.evolve(right, **change)
            self.fails(ShardRefused, self.temps.commit(UUID, wrong))
            self.assertEqual(self.files(), [UUID])
        self.assertEqual(self.disk.tree(f"{ROOT}/objects"), [])
        self.assertNothingOpen()
        done(self.temps.commit(UUID, right))
        self.assertGone()

    def test_told_by_its_file(self) -> None:
        """The file alone tells kind and bytes: a head of its own, then the bytes."""
        self.assertEqual(len(HEAD), len(PROLOGUE))
        self.assertNotEqual(HEAD, PROLOGUE)
        self.create()
        self.append(0, PROLOGUE, b"more", framed=False)
        file = self.disk.content(f"{ROOT}/temp/{UUID}")
        self.assertEqual(file, HEAD + PROLOGUE + b"more")


class Rules(Base):
    """What is common to both kinds."""

    def test_offset(self) -> None:
        """Only what stands behind the bytes held is taken."""
        self.create()
        for kind in (True, False):
            error = self.fails(
                WrongOffset, self.temps.append(UUID, 1, kind, Body(b"x"))
            )
            self.assertEqual(getattr(error, "held", None), 0)
        self.append(0, b"12345", framed=False)
        for offset in (0, 4, 6, 2**63):
            work = self.temps.append(UUID, offset, False, Body(b"x"))
            error = self.fails(WrongOffset, work)
            self.assertEqual(getattr(error, "held", None), 5)
        self.assertEqual(self.bytes_held(), b"12345")

    def test_kinds_do_not_mix(self) -> None:
        """The first body with a byte decides; an empty one does not."""
        self.create()
        self.assertEqual(self.append(0), 0)
        self.append(0, b"plain", framed=False)
        self.fails(Refused, self.temps.append(UUID, 5, True, Body(framed(ONE))))
        self.assertEqual(self.append(5), 5)
        done(self.temps.remove(UUID))
        self.create()
        self.append(0, framed(ONE, 0, 1))
        self.fails(Refused, self.temps.append(UUID, 250, False, Body(b"plain")))
        self.append(250, framed(ONE, 1))
        done(self.temps.commit(UUID, commit_of(ONE)))

    def test_limit(self) -> None:
        """Up to the limit all is well; one byte more and the temporary is gone."""
        for kind, body in ((True, framed(ONE)), (False, bytes(625))):
            self.create(625)
            self.assertEqual(self.append(0, body, framed=kind), 625)
            done(self.temps.remove(UUID))
            self.create(624)
            self.fails(TooLong, self.temps.append(UUID, 0, kind, Body(body)))
            self.assertGone()

    def test_one_at_a_time(self) -> None:
        """While a body comes in, others are refused; removal is not."""
        self.create()
        body = Held()
        appending: list[object] = []
        _ = start(self.temps.append(UUID, 0, False, body)).addBoth(appending.append)
        body.give(b"12345")
        self.fails(Refused, self.temps.append(UUID, 5, False, Body(b"x")))
        self.fails(Refused, self.temps.open(UUID))
        self.fails(Refused, self.temps.commit(UUID, commit_of(ONE)))
        self.assertEqual(appending, [])
        done(self.temps.remove(UUID))
        self.assertEqual(self.files(), [])
        body.give(b"67890")
        (result,) = appending
        assert isinstance(result, Failure)
        self.assertIsInstance(result.value, NodeUnreachable)
        self.assertGone()

    def test_name_free_again(self) -> None:
        """A late writer of a removed temporary does not touch the new one."""
        self.create()
        bodies = [Held(), Held()]
        results: list[object] = []
        _ = start(self.temps.append(UUID, 0, False, bodies[0])).addBoth(results.append)
        bodies[0].give(b"old")
        done(self.temps.remove(UUID))
        self.create()
        self.append(0, b"new", framed=False)
        bodies[0].give(b"late")
        self.assertIsInstance(results[0], Failure)
        self.assertEqual(self.bytes_held(), b"new")
        done(self.temps.remove(UUID))
        # one that had not even begun to write
        self.create()
        _ = start(self.temps.append(UUID, 0, False, bodies[1])).addBoth(results.append)
        done(self.temps.remove(UUID))
        self.create()
        bodies[1].give(b"late")
        self.assertIsInstance(results[1], Failure)
        self.assertEqual(self.temps.held(UUID), 0)
        self.assertEqual(self.disk.content(f"{ROOT}/temp/{UUID}"), b"")

    def test_taken(self) -> None:
        """A uuid is given once, also where another writer has the file."""
        self.create()
        self.fails(Refused, self.temps.create(None, UUID))
        sink = self.got(self.node.store.create("6" * 32))
        self.fails(Refused, self.temps.create(None, "6" * 32))
        self.assertEqual(len(self.temps), 1)
        done(sink.abort())
        self.fails(Malformed, self.temps.create(None, "../../etc/passwd"))
        self.fails(Malformed, self.temps.remove("../../etc/passwd"))

    def test_fresh_uuids(self) -> None:
        """Without a uuid each gets one of its own."""
        found = {self.got(self.temps.create()) for _ in range(50)}
        self.assertEqual(len(found), 50)
        self.assertEqual(len(self.temps), 50)
        self.assertEqual(set(self.files()), found)
        self.assertNothingOpen()

    def test_most(self) -> None:
        """There are at most so many at once."""
        self.patch(temporaries, "MOST", 3)
        uuids = [self.got(self.temps.create()) for _ in range(3)]
        self.fails(NodeUnreachable, self.temps.create())
        self.assertEqual(len(self.files()), 3)
        done(self.temps.remove(uuids[0]))
        done(self.temps.create())

    def test_forgotten(self) -> None:
        """What nobody touched for a day makes room when another is created."""
        old, touched = (self.got(self.temps.create()) for _ in range(2))
        self.time.advance(temporaries.FORGOTTEN)
        done(self.temps.append(touched, 0, False, Body(b"still here")))
        self.time.advance(1)
        new = self.got(self.temps.create())
        self.assertEqual(set(self.files()), {touched, new})
        self.fails(NotFound, self.temps.open(old))
        self.assertEqual(self.temps.held(touched), 10)

    def test_unknown(self) -> None:
        """What is not there is not found; removing it is fine."""
        self.fails(NotFound, self.temps.append(UUID, 0, True, Body()))
        self.fails(NotFound, self.temps.open(UUID))
        self.fails(NotFound, self.temps.commit(UUID, commit_of(ONE)))
        self.assertRaises(NotFound, self.temps.held, UUID)
        done(self.temps.remove(UUID))

    def test_file_taken_away(self) -> None:
        """A temporary whose file was removed under the node is gone."""
        self.create()
        self.append(0, b"12345", framed=False)
        self.disk.delete(f"{ROOT}/temp/{UUID}")
        self.fails(NotFound, self.temps.append(UUID, 5, False, Body(b"x")))
        self.assertGone()

    def test_swept_at_the_start(self) -> None:
        """The next start removes them."""
        self.create()
        self.append(0, b"12345", framed=False)
        done(self.node.stop())
        again = node_on(self.disk)
        done(again.start())
        self.assertEqual(self.files(), [])
        self.assertEqual(len(again.store.temporaries), 0)

    def test_full_disk(self) -> None:
        """What does not fit is dropped, so that it leaves the room to others."""
        for kind, body in ((True, framed(ONE)), (False, bytes(625))):
            self.create()
            self.disk.capacity = 400 + sum(
                len(self.disk.content(path)) for path in self.disk.tree()
            )
            self.fails(NodeFull, self.temps.append(UUID, 0, kind, Body(body)))
            self.assertGone()

    def test_failing_disk(self) -> None:
        """Whatever operation fails: an error, nothing named, nothing left, nothing open."""

        async def story() -> None:
            await self.temps.create(None, UUID)
            framed_one = self.disk.fault is not None and self.kind
            body = framed(ONE) if framed_one else bytes(625)
            await self.temps.append(UUID, 0, bool(framed_one), Body(body))
            await self.temps.commit(UUID, self.wanted)

        plain = Commit(HASH, 0, Layout(4, 2, 2500, ""))
        for self.kind, self.wanted in ((True, commit_of(ONE)), (False, plain)):
            for number in range(40):
                self.setUp()
                first = len(self.disk.operations) + number
                self.disk.fault = lambda op, at=first: (
                    errno.EIO if op.number == at and op.name != "remove" else None
                )
                result = outcome(story())
                self.disk.fault = None
                self.assertNothingOpen()
                if isinstance(result, Failure):
                    self.assertIsInstance(result.value, NodeUnreachable)
                    self.assertEqual(len(self.temps), 0)
                    self.assertEqual(self.files(), [])

    def test_power_cuts(self) -> None:
        """Dark before or after any operation: an acknowledged shard is whole."""
        wanted = Commit(HASH, 0, Layout(4, 2, 2500, ""))
        key = ShardKey(HASH, 0, plain_layout(2500, 4, 2).id)
        number, outcomes = 0, set()
        while True:
            self.setUp()
            acknowledged = False

            async def story() -> None:
                nonlocal acknowledged
                await self.temps.create(None, UUID)
                await self.temps.append(UUID, 0, False, Body(b"x" * 625))
                await self.temps.commit(UUID, wanted)
                acknowledged = True

            self.disk.cut_after = len(self.disk.operations) + number
            number += 1
            with contextlib.suppress(PowerCut):
                _ = start(story()).addErrback(lambda failure: failure.trap(PowerCut))
            dark = self.disk.dark
            disk = self.disk.after_power_cut(Random(number), "mixed", "torn")
            again = node_on(disk)
            done(again.start())
            found = outcome(blocks(again.store, key))
            if isinstance(found, Failure):
                found.trap(ShardMissing)
                self.assertFalse(acknowledged)
            else:
                self.assertEqual(found, [b"x" * 625])
            self.assertEqual(disk.names(f"{ROOT}/temp"), [])
            outcomes.add((acknowledged, isinstance(found, Failure)))
            if not dark:
                break
        self.assertLessEqual({(False, True), (True, False)}, outcomes)
