"""What every IShardStore must do."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import attrs
from zope.interface.verify import verifyObject

from ostore.erasure.framing import Frame, TableBuilder, crc32c
from ostore.interfaces import IFrameStream, IShardReader, IShardSink, IShardStore
from ostore.model.errors import Malformed, ShardMissing, ShardRefused, ShardRotten
from ostore.model.layouts import Layout, ShardFacts, ShardKey, before

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

STRIPE = 1 << 20


@attrs.frozen
class Sample:
    """One shard of a made-up content."""

    key: ShardKey
    layout: Layout
    frames: tuple[Frame, ...]


def sample(
    seed: int = 0,
    size: int = 3000,
    index: int = 0,
    data: int = 4,
    parity: int = 2,
    stripe: int = STRIPE,
) -> Sample:
    """A shard of `size` raw bytes; the seed alone gives the content's hash."""
    rng = Random(f"{seed} {size} {index} {data} {stripe}")
    builder = TableBuilder(data, parity)
    frames: list[Frame] = []
    for start in range(0, size, stripe):
        raw = min(stripe, size - start)
        block = rng.randbytes(-(-raw // data))
        crc = crc32c(b"%d %d" % (start, seed))
        builder.append(raw, raw, 0, crc)
        frames.append(Frame(len(frames), raw, raw, 0, crc, crc32c(block), block))
    hash = hashlib.sha256(str(seed).encode()).hexdigest()
    layout = builder.table().layout()
    return Sample(ShardKey(hash, index, layout.id), layout, tuple(frames))


async def put(store: IShardStore, one: Sample, age: float = 0.0) -> None:
    """Write a shard through a sink."""
    sink = await store.create(hashlib.sha256(repr(one.key).encode()).hexdigest()[:32])
    for frame in one.frames:
        await sink.write(frame)
    await sink.commit(one.key, one.layout, None, age)


async def put_small(store: IShardStore, one: Sample, age: float = 0.0) -> None:
    """Write a shard in one step."""
    await store.put_small(one.key, one.layout, one.frames, None, age)


async def blocks(
    store: IShardStore, key: ShardKey, first: int = 0, stop: int = 1 << 30
) -> list[bytes]:
    """The blocks of a shard, read through the seam."""
    reader = await store.open(key)
    try:
        stop = min(stop, len(reader.table))
        stream = reader.frames(first, stop)
        found = []
        try:
            while (frame := await stream.read()) is not None:
                found.append(bytes(frame.block))
        finally:
            await stream.close()
        return found
    finally:
        await reader.close()


class ShardStoreContract(TestCase):
    """A subclass gives the store and its clock."""

    store: IShardStore

    async def fresh(self) -> IShardStore:
        """An empty store, ready; it ends with the test."""
        raise NotImplementedError

    def later(self, seconds: float) -> None:
        """Move the store's wall clock on."""
        raise NotImplementedError

    def wall(self) -> float:
        """The store's wall clock."""
        raise NotImplementedError

    async def begin(self) -> IShardStore:
        """Take the store of this test."""
        self.store = await self.fresh()
        return self.store

    async def refused(
        self,
        error: type[Exception] | tuple[type[Exception], ...],
        work: Awaitable[object],
    ) -> None:
        """Awaiting `work` raises `error`."""
        try:
            await work
        except error:
            return
        self.fail(f"no {error}")

    def assertWhole(self, one: Sample, found: ShardFacts) -> None:
        """The facts are those of the shard."""
        self.assertEqual(found.key, one.key)
        self.assertEqual(found.layout, one.layout)
        self.assertEqual(found.state, "whole")
        self.assertGreater(found.bytes, sum(len(f.block) for f in one.frames))

    async def test_interfaces(self) -> None:
        """Store, sink, reader and stream provide their interfaces."""
        store, one = await self.begin(), sample()
        verifyObject(IShardStore, store)
        sink = await store.create("0" * 32)
        verifyObject(IShardSink, sink)
        await sink.abort()
        await put_small(store, one)
        reader = await store.open(one.key)
        verifyObject(IShardReader, reader)
        stream = reader.frames(0, 1)
        verifyObject(IFrameStream, stream)
        await stream.close()
        await reader.close()

    async def test_round_trip(self) -> None:
        """What was written through a sink or in one step is found and read back."""
        store = await self.begin()
        for write in (put, put_small):
            for size in (0, 1, 3000, STRIPE, 5 * STRIPE + 17):
                one = sample(10 * size + (write is put), size)
                await write(store, one)
                holding = await store.find(one.key.hash)
                self.assertEqual(holding.state, "have")
                self.assertWhole(one, *holding.shards)
                self.assertEqual(
                    await blocks(store, one.key), [bytes(f.block) for f in one.frames]
                )

    async def test_range_of_stripes(self) -> None:
        """A stream gives the stripes asked for and no others."""
        store, one = await self.begin(), sample(1, 4 * STRIPE)
        await put(store, one)
        wanted = [bytes(frame.block) for frame in one.frames[1:3]]
        self.assertEqual(await blocks(store, one.key, 1, 3), wanted)
        self.assertEqual(await blocks(store, one.key, 2, 2), [])

    async def test_reader_knows_the_table(self) -> None:
        """A reader bears facts and table of its shard."""
        store, one = await self.begin(), sample(2, 2 * STRIPE)
        await put(store, one)
        reader = await store.open(one.key)
        self.assertWhole(one, reader.facts)
        self.assertEqual(reader.table.layout(), one.layout)
        await reader.close()
        await reader.close()

    async def test_unknown(self) -> None:
        """Of an unknown content there is nothing, and that is certain."""
        store, one = await self.begin(), sample()
        self.assertEqual((await store.find(one.key.hash)).state, "none")
        self.assertEqual((await store.renew(one.key.hash, "0" * 32)).state, "none")
        self.assertEqual((await store.restore(one.key.hash)).state, "none")
        await self.refused(ShardMissing, store.open(one.key))
        await self.refused(ShardMissing, store.condemn(one.key))
        await store.mark_bad(one.key)
        await put(store, one)
        self.assertEqual((await store.find(one.key.hash)).state, "have")

    async def test_strange_names(self) -> None:
        """Nothing but hex digits of the right number gets near a path."""
        store, one = await self.begin(), sample()
        for hash in ("", "../" * 10, "A" * 64, "0" * 63, "0" * 64 + "/", "é" * 64):
            key = attrs.evolve(one.key, hash=hash)
            await self.refused(Malformed, store.find(hash))
            await self.refused(Malformed, store.open(key))
            await self.refused(Malformed, store.renew(hash, "0" * 32))
            await self.refused(Malformed, store.condemn(key))
            await self.refused(
                (Malformed, ShardRefused),
                store.put_small(key, one.layout, one.frames, None, 0),
            )
        for upload in ("", "x", "../../../../../../../etc/passwd-", "0" * 33):
            await self.refused(Malformed, store.create(upload))

    async def test_aborted(self) -> None:
        """An aborted temporary leaves nothing, and its upload may begin again."""
        store, one = await self.begin(), sample()
        for _ in range(2):
            sink = await store.create("a" * 32)
            await sink.write(one.frames[0])
            await sink.abort()
            await sink.abort()
        self.assertEqual((await store.find(one.key.hash)).state, "none")
        sink = await store.create("a" * 32)
        await sink.write(one.frames[0])
        await sink.commit(one.key, one.layout, None, 0)
        await sink.abort()
        self.assertEqual((await store.find(one.key.hash)).state, "have")

    async def test_one_temporary_an_upload(self) -> None:
        """A second temporary of one upload is refused, the first goes on."""
        store, one = await self.begin(), sample()
        sink = await store.create("a" * 32)
        await self.refused(ShardRefused, store.create("a" * 32))
        await sink.write(one.frames[0])
        await sink.commit(one.key, one.layout, None, 0)
        await self.refused(ShardRefused, sink.write(one.frames[0]))
        self.assertEqual((await store.find(one.key.hash)).state, "have")

    async def test_many_small_frames(self) -> None:
        """A small content may have more frames than one system call takes."""
        store, one = await self.begin(), sample(1, 1500, stripe=1)
        await put_small(store, one)
        self.assertEqual(
            await blocks(store, one.key), [bytes(f.block) for f in one.frames]
        )

    async def test_frames_out_of_order(self) -> None:
        """A frame that does not follow the one before is refused."""
        store, one = await self.begin(), sample(1, 3 * STRIPE)
        sink = await store.create("a" * 32)
        await sink.write(one.frames[0])
        await self.refused(ShardRefused, sink.write(one.frames[2]))
        await sink.abort()

    async def test_wrong_layout(self) -> None:
        """A commit whose layout is not that of the frames names nothing."""
        store, one, other = await self.begin(), sample(), sample(0, 4000)
        wrong = (
            (attrs.evolve(one.key, layout=other.key.layout), other.layout),
            (attrs.evolve(one.key, layout=other.key.layout), one.layout),
            (one.key, attrs.evolve(one.layout, size=2999)),
            (one.key, attrs.evolve(one.layout, data=3)),
            (attrs.evolve(one.key, index=6), one.layout),
        )
        sink = await store.create("a" * 32)
        await sink.write(one.frames[0])
        for key, layout in wrong:
            await self.refused(ShardRefused, sink.commit(key, layout, None, 0))
            await self.refused(
                ShardRefused, store.put_small(key, layout, one.frames, None, 0)
            )
            self.assertEqual((await store.find(one.key.hash)).state, "none")
        await sink.commit(one.key, one.layout, None, 0)
        self.assertWhole(one, *(await store.find(one.key.hash)).shards)

    async def test_deadline(self) -> None:
        """A commit behind its deadline is refused and names nothing."""
        store, one = await self.begin(), sample()
        await put(store, sample(9))
        now = self.wall()
        sink = await store.create("a" * 32)
        await sink.write(one.frames[0])
        self.later(10)
        await self.refused(ShardRefused, sink.commit(one.key, one.layout, now + 9, 0))
        await self.refused(
            ShardRefused,
            store.put_small(one.key, one.layout, one.frames, now + 9, 0),
        )
        self.assertEqual((await store.find(one.key.hash)).state, "none")
        await sink.commit(one.key, one.layout, now + 3600, 0)
        self.assertEqual((await store.find(one.key.hash)).state, "have")

    async def test_two_layouts(self) -> None:
        """Two layouts and several indices of one content stand side by side."""
        store = await self.begin()
        held = [
            sample(1, 3000, 0),
            sample(1, 3000, 5),
            sample(1, 3000, 0, data=2),
            sample(1, 3000, 0, stripe=1000),
        ]
        for one in held:
            await put(store, one)
        found = (await store.find(held[0].key.hash)).shards
        self.assertEqual({f.key for f in found}, {one.key for one in held})
        for one in held:
            self.assertEqual(
                await blocks(store, one.key), [bytes(f.block) for f in one.frames]
            )
        renewed = await store.renew(held[0].key.hash, held[0].key.layout)
        self.assertEqual({f.key for f in renewed.shards}, {h.key for h in held[:2]})

    async def test_again(self) -> None:
        """The same shard again renews the standing one and clears its condemnation."""
        store, one = await self.begin(), sample()
        for write in (put, put_small):
            await put(store, one, age=0)
            token = await store.condemn(one.key)
            self.later(1000)
            await write(store, one)
            (facts,) = (await store.find(one.key.hash)).shards
            self.assertLess(facts.age, 500)
            self.assertFalse(await store.discard(one.key, token))
            self.assertEqual(
                await blocks(store, one.key), [bytes(f.block) for f in one.frames]
            )

    async def test_age(self) -> None:
        """A shard begins with the age given, ages, and is made young by renewal."""
        store, one = await self.begin(), sample()
        await put(store, one, age=5000)
        self.later(100)
        (facts,) = (await store.find(one.key.hash)).shards
        self.assertAlmostEqual(facts.age, 5100, delta=60)
        (facts,) = (await store.renew(one.key.hash, one.key.layout)).shards
        self.assertLess(facts.age, 60)
        (facts,) = (await store.find(one.key.hash)).shards
        self.assertLess(facts.age, 60)

    async def test_bad_counts_as_absent(self) -> None:
        """A shard marked bad is neither found nor renewed, until it is written anew."""
        store, one = await self.begin(), sample()
        await put(store, one)
        await store.mark_bad(one.key)
        self.assertEqual((await store.find(one.key.hash)).state, "none")
        self.assertEqual(
            (await store.renew(one.key.hash, one.key.layout)).state, "none"
        )
        (facts,) = await store.list("", 10)
        self.assertEqual(facts.state, "bad")
        await self.refused(ShardRotten, store.open(one.key))
        reader = await store.open(one.key, bad=True)
        stream = reader.frames(0, len(reader.table))
        self.assertEqual(await stream.read(), one.frames[0])
        await stream.close()
        await reader.close()
        await put(store, one)
        self.assertWhole(one, *(await store.find(one.key.hash)).shards)
        self.assertEqual(
            sorted(facts.state for facts in await store.list("", 10)),
            ["garbage", "whole"],
        )

    async def test_condemn_and_discard(self) -> None:
        """A condemned shard goes to garbage by its token and comes back by restore."""
        store, one = await self.begin(), sample()
        await put(store, one)
        token = await store.condemn(one.key)
        self.assertFalse(await store.discard(one.key, "0" * 32))
        self.assertTrue(await store.discard(one.key, token))
        self.assertFalse(await store.discard(one.key, token))
        self.assertEqual((await store.find(one.key.hash)).state, "none")
        await self.refused(ShardMissing, store.open(one.key))
        (facts,) = await store.list("", 10)
        self.assertEqual((facts.key, facts.state), (one.key, "garbage"))
        self.assertWhole(one, *(await store.restore(one.key.hash)).shards)
        self.assertEqual(
            await blocks(store, one.key), [bytes(f.block) for f in one.frames]
        )

    async def test_renewal_clears(self) -> None:
        """A renewal makes a token void, and brings the shard back from garbage."""
        store, one = await self.begin(), sample()
        await put(store, one)
        token = await store.condemn(one.key)
        await store.renew(one.key.hash, one.key.layout)
        self.assertFalse(await store.discard(one.key, token))
        token = await store.condemn(one.key)
        self.assertTrue(await store.discard(one.key, token))
        self.later(1000)
        other = await store.renew(one.key.hash, "0" * 32)
        self.assertEqual(other.state, "none")
        (facts,) = (await store.renew(one.key.hash, one.key.layout)).shards
        self.assertWhole(one, facts)
        self.assertLess(facts.age, 500)
        self.assertEqual([f.state for f in await store.list("", 10)], ["whole"])

    async def test_orders_name_an_age(self) -> None:
        """What is younger than an order says, renewed since perhaps, stays."""
        store, one = await self.begin(), sample()
        await put(store, one)
        self.later(1000)
        await store.renew(one.key.hash, one.key.layout)
        await self.refused(ShardRefused, store.condemn(one.key, 900))
        self.later(1000)
        token = await store.condemn(one.key, 900)
        self.assertTrue(await store.discard(one.key, token))
        self.assertEqual(await store.erase(one.key, 900), 0)
        self.assertEqual([f.state for f in await store.list("", 10)], ["garbage"])
        self.later(1000)
        (facts,) = await store.list("", 10)
        self.assertEqual(await store.erase(one.key, 900), facts.bytes)
        self.assertEqual(await store.erase(one.key, 900), 0)
        self.assertEqual(await store.list("", 10), [])
        self.assertEqual((await store.restore(one.key.hash)).state, "none")

    async def test_check(self) -> None:
        """Reading a shard through tells its bytes, and marks it when it is rotten."""
        store, one = await self.begin(), sample(size=3 * STRIPE)
        await put(store, one)
        size = sum(len(frame.block) for frame in one.frames)
        self.assertEqual(await store.check(one.key), (size, 0))
        last = len(one.frames[-1].block)
        self.assertEqual(await store.check(one.key, 2), (last, 0))
        self.assertEqual(await store.check(one.key, 9), (0, 0))
        await self.refused(ShardMissing, store.check(sample(seed=5).key))
        await store.mark_bad(one.key)
        await self.refused(ShardRotten, store.check(one.key))

    async def test_erased_from_garbage_alone(self) -> None:
        """Only copies in garbage go, all of them; what stands is not touched."""
        store, one, other = await self.begin(), sample(), sample(index=1)
        for _ in range(3):
            await put(store, one)
            await store.discard(one.key, await store.condemn(one.key))
        for each in (one, other):
            await put(store, each)
        await store.discard(other.key, await store.condemn(other.key))
        self.assertGreater(await store.erase(one.key, 0), 0)
        self.assertEqual(await store.erase(one.key, 0), 0)
        self.assertEqual(
            [(f.index, f.state) for f in await store.list("", 10)],
            [(0, "whole"), (1, "garbage")],
        )
        self.assertEqual(
            await blocks(store, one.key), [bytes(f.block) for f in one.frames]
        )

    async def test_orders_of_an_old_lease(self) -> None:
        """The highest epoch of an order is kept; lower ones are refused from then on."""
        store, one = await self.begin(), sample()
        await put(store, one)
        old = await store.condemn(one.key, 0, 5)
        token = await store.condemn(one.key, 0, 6)
        await self.refused(ShardRefused, store.condemn(one.key, 0, 5))
        await self.refused(ShardRefused, store.erase(one.key, 0, 5))
        with suppress(ShardRefused):
            self.assertFalse(await store.discard(one.key, old, 5))
        self.assertEqual([f.state for f in await store.list("", 10)], ["whole"])
        self.assertTrue(await store.discard(one.key, token, 6))
        self.assertGreater(await store.erase(one.key, 0, 7), 0)

    async def test_listing(self) -> None:
        """All shards in hash order; a page ends between contents, never inside one."""
        store = await self.begin()
        held = [sample(seed, 100, index) for seed in range(7) for index in (0, 3)]
        for one in held:
            await put_small(store, one)
        hashes = sorted({one.key.hash for one in held})
        pages: list[list[str]] = []
        after = ""
        while page := await store.list(after, 3):
            pages.append([facts.hash for facts in page])
            after = page[-1].hash
        self.assertEqual(
            [h for page in pages for h in page], [h for h in hashes for _ in range(2)]
        )
        self.assertEqual([len(page) for page in pages], [4, 4, 4, 2])

        everything = await store.list("", 99)
        for hash in (*hashes, "0" * 64, "f" * 64):
            alone = await store.list(before(hash), 1, hash)
            self.assertEqual(
                [facts.key for facts in alone],
                [facts.key for facts in everything if facts.hash == hash],
            )
        two = await store.list("", 99, hashes[1])
        self.assertEqual([facts.key for facts in two], [f.key for f in everything[:4]])
        self.assertEqual(await store.list("f" * 64, 1), [])

    async def test_space(self) -> None:
        """Free and total bytes."""
        store = await self.begin()
        space = await store.space()
        self.assertGreater(space.total, 0)
        self.assertLessEqual(space.free, space.total)

    async def test_streams_share_a_reader(self) -> None:
        """Two streams of one reader do not disturb each other."""
        store, one = await self.begin(), sample(1, 4 * STRIPE)
        await put(store, one)
        reader = await store.open(one.key)
        first, second = reader.frames(0, 4), reader.frames(2, 4)
        found = [await first.read(), await second.read(), await first.read()]
        numbers = [frame.number for frame in found if frame is not None]
        self.assertEqual(numbers, [0, 2, 1])
        await first.close()
        self.assertIsNotNone(await second.read())
        self.assertIsNone(await second.read())
        await second.close()
        await reader.close()
