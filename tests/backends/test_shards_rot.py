"""Rotten shard files: an error, never wrong bytes."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from twisted.internet import task
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.erasure.framing import FRAME_HEADER
from ostore.erasure.shardfile import FOOTER_SIZE, INDEX_ROW, PROLOGUE
from ostore.model.errors import ShardMissing, ShardRotten
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from tests.backends.test_shards_crash import NOW, ROOT, done, node_on, sunk
from tests.contracts.shards import Sample, blocks, put, sample
from tests.support.disk import SimulatedDisk


class Rot(SynchronousTestCase):
    """One shard, some of its bytes not what they were."""

    def setUp(self) -> None:
        """An empty disk."""
        self.disk = SimulatedDisk(lambda: NOW)
        self.disk.make("/data")

    def begun(self, one: Sample) -> tuple[ShardNode, str]:
        """A node that holds the shard, and the path of its file."""
        node = node_on(self.disk)
        done(node.start())
        done(put(node.store, one))
        (path,) = self.disk.tree(f"{ROOT}/objects")
        return node, path

    def assertNeverWrong(self, node: ShardNode, one: Sample) -> bool:
        """Reading gives the right blocks or ShardRotten; whether it was that."""
        rotten = False

        async def read() -> None:
            nonlocal rotten
            try:
                found = await blocks(node.store, one.key)
            except ShardRotten:
                rotten = True
            else:
                self.assertEqual(found, [bytes(f.block) for f in one.frames])

        done(read())
        return rotten

    def test_every_byte_class(self) -> None:
        """A bit flipped in any part of the file is found and marks the shard bad."""
        one = sample(1, 3000, stripe=1000)
        block = len(one.frames[0].block)
        frame = FRAME_HEADER.size + block
        index = len(PROLOGUE) + len(one.frames) * frame
        size = index + len(one.frames) * INDEX_ROW.size + FOOTER_SIZE
        offsets = {
            *range(len(PROLOGUE) + FRAME_HEADER.size + 2),
            len(PROLOGUE) + frame - 1,
            *range(len(PROLOGUE) + frame, len(PROLOGUE) + frame + FRAME_HEADER.size),
            *range(index, size),
        }
        for cached in (True, False):
            for offset in sorted(offsets):
                self.setUp()
                self.disk.cached = cached
                node, path = self.begun(one)
                self.assertEqual(len(self.disk.content(path)), size)
                self.disk.flip(path, offset, 1 << offset % 8)
                self.assertTrue(self.assertNeverWrong(node, one), offset)
                self.assertAbsent(node, one)

    def assertAbsent(self, node: ShardNode, one: Sample) -> None:
        """The shard counts as absent until it is written again."""

        async def look() -> None:
            store = node.store
            self.assertEqual((await store.find(one.key.hash)).state, "none")
            renewed = await store.renew(one.key.hash, one.key.layout)
            self.assertEqual(renewed.state, "none")
            self.assertEqual([f.state for f in await store.list("", 9)], ["bad"])
            await put(store, one)
            self.assertEqual((await store.find(one.key.hash)).state, "have")
            states = sorted(f.state for f in await store.list("", 9))
            self.assertEqual(states, ["garbage", "whole"])

        done(look())
        self.assertFalse(self.assertNeverWrong(node, one))
        self.assertEqual(node.store.rotten, 1)

    def test_large_files_too(self) -> None:
        """Files too large to be read at once are checked frame by frame."""
        one = sample(1, 5 << 20)
        for cached in (True, False):
            self.setUp()
            self.disk.cached = cached
            node, path = self.begun(one)
            self.disk.flip(
                path, len(PROLOGUE) + 3 * (FRAME_HEADER.size + (1 << 18)) + 99
            )
            self.assertTrue(self.assertNeverWrong(node, one))
            self.assertAbsent(node, one)

    def test_cut_short(self) -> None:
        """A file cut at any length is rotten, an empty one too."""
        one = sample(1, 700)
        node, path = self.begun(one)
        whole = self.disk.content(path)
        rng = Random(5)
        for length in (
            0,
            1,
            len(whole) - 1,
            *(rng.randrange(len(whole)) for _ in "1234"),
        ):
            self.setUp()
            node, path = self.begun(one)
            self.disk.put(path, whole[:length])
            self.assertTrue(self.assertNeverWrong(node, one))
            self.assertAbsent(node, one)

    def test_find_sees_both_ends(self) -> None:
        """A find opens the file: one with a broken prologue or footer is not there."""
        one = sample(1, 700)
        for offset in (0, -1):
            self.setUp()
            node, path = self.begun(one)
            self.disk.flip(path, offset)

            async def look(node: ShardNode = node) -> None:
                self.assertEqual((await node.store.find(one.key.hash)).state, "none")

            done(look())
            self.assertEqual(node.store.rotten, 1)

    def test_another_shard_under_the_name(self) -> None:
        """A file that bears another shard's name is rotten."""
        one, other = sample(1, 700), sample(2, 700)
        node, path = self.begun(one)
        done(sunk(node.store, other))
        (theirs,) = (p for p in self.disk.tree(f"{ROOT}/objects") if p != path)
        self.disk.put(path, self.disk.content(theirs))
        self.assertTrue(self.assertNeverWrong(node, one))

    def test_rotten_garbage_stays_there(self) -> None:
        """What lies rotten in garbage is not brought back, the whole copy is."""
        one = sample(1, 700)
        node, _ = self.begun(one)

        async def twice() -> None:
            store = node.store
            await store.mark_bad(one.key)
            await put(store, one)
            token = await store.condemn(one.key)
            await store.discard(one.key, token)

        done(twice())
        first, _ = self.disk.tree(f"{ROOT}/garbage")
        self.disk.flip(first, 60)

        async def back() -> None:
            found = await node.store.renew(one.key.hash, one.key.layout)
            self.assertEqual(found.state, "have")

        done(back())
        self.assertFalse(self.assertNeverWrong(node, one))
        self.assertEqual(self.disk.tree(f"{ROOT}/garbage"), [first])

    def test_file_gone(self) -> None:
        """A file removed by somebody is missing, dropped from the index and counted."""
        one = sample(1, 700)
        for find_first in (True, False):
            self.setUp()
            node, path = self.begun(one)
            self.disk.delete(path)

            async def look(node: ShardNode = node, find: bool = find_first) -> None:
                if find:
                    found = await node.store.find(one.key.hash)
                    self.assertEqual(found.state, "none")
                with self.assertRaises(ShardMissing):
                    await node.store.open(one.key)

            done(look())
            self.assertEqual((node.store.lost, node.shard_count), (1, 0))
            done(put(node.store, one))
            self.assertFalse(self.assertNeverWrong(node, one))


class LinkTests(SynchronousTestCase):
    """A symbolic link where a shard's file was."""

    def test_replaced(self) -> None:
        """It is never followed, and the shard that comes anew takes its place."""
        time = task.Clock()
        clock = Clock(time, time.seconds, lambda: NOW)
        root = Path(self.mktemp())
        node = ShardNode(str(root), Files(), InlineWorkers(), clock, os.urandom)
        one = sample(1, 3000, stripe=1000)

        async def story() -> None:
            await node.start()
            await node.adopt("c" * 32, 1)
            await put(node.store, one)
            (path,) = (each for each in root.glob("objects/*/*") if each.is_file())
            aside = root / "aside"
            path.rename(aside)
            path.symlink_to(aside.resolve())
            found = await node.store.find(one.key.hash)
            self.assertEqual(found.state, "none")
            await put(node.store, one)
            self.assertFalse(path.is_symlink())
            sent = [bytes(frame.block) for frame in one.frames]
            self.assertEqual(await blocks(node.store, one.key), sent)
            self.assertEqual((await node.store.find(one.key.hash)).state, "have")
            await node.stop()

        done(story())
