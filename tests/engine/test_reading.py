"""GET: right bytes, whatever up to m shards do."""

from __future__ import annotations

from itertools import combinations
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from ostore.engine.getting import ByteStream
from ostore.engine.looking import PAUSE
from ostore.erasure.framing import FRAME_HEADER, Frame, crc32c
from ostore.erasure.shardfile import PROLOGUE
from ostore.model.errors import (
    NodeUnreachable,
    ShardMissing,
    ShardRotten,
    TooFewShards,
)
from tests.support.engine import (
    MIB,
    EngineCase,
    Rig,
    fails,
    hangs,
    sha256,
    some_bytes,
)

SMALL, LARGE = some_bytes(70_000), some_bytes(3 * MIB + 7)
PAIRS = tuple(combinations(range(6), 2))


class ReadCase(EngineCase):
    """Six nodes, a small and a large content."""

    def rise_with(self, nodes: int = 6, **options: Any) -> None:
        """Start and store them."""
        self.rise(nodes, **options)
        self.run_(self.put(SMALL, "small"))
        self.run_(self.put(LARGE, "large"))

    def assert_reads(self, seconds: float) -> None:
        """Both read right within so many seconds each."""
        self.assertEqual(self.run_(self.get("small"), seconds), SMALL)
        self.assertEqual(self.run_(self.get("large"), seconds), LARGE)

    def open(self, name: str = "large", begin: int = 0) -> ByteStream:
        """A stream of it."""
        found = self.run_(self.store.open(name))
        return self.run_(found.read(begin, found.version.size))

    async def reach(self, name: str) -> None:
        """What a HEAD asks for."""
        await (await self.store.open(name)).reach()

    def rest(self, stream: ByteStream) -> bytes:
        """What is left of the stream."""

        async def all_() -> bytes:
            parts = []
            while piece := await stream.read():
                parts.append(piece)
            return b"".join(parts)

        try:
            return self.run_(all_())
        finally:
            self.run_(stream.close())

    def queued(self, content: bytes) -> set[int]:
        """Indices of the content that wait for their repair."""
        hash = sha256(content)
        waiting = self.engine.repairs._waiting.values()
        return {i for repair in waiting if repair.hash == hash for i in repair.spots}

    def lie(self, content: bytes, index: int) -> Rig:
        """Exchange a shard's blocks for others with right checksums of their own."""
        rig = self.holder(content, index)
        store, hash = rig.node.store, sha256(content)
        (facts,) = self.run_(store.find(hash)).shards

        async def forge() -> None:
            reader = await store.open(facts.key)
            stream = reader.frames(0, len(reader.table))
            sink = await store.create("ab" * 16)
            while (frame := await stream.read()) is not None:
                block = Random(index).randbytes(len(frame.block))
                await sink.write(
                    Frame(
                        frame.number,
                        frame.raw,
                        frame.stored,
                        frame.coding,
                        frame.stripe_crc,
                        crc32c(block),
                        block,
                    )
                )
            await stream.close()
            await reader.close()
            token = await store.condemn(facts.key)
            await store.discard(facts.key, token)
            await sink.commit(facts.key, facts.layout, None, 0.0)

        self.run_(forge())
        return rig

    def forget(self) -> None:
        """Empty the queue of repairs."""
        self.engine.repairs._waiting.clear()


class AnyTwoTests(ReadCase):
    """Any m shards may be missing, rotten, unreachable or slow."""

    def test_missing(self) -> None:
        """Any two missing: right at once, and queued a moment later."""
        for pair in PAIRS:
            self.setUp()
            self.rise_with()
            self.lose(SMALL, *pair)
            self.lose(LARGE, *pair)
            self.assert_reads(0.05)
            self.pass_(PAUSE)
            self.assertEqual(self.queued(SMALL), set(pair))
            self.assertEqual(self.queued(LARGE), set(pair))
            self.fall()

    def test_unreachable(self) -> None:
        """Any two nodes out of reach, silent on the bus or not: right, at once."""
        self.rise_with()
        for pair in PAIRS:
            for rules in (("open",), ("stream.read",), ("open", "find")):
                for index in pair:
                    for rule in rules:
                        self.rigs[index].rules[rule] = fails(NodeUnreachable("gone"))
                self.assert_reads(0.05)
                for rig in self.rigs:
                    rig.come_back()
                self.pass_(6)

    def test_dead(self) -> None:
        """Any two nodes dead: no longer wait than the first time-out."""
        self.rise_with()
        for pair in PAIRS[::4]:
            for index in pair:
                self.rigs[index].go()
            self.assert_reads(1.1)
            for rig in self.rigs:
                rig.come_back()
            self.pass_(6)

    def test_hanging(self) -> None:
        """Any two nodes that hang, at any step: another shard is asked for in time."""
        self.rise_with()
        for pair in PAIRS:
            for step in ("open", "stream.read", "find"):
                for index in pair:
                    self.rigs[index].rules[step] = hangs
                self.assert_reads(0.5)
                for rig in self.rigs:
                    rig.come_back()
                self.pass_(6)

    def test_hanging_disks(self) -> None:
        """Disks that hang under an open read delay it by no more than the time-out."""
        self.rise_with()
        for pair in PAIRS[::3]:
            stream = self.open()
            for rig in self.rigs:
                rig.disk.cached = False
            for index in pair:
                self.rigs[index].workers.hanging = True
            before = self.time.seconds()
            self.assertEqual(self.rest(stream), LARGE)
            self.assertLess(self.time.seconds() - before, 1.5)
            self.assert_reads(2.5)
            for rig in self.rigs:
                rig.workers.release()
            self.pass_(6)
            self.assertEqual([rig.open_files() for rig in self.rigs], [[]] * 6)

    @settings(deadline=None, max_examples=40)
    @given(st.sampled_from(PAIRS), st.integers(0), st.integers(0), st.booleans())
    def test_rotten(
        self, pair: tuple[int, int], one: int, other: int, cached: bool
    ) -> None:
        """Any bit flipped in any two shards: right bytes; what was met is queued."""
        self.setUp()
        self.rise_with()
        rigs = [
            self.flip(content, index, offset)
            for content in (SMALL, LARGE)
            for index, offset in zip(pair, (one, other), strict=True)
        ]
        for rig in self.rigs:
            rig.disk.cached = cached
        self.assert_reads(0.05)
        for content in (SMALL, LARGE):
            self.assertLessEqual(self.queued(content), set(pair))
            data = {index for index in pair if index < 4}
            self.assertLessEqual(data, self.queued(content) | self.padding(content))
        self.assertEqual(len(rigs), 4)
        self.fall()

    def padding(self, content: bytes) -> set[int]:
        """Indices whose shard still reads as whole: the flip hit what is not read."""
        found = set()
        for index, rigs in self.holders(content).items():
            if self.run_(rigs[0].node.store.find(sha256(content))).shards:
                found.add(index)
        return found

    def test_three_missing(self) -> None:
        """Three missing: 503 before the first byte, and at once."""
        self.rise_with()
        self.lose(LARGE, 0, 3, 5)
        self.lose(SMALL, 0, 1, 2)
        for name in ("small", "large"):
            self.refused(TooFewShards, self.get(name), 0.5)
            self.refused(TooFewShards, self.reach(name), 0.5)


class StreamTests(ReadCase):
    """What happens while a content is being read."""

    def test_sources_replaced(self) -> None:
        """Sources that fail in the middle are replaced from the same stripe on."""
        for error in (NodeUnreachable("gone"), ShardRotten("rot"), ShardMissing("no")):
            self.setUp()
            self.rise_with()
            stream = self.open()
            self.run_(stream.read())
            for index in (0, 2):
                self.holder(LARGE, index).rules["stream.read"] = fails(error)
            self.assertEqual(self.rest(stream), LARGE[MIB // 4 :])
            self.fall()

    def test_lost_in_the_middle(self) -> None:
        """Too few in the middle: an error, never a short normal end."""
        self.rise_with()
        stream = self.open()
        for index in (0, 2, 4):
            self.holder(LARGE, index).rules["stream.read"] = fails(ShardRotten("rot"))

        async def rest() -> None:
            while await stream.read():
                pass

        self.refused(TooFewShards, rest())
        self.refused(TooFewShards, rest())
        self.run_(stream.close())

    def test_all_hang_in_the_middle(self) -> None:
        """When too many hang in the middle, the read ends in an error after a while."""
        self.rise_with()
        stream = self.open()
        for index in (0, 2, 4):
            self.holder(LARGE, index).rules["stream.read"] = hangs

        async def rest() -> None:
            while await stream.read():
                pass

        self.refused(TooFewShards, rest(), 12)
        self.run_(stream.close())

    def test_asked_again(self) -> None:
        """Shards that the first locate did not wait for are found when they are needed."""
        self.rise_with()
        late = [self.holder(LARGE, index) for index in (1, 2)]
        for rig in late:
            rig.rules["find"] = lambda *_: self.clock.sleep(0.1)
        stream = self.open()
        for index in (0, 3):
            self.holder(LARGE, index).rules["stream.read"] = fails(ShardRotten("rot"))
        self.assertEqual(self.rest(stream), LARGE)

    def test_asked_again_at_once(self) -> None:
        """So it is when they are needed for the first stripe."""
        self.rise_with()
        for index in (1, 2):
            rig = self.holder(LARGE, index)
            rig.rules["find"] = lambda *_: self.clock.sleep(0.1)
        for index in (0, 3):
            self.flip(LARGE, index, 100)
        self.assertEqual(self.run_(self.get("large"), 0.3), LARGE)

    def test_patience(self) -> None:
        """One more shard is asked for after 50 ms, or three times the median."""
        self.rise_with()
        slow = self.holder(LARGE, 0)
        slow.rules["stream.read"] = lambda *_: self.clock.sleep(0.4)
        before = self.time.seconds()
        self.assertEqual(self.run_(self.get("large")), LARGE)
        self.assertAlmostEqual(self.time.seconds() - before, 0.05)
        for rig in self.rigs:
            rig.rules["stream.read"] = lambda *_: self.clock.sleep(0.04)
        stream = self.open()
        for rig in self.rigs:
            rig.calls.clear()
        slow.rules["stream.read"] = lambda *_: self.clock.sleep(0.1)
        parity = self.holder(LARGE, 4), self.holder(LARGE, 5)
        self.assertEqual(self.rest(stream), LARGE)
        self.assertEqual([rig.calls["stream.read"] for rig in parity], [0, 0])

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_ranges(self, data: st.DataObject) -> None:
        """Any range of any content, with any two data shards gone or not."""
        if not self.risen:
            self.setUp()
            self.rise_with()
        name, content = data.draw(
            st.sampled_from((("small", SMALL), ("large", LARGE))), label="which"
        )
        begin = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(begin, len(content)))
        for index in data.draw(st.sampled_from(((), (0,), (1, 3), (0, 1)))):
            self.holder(content, index).rules["open"] = fails(ShardMissing("no"))
        self.assertEqual(self.run_(self.get(name, begin, stop), 0), content[begin:stop])
        for rig in self.rigs:
            rig.come_back()

    def test_close(self) -> None:
        """Closing lets go of every file, at any moment; twice is once."""
        self.rise_with()
        stream = self.open()
        self.run_(stream.close())
        for count in range(6):
            stream = self.open(begin=MIB // 2)
            for _ in range(count):
                self.run_(stream.read())
            self.run_(stream.close())
            self.run_(stream.close())
            self.assertEqual([rig.open_files() for rig in self.rigs], [[]] * 6)
        self.refused(TooFewShards, stream.read())

    def test_cancelled(self) -> None:
        """A read that is cancelled at any moment leaves no file open."""
        self.rise_with()
        for rig in self.rigs:
            rig.disk.cached = False
            rig.workers.delay = 0.03
        for moment in range(100):
            running = self.begin(self.get("large"))
            self.pass_(moment * 0.01)
            if running.called:
                break
            running.cancel()
            self.assertRaises(CancelledError, self.finish, running)
            self.pass_(1)
            self.assertEqual([rig.open_files() for rig in self.rigs], [[]] * 6)
        self.assertTrue(10 < moment < 99)

    def test_one_byte_heals(self) -> None:
        """A one-byte range queues what it met; so does a read that is given up."""
        self.rise_with()
        self.flip(LARGE, 1, 100)
        self.assertEqual(self.run_(self.get("large", 0, 1)), LARGE[:1])
        self.assertEqual(self.queued(LARGE), {1})
        self.forget()
        self.lose(SMALL, 2)
        stream = self.open("small")
        self.run_(stream.close())
        self.assertEqual(self.queued(SMALL), {2})

    def test_late_is_not_missing(self) -> None:
        """What a node that is merely late may hold is not queued."""
        self.rise_with()
        self.rigs[0].rules["find"] = lambda *_: self.clock.sleep(0.3)
        self.assert_reads(0.05)
        self.assertEqual(self.queued(LARGE) | self.queued(SMALL), set())


class SalvageTests(ReadCase):
    """More than m shards are rotten, but nowhere more than m in one stripe."""

    def rot(self, *where: tuple[int, int]) -> None:
        """Rot a byte of those (index, stripe)."""
        for index, stripe in where:
            frame = FRAME_HEADER.size + MIB // 4
            offset = len(PROLOGUE) + stripe * frame + FRAME_HEADER.size
            self.flip(LARGE, index, offset)

    def test_all_rotten(self) -> None:
        """Reads are right while the rot is met, and once all is known to be bad."""
        self.rise_with()
        self.rot((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2))
        for _ in range(3):
            self.assertEqual(self.run_(self.get("large"), 3), LARGE)
            for begin, stop in ((0, 1), (MIB - 1, MIB + 1), (2 * MIB, 3 * MIB + 7)):
                part = self.run_(self.get("large", begin, stop), 3)
                self.assertEqual(part, LARGE[begin:stop])
        for rig in self.rigs:
            found = self.run_(rig.node.store.find(sha256(LARGE)))
            self.assertEqual(found.state, "none")
        self.run_(self.reach("large"), 3)

    def test_met_on_the_way(self) -> None:
        """A stream goes on where its shards leave it, without a wrong byte."""
        self.rise_with()
        stream = self.open()
        self.rot((0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3))
        self.assertEqual(self.rest(stream), LARGE)

    def test_too_much(self) -> None:
        """Three rotten blocks in one stripe: that part is lost, the others are not."""
        self.rise_with()
        self.rot((0, 1), (1, 1), (2, 1), (3, 0), (4, 0))
        self.refused(TooFewShards, self.get("large", MIB, MIB + 1), 3)
        self.assertEqual(self.run_(self.get("large", 0, MIB), 3), LARGE[:MIB])
        stream = self.open()
        self.refused(TooFewShards, self.swallow(stream), 3)

    async def swallow(self, stream: ByteStream) -> None:
        """Read it to its end, and let go of it."""
        try:
            while await stream.read():
                pass
        finally:
            await stream.close()

    def test_some_out_of_reach(self) -> None:
        """Nodes that hang or are gone cost a moment, as long as k blocks are left."""
        self.rise_with()
        self.rot((0, 0), (1, 1), (2, 2))
        self.assertEqual(self.run_(self.get("large"), 3), LARGE)
        self.holder(LARGE, 5).rules["stream.read"] = hangs
        self.assertEqual(self.run_(self.get("large"), 5), LARGE)
        self.holder(LARGE, 5).rules["open"] = fails(NodeUnreachable("gone"))
        self.assertEqual(self.run_(self.get("large"), 3), LARGE)

    def test_lies(self) -> None:
        """Blocks that pass their own checksum and not the stripe's are left out."""
        self.rise_with()
        self.lie(LARGE, 5)
        self.rot((0, 0), (1, 1), (2, 2))
        for _ in range(2):
            self.assertEqual(self.run_(self.get("large"), 3), LARGE)

    def test_nothing_is_left_open(self) -> None:
        """Every file is closed behind a read, however it ends."""
        self.rise_with()
        self.rot((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2))
        self.run_(self.get("large"), 3)
        stream = self.open()
        self.run_(stream.read())
        self.run_(stream.close())
        for rig in self.rigs:
            self.assertEqual(rig.open_files(), [])


class LayoutTests(ReadCase):
    """Which layout is read, and what if none is there."""

    def test_unsure(self) -> None:
        """While nodes cannot say, they are asked again until the time-out; then 503."""
        self.rise_with()
        self.engine.cluster.places.forget(sha256(LARGE))
        for rig in self.rigs[:3]:
            rig.rules["find"] = fails(NodeUnreachable("counting"))
        before = self.time.seconds()
        self.refused(TooFewShards, self.get("large"))
        self.assertGreaterEqual(self.time.seconds() - before, 1.0)
        self.assertGreater(self.rigs[0].calls["find"], 3)
        running = self.begin(self.get("large"))
        self.pass_(0.5)
        for rig in self.rigs:
            rig.come_back()
        self.assertEqual(self.finish(running, 0.2), LARGE)

    def test_restored(self) -> None:
        """Shards in garbage are brought back before a read gives up."""
        self.rise_with()
        for content in (SMALL, LARGE):
            for rig in self.rigs[:4]:
                store, hash = rig.node.store, sha256(content)
                (facts,) = self.run_(store.find(hash)).shards
                token = self.run_(store.condemn(facts.key))
                self.assertTrue(self.run_(store.discard(facts.key, token)))
        self.rigs[5].rules["restore"] = hangs
        self.rigs[4].rules["restore"] = fails(NodeUnreachable("gone"))
        self.run_(self.reach("large"), 3.5)
        self.assert_reads(3.5)
        self.assert_whole(SMALL)
        self.rigs[0].rules["restore"] = fails(ZeroDivisionError("a defect"))
        self.lose(SMALL, 0, 1, 2)
        self.refused(ZeroDivisionError, self.get("small"))

    def test_rotten_then_restored(self) -> None:
        """So they are when those that stand turn out to be rotten."""
        self.rise_with()
        for rig in self.rigs[:2]:
            store = rig.node.store
            (facts,) = self.run_(store.find(sha256(LARGE))).shards
            token = self.run_(store.condemn(facts.key))
            self.run_(store.discard(facts.key, token))
        for index in self.holders(LARGE):
            self.flip(LARGE, index, 100)
            break
        self.assertEqual(self.run_(self.get("large")), LARGE)

    def test_liar(self) -> None:
        """A block right by its own checksum but not by the stripe's: found and queued."""
        for index in range(5):
            for failing in ({}, {"mark_bad": fails(NodeUnreachable("gone"))}):
                self.setUp()
                self.rise_with()
                liar = self.lie(LARGE, index)
                liar.rules.update(failing)
                if index > 3:
                    other = self.holder(LARGE, 0)
                    other.rules["open"] = fails(NodeUnreachable("gone"))
                self.assertEqual(self.run_(self.get("large"), 0.1), LARGE)
                self.assertEqual(self.queued(LARGE), {index})
                self.assertEqual(liar.calls["mark_bad"], 1)
                found = self.run_(liar.node.store.find(sha256(LARGE)))
                self.assertEqual(found.state, "have" if failing else "none")
                self.fall()

    def test_two_liars(self) -> None:
        """Two of them too, one of which hangs when the others are asked."""
        self.rise_with()
        self.lie(LARGE, 1)
        self.lie(LARGE, 3)
        self.assertEqual(self.run_(self.get("large"), 0.1), LARGE)
        self.assertEqual(self.queued(LARGE), {1, 3})

    def test_liar_and_silence(self) -> None:
        """A liar with every other shard out of reach or hanging: no bytes."""
        self.rise_with()
        self.lie(LARGE, 1)
        self.holder(LARGE, 4).rules["open"] = hangs
        self.holder(LARGE, 5).rules["open"] = fails(NodeUnreachable("gone"))
        self.refused(TooFewShards, self.get("large"), 10)

    def test_empty(self) -> None:
        """An empty content and an empty range give nothing, and ask nobody."""
        self.rise_with()
        self.run_(self.put(b"", "empty"))
        before = self.engine.cluster.locates
        self.assertEqual(self.run_(self.get("empty")), b"")
        self.assertEqual(self.run_(self.get("large", 7, 7)), b"")
        self.assertEqual(self.engine.cluster.locates, before)

    def test_nobody(self) -> None:
        """Without nodes: 503."""
        self.rise_with()
        for rig in self.rigs:
            rig.go()
        self.refused(TooFewShards, self.get("large"), 4)
        self.pass_(16)
        self.refused(TooFewShards, self.get("large"), 0)
