"""The same of shards in segments: acknowledged ones survive whatever the disk does."""

from __future__ import annotations

import errno
from random import Random

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.store import ShardStore
from ostore.model.errors import NodeFull, NodeUnreachable
from tests.backends.test_shards_crash import (
    ROOT,
    Stories,
    Story,
    discard,
    done,
    failing,
    node_on,
    nothing,
    outcome,
    sunk,
)
from tests.contracts.shards import Sample, put_small, sample
from tests.support.disk import PowerCut, SimulatedDisk

OLD = sample(1, 5000)
OTHER = sample(4, 900)
NEW = sample(2, 3000)


async def put_old(store: ShardStore) -> None:
    """Two shards stand, in two batches."""
    await put_small(store, OLD, age=9000)
    await put_small(store, OTHER)


async def old_in_garbage(store: ShardStore) -> None:
    """One of them lies in garbage."""
    await put_old(store)
    await discard(store, OLD)


async def old_bad(store: ShardStore) -> None:
    """One of them is known to be rotten."""
    await put_old(store)
    await store.mark_bad(OLD.key)


async def old_is_a_file(store: ShardStore) -> None:
    """One of them is a file, of a time when nothing was packed."""
    await sunk(store, OLD)
    await put_small(store, OTHER)


async def old_is_a_bad_file(store: ShardStore) -> None:
    """A rotten one."""
    await old_is_a_file(store)
    await store.mark_bad(OLD.key)


async def begin_anew(store: ShardStore) -> None:
    """The newest segment is another one: the first was full."""
    store._log._writer.close()


async def new_segment(store: ShardStore) -> None:
    """A record that begins a segment."""
    await begin_anew(store)
    await put_small(store, NEW)


async def erase(store: ShardStore, one: Sample) -> None:
    """Remove from garbage for good."""
    await store.erase(one.key, 0)


BOTH = (OLD, OTHER)
STORIES = {
    "put": Story(lambda s: put_small(s, NEW), put_old, BOTH, (NEW,)),
    "first put": Story(lambda s: put_small(s, NEW), nothing, (), (NEW,)),
    "put into a new segment": Story(new_segment, put_old, BOTH, (NEW,)),
    "put again": Story(lambda s: put_small(s, OLD), put_old, BOTH),
    "put upon a bad one": Story(lambda s: put_small(s, OLD), old_bad, BOTH, bad=True),
    "put upon a file": Story(lambda s: put_small(s, OLD), old_is_a_file, BOTH),
    "put upon a bad file": Story(
        lambda s: put_small(s, OLD), old_is_a_bad_file, BOTH, bad=True
    ),
    "commit upon a packed one": Story(lambda s: sunk(s, OLD), put_old, BOTH),
    "commit upon a bad packed one": Story(
        lambda s: sunk(s, OLD), old_bad, BOTH, bad=True
    ),
    "renew": Story(lambda s: s.renew(OLD.key.hash, OLD.key.layout), put_old, BOTH),
    "renew from garbage": Story(
        lambda s: s.renew(OLD.key.hash, OLD.key.layout), old_in_garbage, BOTH
    ),
    "restore": Story(lambda s: s.restore(OLD.key.hash), old_in_garbage, BOTH),
    "discard": Story(lambda s: discard(s, OLD), put_old, BOTH),
    "erase": Story(lambda s: erase(s, OLD), old_in_garbage, (OTHER,)),
    "stop": Story(lambda s: s.stop(), put_old, BOTH),
}


class Packed(Stories):
    """Small contents lie in segments."""

    pack_limit = 1 << 20

    def after(self, disk: SimulatedDisk, seed: int) -> list[SimulatedDisk]:
        """The disk after a power cut, in some of the ways that things may be lost."""
        return [
            disk.after_power_cut(Random(seed), "lost"),
            disk.after_power_cut(Random(seed), "kept", "torn"),
            disk.after_power_cut(Random(seed), "mixed", "torn"),
        ]


class PowerCuts(Packed, SynchronousTestCase):
    """Every operation of every story is the last one once."""

    def cut_everywhere(self, story: Story, where: str) -> int:
        """How many operations the story has, each of which was the last one once."""
        number = 0
        while True:
            disk, node = self.begun(story)
            last = len(disk.operations) + number
            setattr(disk, where, last)
            result = outcome(story.act(node.store))
            if not isinstance(result, Failure):
                self.assertFalse(disk.dark)
                for left in self.after(disk, number):
                    self.assertSound(left, story, surely=True)
                if len(disk.operations) <= last:
                    return number
                number += 1
                continue
            result.trap(PowerCut)
            for left in self.after(disk, number):
                self.assertSound(left, story, surely=False)
            number += 1

    def test_before(self) -> None:
        """The power goes before any operation: no acknowledged shard is lost."""
        for name, story in STORIES.items():
            self.assertGreater(self.cut_everywhere(story, "cut_before"), 2, name)

    def test_after(self) -> None:
        """The power goes after any operation: no acknowledged shard is lost."""
        for name, story in STORIES.items():
            self.assertGreater(self.cut_everywhere(story, "cut_after"), 2, name)

    def test_in_a_start(self) -> None:
        """The power goes anywhere in the start behind a crash: the next one succeeds."""
        story = STORIES["put into a new segment"]
        number, dark = 0, True
        while dark:
            disk, node = self.begun(story)
            disk.cut_before = len(disk.operations) + 8
            outcome(story.act(node.store))
            for left in self.after(disk, 3):
                left.cut_before = number
                outcome(node_on(left, seed=5, pack_limit=self.pack_limit).start())
                dark = left.dark
                for again in self.after(left, number):
                    self.assertSound(again, story, surely=False)
            number += 1
        self.flushLoggedErrors(PowerCut)
        self.assertGreater(number, 20)


class Faults(Packed, SynchronousTestCase):
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
            what = str(disk.operations[begun + at])
            if isinstance(result, Failure):
                self.assertIsInstance(result.value, error, what)
                failures += 1
            if disk.operations[begun + at].name != "remove":
                self.assertEqual(disk.names(f"{ROOT}/temp"), [])
            for one in story.old:
                self.assertHeld(node.store, one, surely=not story.bad)
            for one in story.new:
                self.assertHeld(node.store, one, surely=False)
                done(put_small(node.store, one))
                self.assertHeld(node.store, one, surely=True)
            for left in (disk.copy(), disk.after_power_cut(Random(at))):
                self.assertSound(left, story, surely=True)
            at += 1

    def test_input_output_error(self) -> None:
        """EIO anywhere is NodeUnreachable, and leaves nothing half done."""
        for name, story in STORIES.items():
            if name != "stop":
                failures = self.fail_everywhere(story, errno.EIO, NodeUnreachable)
                self.assertGreater(failures, 3, name)

    def test_no_space_anywhere(self) -> None:
        """ENOSPC anywhere is NodeFull, and leaves nothing half done."""
        for name in ("put", "first put", "put into a new segment"):
            failures = self.fail_everywhere(STORIES[name], errno.ENOSPC, NodeFull)
            self.assertGreater(failures, 2, name)

    def test_failed_sync_ends_a_segment(self) -> None:
        """What could not be synced once is never written to again."""
        disk, node = self.begun(STORIES["put"])
        (first,) = disk.names(f"{ROOT}/segments")
        disk.fault = lambda operation: (
            errno.EIO if operation.name == "fdatasync" else None
        )
        result = outcome(put_small(node.store, NEW))
        assert isinstance(result, Failure)
        disk.fault = None
        before = disk.content(f"{ROOT}/segments/{first}")
        done(put_small(node.store, NEW))
        self.assertEqual(disk.content(f"{ROOT}/segments/{first}"), before)
        self.assertEqual(len(disk.names(f"{ROOT}/segments")), 2)
        self.assertHeld(node.store, NEW, surely=True)
        self.assertEqual(disk.open_files().count(f"{ROOT}/segments/{first}"), 0)

    def test_removed_under_the_writer(self) -> None:
        """A segment that was removed fails the write; a new one takes the next try."""
        disk, node = self.begun(STORIES["put"])
        disk.delete(f"{ROOT}/segments")
        result = outcome(put_small(node.store, NEW))
        assert isinstance(result, Failure)
        self.assertIsInstance(result.value, NodeUnreachable)
        done(put_small(node.store, NEW))
        self.assertHeld(node.store, NEW, surely=True)
        self.assertHeld(node.store, OLD, surely=False)
        self.assertEqual((node.store.lost, node.shard_count), (1, 2))
        self.assertHeld(node_again(disk.copy()).store, NEW, surely=True)

    def test_disk_fills_up(self) -> None:
        """A disk without room refuses; with some again it goes on."""
        disk, node = self.begun(STORIES["put"])
        before = disk.space("/")
        disk.capacity = before.total - before.free
        large = sample(8, 300_000)
        result = outcome(put_small(node.store, large))
        assert isinstance(result, Failure)
        self.assertIsInstance(result.value, NodeFull)
        disk.capacity = before.total
        done(put_small(node.store, large))
        for one in (OLD, OTHER, large):
            self.assertHeld(node.store, one, surely=True)


def node_again(disk: SimulatedDisk) -> ShardNode:
    """The node of the next start."""
    node = node_on(disk, seed=9, pack_limit=1 << 20)
    done(node.start())
    return node
