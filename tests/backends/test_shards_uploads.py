"""Resumable uploads on one node: their contract, restarts and power cuts."""

# ruff: noqa: D102 - the mixin says what these give

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import get_args

from twisted.internet import reactor, task
from twisted.python.failure import Failure
from twisted.trial import unittest

from ostore.backends.shards import disk as growing
from ostore.backends.shards import uploads
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.store import ShardStore
from ostore.erasure.framing import FRAME_HEADER
from ostore.erasure.shardfile import PROLOGUE
from ostore.interfaces import IShardStore, IUploads
from ostore.model.errors import NodeUnreachable, ShardMissing
from ostore.model.resuming import Tail
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers, ThreadWorkers
from tests.backends.test_shards_crash import done, node_on, outcome
from tests.contracts.shards import blocks
from tests.contracts.uploads import EXPIRY, ONE, UPLOAD, UploadsContract, rows
from tests.support.disk import Data, Entries, PowerCut, SimulatedDisk

BEGIN = 1_700_000_000.0
BLOCK = len(ONE.frames[0].block)


class OnSimulatedDisk(UploadsContract, unittest.TestCase):
    """Inline workers."""

    def wall(self) -> float:
        return BEGIN + self.time.seconds()

    def later(self, seconds: float) -> None:
        self.time.advance(seconds)

    def files(self) -> list[str]:
        return self.disk.names("/data/temp")

    async def fresh(self) -> tuple[IUploads, IShardStore]:
        self.time = task.Clock()
        self.disk = SimulatedDisk(self.wall)
        self.node = await self.risen()
        await self.node.adopt("c" * 32, 1)
        self.addCleanup(self.end)
        return self.node.store.uploads, self.node.store

    async def risen(self) -> ShardNode:
        """A node over the disk as it is."""
        clock = Clock(self.time, self.time.seconds, self.wall)
        chance = Random(1).randbytes
        node = ShardNode("/data", self.disk, InlineWorkers(), clock, chance)
        await node.start()
        return node

    async def end(self) -> None:
        """Stop it, and see that nothing is open."""
        await self.node.stop()
        self.assertEqual(self.disk.open_files(), [])

    async def restart(self) -> None:
        """Stop the node and start another over the same disk."""
        await self.end()
        self.node = await self.risen()
        self.uploads, self.shards = self.node.store.uploads, self.node.store

    async def test_restart(self) -> None:
        """A node that starts again knows frames, tails, epochs and outcomes."""
        await self.begun(epoch=4)
        await self.send(4, 0, *ONE.frames[:3])
        await self.uploads.add_tail(UPLOAD, 4, 3, 0, b"tail")
        before = await self.look()
        await self.restart()
        after = await self.look()
        self.assertEqual((before.active, after.active), (True, False))
        self.assertEqual(after.rows, before.rows)
        self.assertEqual(
            (after.epoch, after.settled, after.tails), (4, 4, before.tails)
        )
        self.assertEqual(await self.uploads.tail(UPLOAD, 3, 4), b"tail")
        self.assertFalse((await self.uploads.claim(UPLOAD, 4)).granted)
        self.assertEqual(await self.send(4, 3, *ONE.frames[3:]), 5)
        await self.uploads.commit(UPLOAD, 4, ONE.key, ONE.layout, None)
        await self.restart()
        self.assertEqual((await self.look()).stripes, 5)
        await self.uploads.commit(UPLOAD, 4, ONE.key, ONE.layout, None)
        await self.uploads.finish(UPLOAD, 4, "outcome")
        await self.restart()
        self.assertEqual((await self.look()).outcome, "outcome")
        self.assertEqual(len(await blocks(self.shards, ONE.key)), 5)

    async def after_power_cut(self) -> None:
        """Only what was synced is there, and a node starts on that."""
        self.disk = self.disk.after_power_cut(Random(0))
        self.node = await self.risen()
        self.uploads, self.shards = self.node.store.uploads, self.node.store

    async def test_told_before_the_claim(self) -> None:
        """A claim finds what was told while its writer, dead by then, counted as alive."""
        await self.begun()
        sink = await self.uploads.open(UPLOAD, 1, 0)
        for frame in ONE.frames[:2]:
            await sink.write(frame)
        told = await self.look()
        self.assertTrue(told.active)
        self.assertEqual(told.rows, rows(ONE.frames[:2]))
        self.later(5.1)
        found = await self.uploads.claim(UPLOAD, 2)
        self.assertTrue(found.granted)
        self.assertEqual(found.rows, told.rows)

    async def test_tail_whose_maker_failed(self) -> None:
        """The first bytes that are acknowledged make its name durable, whoever made it."""
        await self.begun()
        self.disk.fault = lambda at: errno.EIO if at.name == "pwrite" else None
        with self.assertRaises(NodeUnreachable):
            await self.uploads.add_tail(UPLOAD, 1, 0, 0, b"tail")
        self.disk.fault = None
        await self.uploads.add_tail(UPLOAD, 1, 0, 0, b"tail")
        await self.after_power_cut()
        self.assertEqual((await self.look()).tails, (Tail(0, 1, 4),))

    async def test_tail_whose_maker_died(self) -> None:
        """A node that starts again has what it says that it has."""
        await self.begun()
        self.disk.fault = lambda at: errno.EIO if at.name == "fsync" else None
        with self.assertRaises(NodeUnreachable):
            await self.uploads.add_tail(UPLOAD, 1, 0, 0, b"tail")
        self.disk = self.disk.after_kill()
        await self.restart_after_flip()
        before = await self.look()
        self.assertEqual(before.tails, (Tail(0, 1, 4),))
        await self.after_power_cut()
        self.assertEqual((await self.look()).tails, before.tails)

    async def test_restart_of_what_expired(self) -> None:
        """What expired while the node was down goes at its start, all of it."""
        await self.begun()
        await self.send(1, 0, *ONE.frames[:3])
        await self.uploads.add_tail(UPLOAD, 1, 3, 0, b"tail")
        await self.end()
        self.later(EXPIRY + 1)
        self.disk.put("/data/temp/" + "cd" * 16, b"of a PUT that died")
        self.disk.put("/data/temp/" + "ef" * 16 + ".3.1.tail", b"of nobody")
        self.node = await self.risen()
        self.assertEqual(self.files(), [])

    async def test_sweep(self) -> None:
        """A sweep removes what has expired, and closes what is quiet."""
        await self.begun()
        await self.send(1, 0, *ONE.frames[:3])
        await self.uploads.release(UPLOAD, 1)
        path, store = f"/data/temp/{UPLOAD}", self.node.store
        await store.uploads.sweep()
        self.assertIn(path, self.disk.open_files())
        self.later(11)
        await store.uploads.sweep()
        self.assertNotIn(path, self.disk.open_files())
        self.later(EXPIRY - 12)
        await self.uploads.renew(UPLOAD, 1)
        self.later(EXPIRY - 1)
        await store.uploads.sweep()
        self.assertEqual((await self.look()).stripes, 3)
        self.later(2)
        await store.uploads.sweep()
        self.assertEqual(self.files(), [])
        self.assertEqual(len(store.uploads), 0)

    async def test_many_open(self) -> None:
        """Few files stay open between parts."""
        await self.begun(epoch=None)
        self.patch(uploads, "OPEN", 3)
        for number in range(6):
            upload = f"{number:032x}"
            await self.uploads.begin(upload, "record", EXPIRY)
            await self.uploads.claim(upload, 1)
            sink = await self.uploads.open(upload, 1, 0)
            await sink.write(ONE.frames[0])
            await sink.sync()
            await sink.close()
            await self.uploads.release(upload, 1)
        found = [path for path in self.disk.open_files() if "/temp/" in path]
        self.assertEqual(len(found), 3)

    async def test_rot(self) -> None:
        """What stands before a bad block is held, and goes on from there."""
        for number in (0, 2, 4):
            await self.begun()
            await self.send(1, 0, *ONE.frames)
            await self.end()
            at = len(PROLOGUE) + number * (FRAME_HEADER.size + BLOCK)
            self.disk.flip(f"/data/temp/{UPLOAD}", at + FRAME_HEADER.size + 7)
            await self.restart_after_flip()
            self.assertEqual((await self.look()).rows, rows(ONE.frames[:number]))
            self.assertEqual(await self.send(1, number, *ONE.frames[number:]), 5)
            await self.uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, None)
            self.assertEqual(len(await blocks(self.shards, ONE.key)), 5)

    async def restart_after_flip(self) -> None:
        """As restart(), for a node that has ended."""
        self.node = await self.risen()
        self.uploads, self.shards = self.node.store.uploads, self.node.store

    async def test_rotten_record(self) -> None:
        """A record that cannot be read is none."""
        await self.begun()
        await self.end()
        self.disk.flip(f"/data/temp/{UPLOAD}.upload", 0)
        await self.restart_after_flip()
        await self.refused(ShardMissing, self.look())
        self.assertEqual(self.files(), [])


class OnRealDisk(UploadsContract, unittest.TestCase):
    """Real threads and a real folder."""

    def setUp(self) -> None:
        self.moved = 0.0

    def wall(self) -> float:
        return BEGIN + self.moved

    def later(self, seconds: float) -> None:
        self.moved += seconds

    def files(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("temp/*"))

    async def fresh(self) -> tuple[IUploads, IShardStore]:
        self.root = Path(self.mktemp()).absolute()
        clock = Clock(task.Clock(), self.wall, self.wall)
        workers = ThreadWorkers(reactor, 3, "shards")
        node = ShardNode(str(self.root), Files(), workers, clock, os.urandom)
        await node.start()
        await node.adopt("c" * 32, 1)
        self.addCleanup(node.stop)
        return node.store.uploads, node.store


class PowerCutTests(unittest.SynchronousTestCase):
    """The power is cut before each operation of the disk in turn."""

    def test_every_operation(self) -> None:
        """What was acknowledged before the cut is there after it."""
        count = self.story(0)
        self.assertGreater(count, 40)
        for number in range(1, count):
            self.story(number)

    def test_past_the_page_cache(self) -> None:
        """Also when frames go to the disk at once."""
        self.patch(growing, "DIRECT_FROM", 1)
        for number in range(0, self.story(0), 3):
            self.story(number)

    def story(self, number: int) -> int:
        """Begin, send, commit, finish, with a cut before that operation; 0: without.

        Gives how many operations there were.
        """
        disk = SimulatedDisk(lambda: BEGIN)
        disk.make("/data")
        node = node_on(disk)
        done(node.start())
        acknowledged: list[str] = []
        before = len(disk.operations)
        disk.cut_before = before + number if number else None
        result = outcome(self.act(node.store.uploads, acknowledged.append))
        if isinstance(result, Failure):
            result.trap(PowerCut)
        for again, entries in enumerate(get_args(Entries)):
            for data in get_args(Data):
                chance = Random(f"{number} {again}")
                self.after(disk.after_power_cut(chance, entries, data), acknowledged)
        return len(disk.operations) - before

    async def act(self, uploads: IUploads, say: Callable[[str], None]) -> None:
        """All of it; `say` is told of each step that was acknowledged."""
        await uploads.begin(UPLOAD, "record", EXPIRY)
        say("begun")
        await uploads.claim(UPLOAD, 1)
        await uploads.settle(UPLOAD, 1, "record")
        say("settled")
        sink = await uploads.open(UPLOAD, 1, 0)
        for frame in ONE.frames[:3]:
            await sink.write(frame)
        await sink.sync()
        say("three")
        await uploads.add_tail(UPLOAD, 1, 3, 0, b"one")
        say("tail")
        await uploads.add_tail(UPLOAD, 1, 3, 3, b"two")
        say("more tail")
        for frame in ONE.frames[3:]:
            await sink.write(frame)
        await sink.sync()
        say("five")
        await uploads.commit(UPLOAD, 1, ONE.key, ONE.layout, None)
        say("shard")
        await uploads.finish(UPLOAD, 1, "outcome")
        say("outcome")

    def after(self, disk: SimulatedDisk, acknowledged: list[str]) -> None:
        """Another node over what the cut left."""
        node = node_on(disk, seed=7)
        done(node.start())
        done(self.look(node.store, acknowledged))
        done(node.stop())

    async def look(self, store: ShardStore, acknowledged: list[str]) -> None:
        """All that was acknowledged is there."""
        if "begun" in acknowledged:
            state = await store.uploads.look(UPLOAD)
            if "settled" in acknowledged:
                self.assertEqual((state.epoch, state.settled), (1, 1))
            if "outcome" in acknowledged:
                self.assertEqual(state.outcome, "outcome")
            if state.outcome is None:
                steps = {"five": 5, "three": 3}
                least = max((steps.get(step, 0) for step in acknowledged), default=0)
                self.assertGreaterEqual(state.stripes, least)
                self.assertEqual(state.rows, rows(ONE.frames[: state.stripes]))
                if state.stripes == 3 and "tail" in acknowledged:
                    tail = await store.uploads.tail(UPLOAD, 3, 1)
                    self.assertGreaterEqual(
                        len(tail), 6 if "more tail" in acknowledged else 3
                    )
                    self.assertTrue(b"onetwo".startswith(tail))
            else:
                self.assertIn("shard", acknowledged)
        if "shard" in acknowledged:
            self.assertEqual(len(await blocks(store, ONE.key)), 5)
