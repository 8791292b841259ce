"""Contents of one stripe on nodes of the same process: read without waiting."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.glancing import LONGEST, PATIENCE, SLOW, Glancing
from ostore.engine.looking import PAUSE
from ostore.erasure.codec import Codecs
from ostore.erasure.encoder import Encoder
from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Buffer, Geometry
from ostore.model.census import Standing
from ostore.model.errors import Deleted, TooFewShards
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.support.engine import MIB, EngineCase, Rig, sha256, some_bytes

SMALL = some_bytes(4096)
TEXT = b"the same line again and again\n" * 300


class GlancingTests(EngineCase):
    """Right bytes without opening a shard; the long way whenever something is wrong."""

    pack_limit = MIB

    def opens(self) -> int:
        """How often any shard was opened."""
        return sum(rig.calls["open"] for rig in self.rigs)

    def segment(self, content: bytes, index: int) -> tuple[Rig, str, int]:
        """Where a shard's record lies: node, file, offset."""
        hash = bytes.fromhex(sha256(content))
        for rig in self.rigs:
            for row in rig.node.store._log.rows.of(hash):
                if row.number == index:
                    path = f"/data/segments/{row.segment:08x}.seg"
                    return rig, path, row.offset + row.span // 2
        raise AssertionError(f"no node has shard {index}")

    def rot(self, content: bytes, index: int) -> None:
        """Change a byte in the middle of a shard's record."""
        rig, path, at = self.segment(content, index)
        rig.disk.flip(path, at)

    def test_reads(self) -> None:
        """What was just stored is read, whole and in part, and no shard is opened.

        But for the first, which opens the segments, and a look at 1 MiB.
        """
        self.rise()
        self.run_(self.put(b"first"))
        self.assertEqual(self.run_(self.get()), b"first")
        before = self.opens()
        for content in (SMALL, TEXT, b"x", some_bytes(MIB)):
            self.run_(self.put(content))
            self.assertEqual(self.run_(self.get()), content)
            found = self.run_(self.store.open("name"))
            self.run_(found.reach())
            middle = len(content) // 2
            part = self.run_(self.get(begin=middle, stop=middle + 1))
            self.assertEqual(part, content[middle : middle + 1])
        self.assertEqual(self.opens() - before, 4)

    @given(st.data())
    @settings(deadline=None, max_examples=25)
    def test_parts(self, data: st.DataObject) -> None:
        """Any part of any such content, over any borders of blocks."""
        self.setUp()
        self.rise()
        size = data.draw(st.integers(1, 9000))
        content = some_bytes(size) if data.draw(st.booleans()) else (TEXT * 9)[:size]
        self.run_(self.put(content))
        self.assertEqual(self.run_(self.get()), content)
        before = self.opens()
        begin = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(begin + 1, size))
        self.assertEqual(self.run_(self.get("name", begin, stop)), content[begin:stop])
        self.assertEqual(self.opens(), before)
        self.fall()

    def test_large(self) -> None:
        """Several stripes go the long way."""
        self.rise()
        large = some_bytes(MIB + 1)
        self.run_(self.put(large))
        self.assertEqual(self.run_(self.get()), large)
        self.assertGreater(self.opens(), 0)

    def test_rotten(self) -> None:
        """A rotten record is met by the long way: right bytes, and it is mended."""
        self.rise(mending=True)
        self.run_(self.put(SMALL))
        for index in (0, 3):
            self.rot(SMALL, index)
        self.assertEqual(self.run_(self.get()), SMALL)
        self.assertGreater(self.opens(), 0)
        self.pass_(10)
        self.assertEqual(self.engine.mending.mended, 2)
        opened = self.opens()
        self.assertEqual(self.run_(self.get()), SMALL)  # where it is now is learnt
        self.assertEqual(self.run_(self.get()), SMALL)
        self.assertLessEqual(self.opens() - opened, 4)

    def test_marked_bad(self) -> None:
        """What was found rotten is not read, though it were whole."""
        self.rise()
        self.run_(self.put(SMALL))
        rig, _, _ = self.segment(SMALL, 1)
        (facts,) = self.run_(rig.node.store.find(sha256(SMALL))).shards
        self.assertIsNotNone(rig.node.store.glance(facts.key))
        self.run_(rig.node.store.mark_bad(facts.key))
        self.assertIsNone(rig.node.store.glance(facts.key))
        self.assertEqual(self.run_(self.get()), SMALL)

    def test_garbage(self) -> None:
        """Nor is what lies in garbage; five such are brought back to be read."""
        self.rise()
        self.run_(self.put(SMALL))
        for index in range(5):
            rig, _, _ = self.segment(SMALL, index)
            store = rig.node.store
            (facts,) = self.run_(store.find(sha256(SMALL))).shards
            token = self.run_(store.condemn(facts.key))
            self.assertTrue(self.run_(store.discard(facts.key, token)))
            self.assertIsNone(store.glance(facts.key))
        self.assertEqual(self.run_(self.get()), SMALL)

    def test_gone(self) -> None:
        """Segments whose files are gone: the others are read, or it is refused."""
        self.rise()
        self.run_(self.put(SMALL))
        for index in range(2):
            rig, path, _ = self.segment(SMALL, index)
            rig.disk.remove(path)
        self.assertEqual(self.run_(self.get()), SMALL)
        rig, path, _ = self.segment(SMALL, 2)
        rig.disk.remove(path)
        self.refused(TooFewShards, self.get())

    def test_not_in_memory(self) -> None:
        """What must come from a disk is waited for."""
        self.rise()
        self.run_(self.put(SMALL))
        for rig in self.rigs:
            rig.disk.pread_cached = lambda *_: None  # type: ignore[method-assign]  # a cold cache
        self.assertEqual(self.run_(self.get()), SMALL)
        self.assertGreater(self.opens(), 0)

    def test_suspects(self) -> None:
        """A content with a node that is suspect is asked for, and read the long way."""
        self.rise()
        self.run_(self.put(SMALL))
        self.assertEqual(self.run_(self.get()), SMALL)
        before = self.opens()
        rig, _, _ = self.segment(SMALL, 5)
        self.engine.cluster.suspect(rig.id)
        self.assertEqual(self.run_(self.get()), SMALL)
        self.assertGreater(self.opens(), before)

    def test_looked_after(self) -> None:
        """A parity shard that is gone is noticed behind a read that did not need it."""
        self.rise(mending=True)
        self.run_(self.put(SMALL))
        rig, path, _ = self.segment(SMALL, 5)
        rig.disk.remove(path)
        self.assertEqual(self.run_(self.get()), SMALL)
        self.pass_(PAUSE + 10)
        self.assertEqual(self.engine.mending.mended, 1)

    def test_deleted(self) -> None:
        """A name that is deleted is not read though its shards are there."""
        self.rise()
        self.run_(self.put(SMALL))
        self.run_(self.store.delete("name"))
        self.refused(Deleted, self.get())


class AskedTests(SynchronousTestCase):
    """Nodes that have to be asked: enough blocks, whoever lags."""

    def setUp(self) -> None:
        """A content, and nodes that answer when they are told to."""
        self.time = task.Clock()
        clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.codecs = Codecs()
        geometry = Geometry(4, 2)
        encoder = Encoder(geometry, self.codecs.get(geometry))
        self.frames = encoder.code(SMALL)
        self.layout = encoder.layout()
        self.standing = Standing(self.layout, {i: (f"n{i}",) for i in range(6)})
        self.asked: dict[int, Deferred[Frame | None]] = {}
        self.away: set[str] = set()
        self.glancing = Glancing(self, self.codecs, clock)  # type: ignore[arg-type]  # all that it asks of nodes

    def at_hand(self, node: str) -> AskedTests | None:
        """Every node is this."""
        return None if node in self.away else self

    def glance(self, key: ShardKey) -> Deferred[Frame | None]:
        """Note who was asked."""
        self.assertEqual((key.hash, key.layout), ("a" * 64, self.layout.id))
        self.assertNotIn(key.index, self.asked)
        self.asked[key.index] = Deferred()
        return self.asked[key.index]

    def begin(self) -> Deferred[Sequence[Buffer] | None]:
        """Read it."""
        self.asked = {}
        return start(self.glancing.stripe("a" * 64, self.standing))

    def say(self, *indices: int) -> None:
        """These answer."""
        for index in indices:
            self.asked[index].callback(self.frames[index])

    def assert_read(self, reading: Deferred[Sequence[Buffer] | None]) -> None:
        """It is right, and nothing is left."""
        pieces = self.successResultOf(reading)
        assert pieces is not None
        self.assertEqual(b"".join(pieces), SMALL)
        self.assertEqual(self.time.getDelayedCalls(), [])

    def test_data_shards(self) -> None:
        """The data shards are asked, all at once, and no other."""
        reading = self.begin()
        self.assertEqual(sorted(self.asked), [0, 1, 2, 3])
        self.say(3, 1, 0)
        self.assertNoResult(reading)
        self.say(2)
        self.assert_read(reading)

    def test_one_lags(self) -> None:
        """One more is asked when patience ends; who lagged is asked last for a while."""
        reading = self.begin()
        self.say(0, 1, 3)
        self.time.advance(PATIENCE + 0.001)
        self.assertEqual(sorted(self.asked), [0, 1, 2, 3, 4])
        self.say(4)
        self.assert_read(reading)
        reading = self.begin()
        self.assertEqual(sorted(self.asked), [0, 1, 3, 4])
        self.say(0, 1, 3, 4)
        self.assert_read(reading)
        self.time.advance(SLOW + 0.1)
        reading = self.begin()
        self.assertEqual(sorted(self.asked), [0, 1, 2, 3])
        self.say(0, 1, 2, 3)
        self.assert_read(reading)

    def test_one_says_nothing(self) -> None:
        """A node without it in memory ends it at once: the long way is gone."""
        reading = self.begin()
        self.asked[2].callback(None)
        self.assertIsNone(self.successResultOf(reading))
        self.assertEqual(self.time.getDelayedCalls(), [])

    def test_one_is_not_at_hand(self) -> None:
        """Nor is anybody asked for long."""
        self.away.add("n1")
        self.assertIsNone(self.successResultOf(self.begin()))

    def test_nobody_answers(self) -> None:
        """It ends, with all six asked."""
        reading = self.begin()
        for _ in range(100):
            self.time.advance(PATIENCE / 2)
            if reading.called:
                break
        self.assertIsNone(self.successResultOf(reading))
        self.assertLessEqual(self.time.seconds(), LONGEST + 2 * PATIENCE)
        self.assertEqual(sorted(self.asked), [0, 1, 2, 3, 4, 5])
        self.assertEqual(self.time.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Whoever asked went: nobody is waited for."""
        reading = self.begin()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertTrue(all(each.called for each in self.asked.values()))
        self.assertEqual(self.time.getDelayedCalls(), [])

    def test_lies(self) -> None:
        """Blocks that are not of this layout, or not of one stripe together."""
        lies = (
            attrs.evolve(self.frames[1], stripe_crc=1),
            attrs.evolve(self.frames[1], raw=4095),
            attrs.evolve(self.frames[1], block=bytes(1024)),
            attrs.evolve(self.frames[1], block=b"short"),
        )
        for lie in lies:
            reading = self.begin()
            self.asked[1].callback(lie)
            self.say(0, 2, 3)
            self.assertIsNone(self.successResultOf(reading))
