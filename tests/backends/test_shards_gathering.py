"""Frames that are written together."""

from __future__ import annotations

import errno
from random import Random

from ostore.backends.shards import gathering
from ostore.backends.shards.disk import DIRECT_FROM
from ostore.backends.shards.incoming import Incoming
from ostore.backends.shards.node import ShardNode
from ostore.model.errors import NodeUnreachable, ShardRefused
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.backends.test_shards_crash import NOW, ROOT
from tests.backends.test_shards_scan import Base
from tests.contracts.shards import blocks, sample

LENGTH = 256 << 10
EARLY = DIRECT_FROM // LENGTH


class Gathers(Base):
    """A sink of a shard of 19 blocks."""

    def setUp(self) -> None:
        """A node, and a sink that has taken what is written at once."""
        super().setUp()
        self.wall = NOW
        self.one = sample(7, 19 << 20)
        self.held = self.node()
        self.workers.finish()
        self.sink = self.begun("e" * 32)
        self.shelf = self.sink._shelf

    def begun(self, upload: str) -> Incoming:
        """A sink behind its first frames, nothing under way."""
        sink: Incoming = self.result(self.held.store.create(upload))
        for frame in self.one.frames[:EARLY]:
            self.result(sink.write(frame))
        return sink

    def node(self) -> ShardNode:
        """One whose calendar is the test's."""
        clock = Clock(self.time, self.time.seconds, lambda: self.wall)
        node = ShardNode(ROOT, self.disk, self.workers, clock, Random(1).randbytes)
        started = start(node.start())
        self.workers.finish()
        self.successResultOf(started)
        return node

    def writes(self) -> int:
        """How many writes there were."""
        return sum(each.name == "pwrite" for each in self.disk.operations)

    def take(self, first: int, stop: int) -> None:
        """Have the sink take frames at once, without a worker."""
        for frame in self.one.frames[first:stop]:
            self.successResultOf(start(self.sink.write(frame)))

    @property
    def counted(self) -> int:
        """Memories that the root has lent."""
        return self.shelf.rooms.lent

    def test_one_write(self) -> None:
        """Four blocks go to the disk in one write; the next four wait for it."""
        before = self.writes()
        self.take(EARLY, EARLY + 3)
        self.assertEqual(self.workers.queue, [])
        self.take(EARLY + 3, EARLY + 7)
        self.assertEqual(len(self.workers.queue), 1)
        self.assertEqual(self.counted, 2)
        eighth = start(self.sink.write(self.one.frames[EARLY + 7]))
        self.assertNoResult(eighth)
        self.workers.step()
        self.successResultOf(eighth)
        self.workers.step()
        self.assertEqual(self.writes() - before, 2)
        self.assertEqual(self.counted, 0)
        self.result(self.sink.abort())

    def test_whole(self) -> None:
        """What was gathered last is written by the commit, and all is read back."""
        for frame in self.one.frames[EARLY:]:
            self.result(self.sink.write(frame))
        self.assertNotEqual(self.counted, 0)
        self.result(self.sink.commit(self.one.key, self.one.layout, None, 0))
        self.assertEqual(self.counted, 0)
        found = self.result(blocks(self.held.store, self.one.key))
        self.assertEqual(found, [bytes(f.block) for f in self.one.frames])

    def test_wrong_commit(self) -> None:
        """A commit that is refused loses nothing of it."""
        self.take(EARLY, EARLY + 1)
        committing = start(self.sink.commit(self.one.key, self.one.layout, None, 0))
        self.workers.finish()
        self.failureResultOf(committing, ShardRefused)
        for frame in self.one.frames[EARLY + 1 :]:
            self.result(self.sink.write(frame))
        self.result(self.sink.commit(self.one.key, self.one.layout, None, 0))
        found = self.result(blocks(self.held.store, self.one.key))
        self.assertEqual(found, [bytes(f.block) for f in self.one.frames])

    def test_slow(self) -> None:
        """A frame that comes late is written at once: slow clients hold nothing."""
        for number in range(EARLY, EARLY + 3):
            self.wall += 1.0
            self.take(number, number + 1)
            self.assertEqual(len(self.workers.queue), 1)
            self.workers.finish()
            self.assertEqual(self.counted, 0)
        self.result(self.sink.abort())

    def test_allowance(self) -> None:
        """Beyond the root's allowance frames are written at once."""
        self.patch(gathering, "ALLOWED", 1)
        other, self.sink = self.sink, self.begun("f" * 32)
        self.take(EARLY, EARLY + 2)
        self.successResultOf(start(other.write(self.one.frames[EARLY])))
        self.assertEqual(len(self.workers.queue), 1)
        self.result(other.abort())
        self.result(self.sink.abort())

    def test_ends(self) -> None:
        """An abort drops what was gathered; sync and release write it."""
        for end, written in (("abort", 0), ("sync", 2), ("release", 2)):
            self.take(EARLY, EARLY + 1)
            before = self.writes()
            self.result(getattr(self.sink, end)())
            self.assertEqual(self.writes() - before, written, end)
            self.assertEqual(self.counted, 0, end)
            if end == "sync":
                self.result(self.sink.abort())
            self.shelf.drop("e" * 32)
            self.sink = self.begun("e" * 32)
        self.result(self.sink.abort())

    def test_failed(self) -> None:
        """A write that fails is told by the next step."""
        self.take(EARLY, EARLY + 4)
        self.disk.fault = lambda o: errno.EIO if o.name == "pwrite" else None
        self.workers.finish()
        failing = start(self.sink.write(self.one.frames[EARLY + 4]))
        self.failureResultOf(failing, NodeUnreachable)
        self.disk.fault = None
        self.result(self.sink.abort())
        self.assertEqual(self.disk.names(f"{ROOT}/temp"), [])
