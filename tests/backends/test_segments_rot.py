"""What a segment's bytes say when they are not what was written."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.paths import Paths
from ostore.backends.shards.segments.form import (
    BATCH,
    FOOTER,
    HEADER_SIZE,
    RECORD,
    ROW,
    Batch,
    Flawed,
    Footer,
    Header,
    Kind,
    Row,
    pack_record,
    parse_record,
)
from ostore.backends.shards.segments.log import SegmentLog
from ostore.backends.shards.segments.rows import Rows
from ostore.backends.shards.segments.writer import Entry
from ostore.model.errors import ShardMissing, ShardRotten
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from tests.backends.test_shards_crash import NOW, ROOT, discard, done, node_on
from tests.contracts.shards import Sample, blocks, put_small, sample
from tests.support.disk import SimulatedDisk

SEGMENTS = f"{ROOT}/segments"
PACKED = 1 << 20
HELD = [sample(seed, 300 + 4000 * seed) for seed in range(6)]

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
bytes_ = st.integers(0, 255)
rows = st.builds(
    Row,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    uint64,
    uint64,
    st.floats(0, 1e12),
    uint32,
    uint32,
    uint32,
    uint32,
    bytes_,
    bytes_,
    bytes_,
    st.sampled_from(list(Kind)),
)


class Forms(SynchronousTestCase):
    """Each part is read as it was written, or not at all."""

    def assertGuarded(self, data: bytes, parse: object, seed: int) -> None:
        """Any byte changed, or any missing, makes it Flawed."""
        assert callable(parse)
        at = Random(seed).randrange(len(data))
        bad = bytearray(data)
        bad[at] ^= 1 << seed % 8
        for other in (bytes(bad), data[:-1], data[1:]):
            self.assertRaises(Flawed, parse, other)

    @settings(deadline=None, max_examples=50)
    @given(rows, st.binary(min_size=8, max_size=8), uint32)
    def test_record(self, row: Row, mark: bytes, crc: int) -> None:
        """A record bears all that its row says, and the crc of its payload."""
        data = pack_record(row, mark, crc)
        self.assertEqual(parse_record(data, mark, row.offset), (row, crc))
        self.assertGuarded(data, lambda d: parse_record(d, mark, row.offset), crc)

    @settings(deadline=None, max_examples=50)
    @given(
        uint64,
        st.binary(min_size=8, max_size=8),
        uint64,
        uint64,
        st.lists(uint64, max_size=256),
    )
    def test_header(
        self, segment: int, mark: bytes, before: int, end: int, sources: list[int]
    ) -> None:
        """A header says which segments it replaces."""
        header = Header(segment, mark, before, end, tuple(sources))
        data = header.to_bytes()
        self.assertEqual(Header.from_bytes(data), header)
        self.assertGuarded(data, Header.from_bytes, segment)

    @settings(deadline=None, max_examples=50)
    @given(uint64, uint32, uint32, uint64, uint64, st.binary(min_size=8, max_size=8))
    def test_batch(
        self, segment: int, count: int, length: int, at: int, synced: int, mark: bytes
    ) -> None:
        """A batch says where it stands and what was synced before it."""
        batch = Batch(segment, count, length, at, synced)
        data = batch.to_bytes(mark)
        self.assertEqual(Batch.from_bytes(data, mark), (mark, batch))
        self.assertGuarded(data, lambda d: Batch.from_bytes(d, mark), segment)

    @settings(deadline=None, max_examples=50)
    @given(st.binary(min_size=8, max_size=8), uint32, uint64, uint32)
    def test_footer(self, mark: bytes, end: int, sequence: int, crc: int) -> None:
        """A footer says where the index lies, in a file of that length alone."""
        footer = Footer(7, mark, end, 3, 2, end, sequence, crc)
        size = end + 5 * ROW.size + FOOTER.size
        data = footer.to_bytes()
        self.assertEqual(Footer.from_bytes(data, size), footer)
        self.assertRaises(Flawed, Footer.from_bytes, data, size + 1)
        self.assertGuarded(data, lambda d: Footer.from_bytes(d, size), crc)


class InMemory(SynchronousTestCase):
    """Rows behave like a dictionary."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "remove", "load"]),
                st.integers(0, 5),
                st.integers(1, 4),
                st.sampled_from(list(Kind)),
            ),
            max_size=40,
        )
    )
    def test_model(self, steps: list[tuple[str, int, int, Kind]]) -> None:
        """Set, removed, loaded in bulk: each is found by hash, and counted once."""
        # hashes that share their fan, and one that holds another at an odd place
        hashes = [b"\1\2" + bytes([n]) * 30 for n in range(5)] + [bytes(32)]
        found, model = Rows(), dict[tuple[bytes, int], Row]()
        for what, number, birth, kind in steps:
            hash = hashes[number]
            row = Row(hash, bytes(16), birth, birth, 1.0, 1, 0, 9, 9, 0, 4, 2, kind)
            key = (hash, birth)
            if what == "remove":
                found.remove(row)
                model.pop(key, None)
            elif what == "set" or key in model:
                self.assertEqual(found.set(row), model.get(key))
                model[key] = row
            else:
                found.load(row.packed())
                found.settle()
                model[key] = row
            self.assertEqual(found.get(hash, birth), model.get(key))
        self.assertEqual(sorted(found.all()), sorted(model.values()))
        self.assertEqual(found.total, len(model))
        standing = [r for r in model.values() if r.kind < Kind.GARBAGE]
        self.assertEqual(found.standing, len(standing))
        for hash in hashes:
            expected = [row for row in model.values() if row.hash == hash]
            self.assertEqual(sorted(found.of(hash)), sorted(expected))
        present = sorted({row.hash for row in model.values()})
        self.assertEqual(list(found.hashes(b"")), present)
        self.assertEqual(
            list(found.hashes(hashes[2])), [h for h in present if h > hashes[2]]
        )

    def test_no_object_for_each(self) -> None:
        """A shard takes at most 100 bytes."""
        self.assertLessEqual(ROW.size, 96)


class Rot(SynchronousTestCase):
    """Bytes of a stopped or a killed node's segments are changed."""

    def setUp(self) -> None:
        """A node with shards in one segment, and where each one's record lies."""
        self.disk = SimulatedDisk(lambda: NOW)
        self.disk.make("/data")
        self.node = node_on(self.disk, pack_limit=PACKED)
        done(self.node.start())
        for one in HELD:
            done(put_small(self.node.store, one))
        (name,) = self.disk.names(SEGMENTS)
        self.path = f"{SEGMENTS}/{name}"
        self.spans = {
            row.key: (row.offset, row.offset + row.span)
            for row in self.node.store._log.rows.all()
        }

    def again(self, disk: SimulatedDisk) -> ShardNode:
        """A node that starts on the disk."""
        node = node_on(disk, seed=3, pack_limit=PACKED)
        done(node.start())
        return node

    def readable(self, node: ShardNode, one: Sample) -> bool:
        """Whether it can be read; never with wrong bytes."""
        found = False

        async def read() -> None:
            nonlocal found
            try:
                read = await blocks(node.store, one.key)
            except (ShardMissing, ShardRotten):
                return
            self.assertEqual(read, [bytes(f.block) for f in one.frames])
            found = True

        done(read())
        return found

    def assertOnlyLost(self, node: ShardNode, offset: int) -> None:
        """At most the shard whose record has this byte is gone; it can come again."""
        for one in HELD:
            first, end = self.spans[one.key]
            if not self.readable(node, one):
                self.assertTrue(first <= offset < end, (offset, first, end))

                async def mended(one: Sample = one) -> None:
                    found = await node.store.find(one.key.hash)
                    self.assertEqual(found.state, "none")
                    await put_small(node.store, one)

                done(mended())
                self.assertTrue(self.readable(node, one))

    def test_sealed(self) -> None:
        """Any byte of a sealed segment: one shard is lost at most, and known to be."""
        done(self.node.stop())
        rng = Random(3)
        size = len(self.disk.content(self.path))
        offsets = {0, 9, HEADER_SIZE - 1, HEADER_SIZE, size - 1, size - FOOTER.size}
        offsets |= {rng.randrange(HEADER_SIZE, size) for _ in range(60)}
        for first, _ in self.spans.values():
            offsets |= {first - 1, first, first + RECORD.size - 1, first + RECORD.size}
        for offset in sorted(offsets):
            disk = self.disk.copy()
            disk.flip(self.path, offset, 1 << offset % 8)
            self.assertOnlyLost(self.again(disk), offset)

    def test_unsealed(self) -> None:
        """So it is in a segment that a kill left without an index."""
        rng = Random(4)
        size = max(end for _, end in self.spans.values())
        offsets = {0, HEADER_SIZE, HEADER_SIZE + BATCH.size, size - 1}
        offsets |= {rng.randrange(HEADER_SIZE, size) for _ in range(60)}
        for offset in sorted(offsets):
            disk = self.disk.copy()
            disk.flip(self.path, offset, 1 << offset % 8)
            self.assertOnlyLost(self.again(disk), offset)

    def test_torn_or_rotten(self) -> None:
        """Rot below what was synced is counted, a torn last batch is not."""
        ordered = sorted(self.spans.values())
        for number, erasures in ((len(ordered) - 1, 0), (1, 1)):
            disk = self.disk.copy()
            disk.flip(self.path, ordered[number][0] + RECORD.size + 3)
            node = self.again(disk)
            self.assertEqual(node.store._log.erasures, erasures)
            self.assertEqual(
                sum(self.readable(node, one) for one in HELD), len(HELD) - 1
            )

    def test_under_the_running_node(self) -> None:
        """A record that rots is found at the next look, and written anew."""
        for one in HELD[:2]:
            first, end = self.spans[one.key]
            for offset in (first, first + RECORD.size, end - 1):
                self.setUp()
                self.disk.flip(self.path, offset, 0x55)
                self.assertFalse(self.readable(self.node, one), (first, offset, end))
                self.assertEqual(self.node.store.rotten, 1)
                self.assertOnlyLost(self.node, first)

    def test_rot_survives_copying(self) -> None:
        """A copy of a rotten record is as rotten, and its neighbours are whole."""
        done(self.node.stop())
        node = self.again(self.disk)
        first, _ = self.spans[HELD[0].key]
        self.disk.flip(self.path, first + RECORD.size + 20)
        for one in HELD[2:]:
            done(discard(node.store, one))
            done(node.store.erase(one.key, 0))
        self.assertNotIn(self.path, self.disk.tree(SEGMENTS))
        self.assertFalse(self.readable(node, HELD[0]))
        self.assertTrue(self.readable(node, HELD[1]))
        again = self.again(self.disk.copy())
        self.assertFalse(self.readable(again, HELD[0]))
        self.assertTrue(self.readable(again, HELD[1]))

    def test_a_body_that_looks_like_records(self) -> None:
        """A client's bytes are never taken for records, whatever they are."""
        content = self.disk.content(self.path)
        entropy = Random(1).randbytes
        time = task.Clock()
        disk = Disk(self.disk, Paths("/data/other"))
        self.disk.make("/data/other")
        clock = Clock(time, time.seconds, lambda: NOW)
        log = SegmentLog(disk, lambda: None, InlineWorkers(), clock, entropy)
        done(log.load())
        hash = bytes(32)
        row = Row(hash, bytes(16), 0, 0, 0.0, 0, 0, 0, 5, 0, 1, 0, Kind.PUT)
        done(log.append([Entry(row, [content[HEADER_SIZE:12_000]])]))
        done(log.append([Entry(row._replace(hash=b"\1" * 32), [b"x"])]))
        other = SegmentLog(disk, lambda: None, InlineWorkers(), clock, entropy)
        done(other.load())
        self.assertEqual({row.hash for row in other.rows.all()}, {hash, b"\1" * 32})
        self.assertEqual(other.erasures, 0)
