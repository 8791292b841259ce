"""Whatever the disk does, an acknowledged shard is whole and the rest is nothing."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, get_args

import attrs
from twisted.internet import task
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards import disk as growing
from ostore.backends.shards import gathering
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.root import Root
from ostore.backends.shards.store import ShardStore
from ostore.interfaces import IShardStore
from ostore.model.errors import NodeFull, NodeUnreachable, ShardError
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.tasks import start
from tests.contracts.shards import Sample, blocks, put, put_small, sample
from tests.support.disk import Data, Entries, Fault, PowerCut, SimulatedDisk

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

Act = Callable[[ShardStore], Awaitable[object]]
ROOT = "/data/root"
NOW = 1_700_000_000.0

OLD = sample(1, 5000)
NEW = sample(2, 3 << 20)
TINY = sample(3, 40)


def node_on(
    disk: SimulatedDisk, *, durable: bool = True, seed: int = 0, pack_limit: int = 0
) -> ShardNode:
    """A node over a simulated disk; it counts its shards at once."""
    time = task.Clock()
    clock = Clock(time, time.seconds, lambda: NOW)
    entropy = Random(seed + len(disk.operations)).randbytes
    return ShardNode(
        ROOT,
        disk,
        InlineWorkers(),
        clock,
        entropy,
        durable=durable,
        pack_limit=pack_limit,
    )


def outcome(work: Awaitable[object]) -> object:
    """What the work gave, or the Failure it ended in."""
    results: list[object] = []
    _ = start(work).addBoth(results.append)
    return results[0]


def done(work: Awaitable[object]) -> None:
    """The work has to succeed."""
    result = outcome(work)
    if isinstance(result, Failure):
        result.raiseException()


async def sunk(store: IShardStore, one: Sample, upload: str = "b" * 32) -> None:
    """Write through a sink and, as an engine does, abort it when that fails."""
    sink = await store.create(upload)
    try:
        for frame in one.frames:
            await sink.write(frame)
        await sink.commit(one.key, one.layout, None, 0)
    except ShardError:
        await sink.abort()
        raise


async def discard(store: IShardStore, one: Sample) -> None:
    """Condemn and discard."""
    token = await store.condemn(one.key)
    await store.discard(one.key, token)


@attrs.frozen
class Story:
    """Acknowledged before: `prepare`. Then `act`, in which the disk fails.

    `old` must be had again afterwards, `new` may be. `bad`: the running process takes
    the old ones for rotten, and only a new start sees them again.
    """

    act: Act
    prepare: Act
    old: tuple[Sample, ...]
    new: tuple[Sample, ...] = ()
    bad: bool = False


async def nothing(_: ShardStore) -> None:
    """Prepare nothing."""


async def put_old(store: ShardStore) -> None:
    """One shard stands."""
    await put(store, OLD, age=9000)


async def old_in_garbage(store: ShardStore) -> None:
    """One shard lies in garbage."""
    await put_old(store)
    await discard(store, OLD)


async def old_bad(store: ShardStore) -> None:
    """A shard stands that is known to be rotten."""
    await put_old(store)
    await store.mark_bad(OLD.key)


STORIES = {
    "commit": Story(lambda s: sunk(s, NEW), put_old, (OLD,), (NEW,)),
    "first commit": Story(lambda s: sunk(s, NEW), nothing, (), (NEW,)),
    "put_small": Story(lambda s: put_small(s, TINY), put_old, (OLD,), (TINY,)),
    "commit again": Story(lambda s: sunk(s, OLD), put_old, (OLD,)),
    "commit upon a bad one": Story(lambda s: sunk(s, OLD), old_bad, (OLD,), bad=True),
    "renew": Story(lambda s: s.renew(OLD.key.hash, OLD.key.layout), put_old, (OLD,)),
    "renew from garbage": Story(
        lambda s: s.renew(OLD.key.hash, OLD.key.layout), old_in_garbage, (OLD,)
    ),
    "restore": Story(lambda s: s.restore(OLD.key.hash), old_in_garbage, (OLD,)),
    "discard": Story(lambda s: discard(s, OLD), put_old, (OLD,)),
}


class Stories(TestCase):
    """How a story begins, and how its end is looked at."""

    pack_limit = 0

    def begun(self, story: Story) -> tuple[SimulatedDisk, ShardNode]:
        """A disk and a running node on which all of `prepare` was acknowledged."""
        disk = SimulatedDisk(lambda: NOW)
        disk.make("/data")
        node = node_on(disk, pack_limit=self.pack_limit)
        done(node.start())
        done(story.prepare(node.store))
        return disk, node

    def assertHeld(self, store: ShardStore, one: Sample, *, surely: bool) -> None:
        """The shard is whole, if need be from garbage; or else there is none."""

        async def look() -> None:
            found = await store.find(one.key.hash)
            if surely and found.state == "none":
                found = await store.restore(one.key.hash)
            if found.state == "none":
                self.assertFalse(surely, "an acknowledged shard is gone")
                return
            self.assertEqual([facts.key for facts in found.shards], [one.key])
            read = await blocks(store, one.key)
            self.assertEqual(read, [bytes(frame.block) for frame in one.frames])

        done(look())

    def assertSound(self, disk: SimulatedDisk, story: Story, *, surely: bool) -> None:
        """A node starts on what is left, has what it must and takes new shards."""
        node = node_on(disk, seed=7, pack_limit=self.pack_limit)
        done(node.start())
        self.assertEqual(node.state, "up")
        self.assertEqual(node.store.strange, 0)
        self.assertEqual(disk.names(f"{ROOT}/temp"), [])
        for one in story.old:
            self.assertHeld(node.store, one, surely=True)
        for one in story.new:
            self.assertHeld(node.store, one, surely=surely)
            done(sunk(node.store, one))
            self.assertHeld(node.store, one, surely=True)
        self.assertEqual(node.store.rotten, 0)

    def after(self, disk: SimulatedDisk, seed: int) -> list[SimulatedDisk]:
        """The disk after a power cut, in each way names and bytes may be lost."""
        return [
            disk.after_power_cut(Random(f"{seed} {again}"), entries, data)
            for entries in get_args(Entries)
            for data in get_args(Data)
            for again in range(2 if entries == "mixed" else 1)
        ]


class Crashes(Stories, SynchronousTestCase):
    """Every operation of every story is the last one once."""

    def cut_everywhere(self, story: Story, where: str) -> int:
        """How many operations the story has, each of which was the last one once."""
        number = 0
        while True:
            disk, node = self.begun(story)
            setattr(disk, where, len(disk.operations) + number)
            result = outcome(story.act(node.store))
            if not isinstance(result, Failure):
                self.assertFalse(disk.dark)
                for left in self.after(disk, number):
                    self.assertSound(left, story, surely=True)
                return number
            result.trap(PowerCut)
            for left in self.after(disk, number):
                self.assertSound(left, story, surely=False)
            number += 1

    def test_power_cut_before(self) -> None:
        """The power goes before any operation: no acknowledged shard is lost."""
        for name, story in STORIES.items():
            self.assertGreater(self.cut_everywhere(story, "cut_before"), 5, name)

    def test_power_cut_after(self) -> None:
        """The power goes after any operation: no acknowledged shard is lost."""
        for name, story in STORIES.items():
            self.assertGreater(self.cut_everywhere(story, "cut_after"), 5, name)

    def test_power_cut_past_the_page_cache(self) -> None:
        """Nor is one lost whose pages went to the disk at once."""
        self.patch(growing, "DIRECT_FROM", 1)
        for name in ("commit", "commit again", "commit upon a bad one"):
            for where in ("cut_before", "cut_after"):
                self.cut_everywhere(STORIES[name], where)
        disk, node = self.begun(STORIES["commit"])
        done(sunk(node.store, NEW))
        self.assertIn("direct", [each.name for each in disk.operations])

    def test_power_cut_of_gathered_frames(self) -> None:
        """Nor one whose frames were gathered."""
        self.patch(growing, "DIRECT_FROM", 1)
        self.patch(gathering, "GATHERED", 400 << 10)
        for where in ("cut_before", "cut_after"):
            self.cut_everywhere(STORIES["commit"], where)
        disk, node = self.begun(STORIES["commit"])
        before = len(disk.operations)
        done(sunk(node.store, NEW))
        writes = [each for each in disk.operations[before:] if each.name == "pwrite"]
        self.assertEqual(
            len(writes), 3, "two frames, one frame, what is left of a page"
        )

    def test_without_syncs(self) -> None:
        """With relaxed durability a power cut does lose shards: the test can tell."""
        disk = SimulatedDisk(lambda: NOW)
        disk.make("/data")
        node = node_on(disk, durable=False)
        done(node.start())
        done(sunk(node.store, NEW))
        left = node_on(disk.after_power_cut(Random(0)), seed=7)
        done(left.start())
        self.assertHeld(node.store, NEW, surely=True)
        self.assertRaises(
            self.failureException, self.assertHeld, left.store, NEW, surely=True
        )

    def test_power_cut_in_a_start(self) -> None:
        """The power goes anywhere in a first or second start: the next one succeeds."""
        for before in (0, 1):
            number, operations = 0, 1
            while number < operations:
                disk = SimulatedDisk(lambda: NOW)
                disk.make("/data")
                known = ""
                for _ in range(before):
                    node = node_on(disk)
                    done(node.start())
                    known = node.node_id
                    done(node.stop())
                begun = len(disk.operations)
                counted = disk.copy()
                done(node_on(counted).start())
                operations = [
                    (each.name, each.path) for each in counted.operations
                ].index(("scan", f"{ROOT}/objects"))
                disk.cut_before = begun + number
                outcome(node_on(disk).start())
                self.assertTrue(disk.dark)
                for left in self.after(disk, number):
                    node = node_on(left, seed=7)
                    done(node.start())
                    self.assertIn(known, node.node_id)
                    self.assertGreaterEqual(node.boot.counter, before + 1)
                number += 1
            self.assertGreater(number, 5)

    def test_power_cut_on_a_full_disk(self) -> None:
        """So it does when the disk is full; no start that came up is forgotten."""

        def opened(disk: SimulatedDisk) -> Root:
            root = Root(ROOT, disk, Random(len(disk.operations)).randbytes)
            root.open()
            return root

        def adopted(disk: SimulatedDisk, number: int) -> int:
            """The power goes in the operation of that number behind a start."""
            root = opened(disk)
            disk.cut_before = len(disk.operations) + number
            with contextlib.suppress(PowerCut):
                root.adopt("c1", 1)
            return root.boot.counter

        number, dark = 0, True
        while dark:
            disk = SimulatedDisk(lambda: NOW)
            disk.make("/data")
            first = opened(disk)
            first.close()
            disk.capacity -= disk.space("/").free
            disk.cut_before = len(disk.operations) + number
            with contextlib.suppress(PowerCut):
                opened(disk)
            dark = disk.dark
            for left in self.after(disk, number):
                for cut in range(12):
                    again = left.copy()
                    counter = adopted(again, cut)
                    self.assertGreaterEqual(counter, 2)
                    last = opened(again.after_power_cut(Random(cut), "mixed", "torn"))
                    self.assertGreater(last.boot.counter, counter)
                    self.assertEqual(last.identity.node, first.identity.node)
            number += 1
        self.assertGreater(number, 10)

    def test_renewed_age_is_durable(self) -> None:
        """A renewal that was acknowledged survives the power cut behind it."""
        disk, node = self.begun(STORIES["renew"])
        done(STORIES["renew"].act(node.store))
        left = node_on(disk.after_power_cut(Random(0)), seed=7)
        done(left.start())

        async def look() -> None:
            (facts,) = (await left.store.find(OLD.key.hash)).shards
            self.assertEqual(facts.age, 0)

        done(look())


class Faults(Stories, SynchronousTestCase):
    """Every operation of every story fails once, and the process goes on."""

    def fail_everywhere(self, story: Story, number: int, error: type[Exception]) -> int:
        """How many operations the story has, each of which failed once."""
        at, failures = 0, 0
        while True:
            disk, node = self.begun(story)
            disk.fault = failing(len(disk.operations) + at, number)
            begun = len(disk.operations)
            result = outcome(story.act(node.store))
            if len(disk.operations) - begun <= at:
                return failures
            if isinstance(result, Failure):
                self.assertIsInstance(
                    result.value, error, str(disk.operations[begun + at])
                )
                failures += 1
            if disk.operations[begun + at].name != "remove":
                self.assertEqual(disk.names(f"{ROOT}/temp"), [])
            for one in story.old:
                self.assertHeld(node.store, one, surely=not story.bad)
            for one in story.new:
                self.assertHeld(node.store, one, surely=False)
                done(sunk(node.store, one, "c" * 32))
                self.assertHeld(node.store, one, surely=True)
            for left in (disk.copy(), disk.after_power_cut(Random(at))):
                self.assertSound(left, story, surely=True)
            at += 1

    def test_input_output_error(self) -> None:
        """EIO anywhere is NodeUnreachable, and leaves nothing half done."""
        for name, story in STORIES.items():
            failures = self.fail_everywhere(story, errno.EIO, NodeUnreachable)
            self.assertGreater(failures, 4, name)

    def test_no_space_anywhere(self) -> None:
        """ENOSPC anywhere is NodeFull, and leaves nothing half done."""
        for name in ("commit", "put_small"):
            failures = self.fail_everywhere(STORIES[name], errno.ENOSPC, NodeFull)
            self.assertGreater(failures, 4, name)

    def test_disk_fills_up(self) -> None:
        """A disk too small for a shard refuses it and keeps no bytes of it."""
        for name in ("commit", "put_small"):
            story = STORIES[name]
            disk, node = self.begun(story)
            for room in (0, 5, 30, 100):
                before = disk.space("/")
                disk.capacity = before.total - before.free + room
                result = outcome(story.act(node.store))
                assert isinstance(result, Failure)
                self.assertIsInstance(result.value, NodeFull)
                self.assertEqual(disk.names(f"{ROOT}/temp"), [])
                self.assertEqual(disk.space("/").free, room)


def failing(number: int, error: int) -> Fault:
    """A fault at one operation."""
    return lambda operation: error if operation.number == number else None
