"""Counting the shards at a start, and work that waits for worker threads."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, ParamSpec, TypeVar

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.scan import AGAIN, SLICE
from ostore.backends.shards.serial import Serial
from ostore.model.errors import NodeUnreachable, Refused
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.backends.test_shards_crash import NOW, OLD, ROOT, discard, done, node_on
from tests.contracts.shards import put, put_small, sample
from tests.support.disk import SimulatedDisk

P = ParamSpec("P")
T = TypeVar("T")


class QueuedWorkers:
    """Threads that work when the test says so."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []

    def start(self) -> None:
        """Nothing to make ready."""

    def stop(self) -> None:
        """Nothing to end."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` gives when its turn has come."""
        result: Deferred[T] = Deferred()

        def run() -> None:
            try:
                value = work(*args, **kwargs)
            except Exception:  # noqa: BLE001 - handed to who waits
                result.errback(Failure())
            else:
                result.callback(value)

        self.queue.append(run)
        return await result

    def step(self, which: int = 0) -> None:
        """Do one piece of work."""
        self.queue.pop(which)()

    def finish(self) -> None:
        """Do all there is, and what comes of it."""
        while self.queue:
            self.step()


class Base(SynchronousTestCase):
    """A disk, and a node whose threads are the test's."""

    def setUp(self) -> None:
        """An empty disk."""
        self.disk = SimulatedDisk(lambda: NOW)
        self.disk.make("/data")
        self.workers = QueuedWorkers()
        self.time = task.Clock()

    def node(self) -> ShardNode:
        """A node that has its root and has not begun to count."""
        clock = Clock(self.time, self.time.seconds, lambda: NOW)
        entropy = Random(len(self.disk.operations)).randbytes
        node = ShardNode(ROOT, self.disk, self.workers, clock, entropy)
        started = start(node.start())
        for _ in range(4):
            self.workers.step()
        self.successResultOf(started)
        return node

    def begin(self, work: Any) -> Deferred[Any]:
        """Set the work going, without a worker doing anything."""
        return start(work)

    def result(self, work: Any) -> Any:
        """What it gives when the workers do all there is."""
        running = start(work)
        self.workers.finish()
        return self.successResultOf(running)


class Scans(Base):
    """The count goes on while the node serves."""

    def filled(self, count: int) -> list[Any]:
        """Shards of a node that was stopped."""
        held = [sample(seed, 50) for seed in range(count)]
        node = node_on(self.disk)
        done(node.start())
        for one in held:
            done(put_small(node.store, one))
        done(node.stop())
        return held

    def test_serves_while_counting(self) -> None:
        """Before anything was counted, find looks at the disk and is right."""
        held = self.filled(3)
        node = self.node()
        self.assertEqual((node.state, node.shard_count), ("scanning", 0))
        scan = self.workers.queue.pop()
        for one in held:
            found = self.result(node.store.find(one.key.hash))
            self.assertEqual([facts.key for facts in found.shards], [one.key])
        missing = sample(99)
        self.assertEqual(self.result(node.store.find(missing.key.hash)).state, "none")
        reader = self.result(node.store.open(held[0].key))
        self.result(reader.close())
        renewed = self.result(node.store.renew(held[1].key.hash, held[1].key.layout))
        self.assertEqual(renewed.state, "have")
        self.result(discard(node.store, held[2]))
        found = self.result(node.store.restore(held[2].key.hash))
        self.assertEqual(found.state, "have")
        self.result(put(node.store, missing))
        listing = start(node.store.list("", 10))
        self.failureResultOf(listing, NodeUnreachable)
        self.workers.queue.append(scan)
        self.workers.finish()
        self.assertEqual((node.state, node.shard_count), ("up", 4))
        self.assertEqual(len(self.result(node.store.list("", 10))), 4)

    def test_adopt_while_counting(self) -> None:
        """Shards that were not counted yet forbid a cluster id as well."""
        self.filled(1)
        node = self.node()
        scan = self.workers.queue.pop()
        adopting = start(node.adopt("c1", 1))
        self.workers.finish()
        self.failureResultOf(adopting, Refused)
        (path,) = self.disk.tree(f"{ROOT}/objects")
        self.disk.delete(path)
        self.result(node.adopt("c1", 1))
        self.assertEqual(node.cluster, "c1")
        self.workers.queue.append(scan)
        self.workers.finish()

    def test_listing_of_vanished_files(self) -> None:
        """A listing leaves out what is gone, and is silent about nothing else."""
        held = self.filled(3)
        node = self.node()
        self.workers.finish()
        (path,) = (p for p in self.disk.tree(ROOT) if held[0].key.hash in p)
        self.disk.delete(path)
        self.result(node.store.mark_bad(held[1].key))
        states = {f.key: f.state for f in self.result(node.store.list("", 10))}
        self.assertEqual(states, {held[1].key: "bad", held[2].key: "whole"})

    def test_no_disk_for_unknown_content(self) -> None:
        """After the count, an unknown content touches no disk."""
        self.filled(1)
        node = self.node()
        self.workers.finish()
        before = len(self.disk.operations)
        found = self.successResultOf(start(node.store.find("0" * 64)))
        self.assertEqual(found.state, "none")
        self.assertEqual(len(self.disk.operations), before)

    def test_slices(self) -> None:
        """A large folder is taken in slice by slice, with room between for others."""
        folder = f"{ROOT}/objects/00"
        node = self.node()
        self.workers.finish()
        self.result(node.stop())
        self.disk.make(folder)
        for number in range(2 * SLICE + 5):
            self.disk.put(f"{folder}/00{number:062x}.0.{number:032x}", b"")
        node = self.node()
        counts = set()
        while node.state == "scanning":
            self.workers.step()
            counts.add(node.shard_count)
        self.assertEqual(counts, {0, SLICE, 2 * SLICE, 2 * SLICE + 5})

    def test_strange_files(self) -> None:
        """Whatever lies in the folders is counted, left alone, and never in the way."""
        (one,) = self.filled(1)
        key = one.key
        fan, name = key.hash[:2], f"{key.hash}.{key.index}.{key.layout}"
        strange = [
            "objects/readme",
            "objects/zz/x",
            f"objects/{fan}/.hidden",
            f"objects/{fan}/{name}.1",
            f"objects/{fan}/{name.upper()}",
            f"objects/{fan}/{key.hash}.32.{key.layout}",
            f"objects/{fan}/{key.hash}.00.{key.layout}",
            f"objects/{fan}/{'0' * 64}.0.{'0' * 32}" if fan != "00" else "objects/x",
            f"objects/{fan}/folder/x",
            "garbage/x",
            f"garbage/{name}.999",
            "temp/folder/x",
            "temp/left-over",
        ]
        for path in strange:
            self.disk.make(f"{ROOT}/{path}".rsplit("/", 1)[0])
            self.disk.put(f"{ROOT}/{path}", b"strange")
        self.disk.put(f"{ROOT}/objects/{fan}/{key.hash}.3.{'0' * 32}", b"")
        node = self.node()
        self.workers.finish()
        self.assertEqual(node.state, "up")
        self.assertEqual(node.store.strange, 11)
        found = self.result(node.store.find(key.hash))
        self.assertEqual([facts.key for facts in found.shards], [key])
        states = [facts.state for facts in self.result(node.store.list("", 10))]
        self.assertEqual(states, ["whole", "bad"])
        kept = {f"{ROOT}/{path}" for path in strange} - {f"{ROOT}/temp/left-over"}
        self.assertLessEqual(kept, set(self.disk.tree(ROOT)))
        self.assertEqual(self.disk.names(f"{ROOT}/temp"), ["folder"])

    def test_unreadable_folder(self) -> None:
        """A folder that cannot be read is tried again; the node scans until then."""
        (one,) = self.filled(1)
        node = self.node()
        folder = f"{ROOT}/objects/{one.key.hash[:2]}"
        self.disk.fault = lambda o: 5 if (o.name, o.path) == ("scan", folder) else None
        self.workers.finish()
        self.assertEqual((node.state, node.shard_count), ("scanning", 0))
        finding = start(node.store.find(one.key.hash))
        self.workers.finish()
        self.failureResultOf(finding, NodeUnreachable)
        self.disk.fault = None
        self.time.advance(AGAIN)
        self.workers.finish()
        self.assertEqual((node.state, node.shard_count), ("up", 1))
        self.assertEqual(self.time.getDelayedCalls(), [])

    def test_stop_while_counting(self) -> None:
        """A node stops in the middle of its count and leaves no timer."""
        self.filled(2)
        node = self.node()
        self.workers.step()
        self.result(node.stop())
        self.assertEqual(self.time.getDelayedCalls(), [])


class Waiting(Base):
    """Cancelled callers, closed readers, and work on one content at once."""

    def held(self) -> ShardNode:
        """A node that holds one large shard, none of it cached."""
        self.disk.cached = False
        node = self.node()
        self.workers.finish()
        self.result(put(node.store, self.large))
        return node

    def setUp(self) -> None:
        """An empty disk, and what will lie upon it."""
        super().setUp()
        self.large = sample(5, 6 << 20)

    def test_cancelled_commit_goes_on(self) -> None:
        """A commit whose caller left is finished; the abort behind it waits for it."""
        node = self.node()
        self.workers.finish()
        sink = self.result(node.store.create("e" * 32))
        writing = start(sink.write(OLD.frames[0]))
        self.successResultOf(writing)
        self.workers.finish()
        committing = start(sink.commit(OLD.key, OLD.layout, None, 0))
        committing.cancel()
        self.failureResultOf(committing, CancelledError)
        aborting = start(sink.abort())
        self.assertNoResult(aborting)
        self.workers.finish()
        self.successResultOf(aborting)
        found = self.result(node.store.find(OLD.key.hash))
        self.assertEqual(found.state, "have")
        self.assertEqual(self.disk.names(f"{ROOT}/temp"), [])

    def test_given_up_commit_does_not_name(self) -> None:
        """A commit that still waits for its turn when it is aborted names nothing."""
        node = self.node()
        self.workers.finish()
        sink = self.result(node.store.create("e" * 32))
        self.result(sink.write(OLD.frames[0]))
        before = start(node.store.renew(OLD.key.hash, OLD.key.layout))
        self.successResultOf(before)
        first = start(node.store.put_small(OLD.key, OLD.layout, [], None, 0))
        self.failureResultOf(first)
        other = sample(1, 5000, 3)
        blocking = start(put_small(node.store, other))
        committing = start(sink.commit(OLD.key, OLD.layout, None, 0))
        aborting = start(sink.abort())
        self.workers.finish()
        self.successResultOf(blocking)
        self.failureResultOf(committing, NodeUnreachable)
        self.successResultOf(aborting)
        found = self.result(node.store.find(OLD.key.hash))
        self.assertEqual([facts.key for facts in found.shards], [other.key])

    def test_one_write_behind(self) -> None:
        """A sink takes one frame ahead of the disk and no more."""
        node = self.node()
        self.workers.finish()
        sink = self.result(node.store.create("e" * 32))
        self.successResultOf(start(sink.write(self.large.frames[0])))
        second = start(sink.write(self.large.frames[1]))
        self.assertNoResult(second)
        self.assertEqual(len(self.workers.queue), 1)
        self.workers.step()
        self.successResultOf(second)
        self.assertEqual(len(self.workers.queue), 1)
        self.result(sink.abort())

    def test_abort_waits_for_the_write(self) -> None:
        """The descriptor of an aborted sink is closed behind its last write."""
        node = self.node()
        self.workers.finish()
        sink = self.result(node.store.create("e" * 32))
        self.successResultOf(start(sink.write(self.large.frames[0])))
        aborting = start(sink.abort())
        self.assertEqual(len(self.workers.queue), 1)
        self.workers.finish()
        self.successResultOf(aborting)
        self.assertEqual(self.disk.operations[-1].name, "remove")
        self.assertEqual(self.disk.open_files(), [f"{ROOT}/lock"])

    def test_close_waits_for_the_read(self) -> None:
        """A reader closed under a reading worker gives up its descriptor afterwards."""
        node = self.held()
        reader = self.result(node.store.open(self.large.key))
        stream = reader.frames(0, 6)
        reading = start(stream.read())
        self.successResultOf(start(stream.close()))
        self.successResultOf(start(reader.close()))
        self.assertEqual(len(self.disk.open_files()), 2)
        self.workers.finish()
        frame = self.successResultOf(reading)
        assert frame is not None
        self.assertEqual(bytes(frame.block), bytes(self.large.frames[0].block))
        self.assertEqual(self.disk.open_files(), [f"{ROOT}/lock"])
        late = start(reader.frames(0, 1).read())
        self.failureResultOf(late, NodeUnreachable)

    def test_one_frame_ahead(self) -> None:
        """While workers have to read, they are one frame ahead, and only one."""
        node = self.held()
        reader = self.result(node.store.open(self.large.key))
        stream = reader.frames(0, 3)
        reading = start(stream.read())
        self.assertEqual(len(self.workers.queue), 1)
        self.workers.step()
        self.successResultOf(reading)
        self.assertEqual(len(self.workers.queue), 1)
        self.workers.step()
        self.assertEqual(self.workers.queue, [])
        self.assertEqual(self.result(stream.read()).number, 1)
        self.assertEqual(self.result(stream.read()).number, 2)
        self.assertIsNone(self.result(stream.read()))
        self.result(reader.close())

    def test_cancelled_read(self) -> None:
        """A read whose caller left harms nobody; the next one gives the same frame."""
        node = self.held()
        reader = self.result(node.store.open(self.large.key))
        stream = reader.frames(2, 4)
        reading = start(stream.read())
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.workers.finish()
        self.assertEqual(self.result(stream.read()).number, 2)
        self.result(reader.close())

    def test_in_turn(self) -> None:
        """Work on one content waits for the work before it, other work does not."""
        serial, log = Serial(), list[str]()
        gates: dict[str, Deferred[None]] = {name: Deferred() for name in "abc"}

        async def work(name: str) -> str:
            log.append(f"{name} begins")
            await gates[name]
            log.append(f"{name} ends")
            return name

        first = start(serial.run("x", lambda: work("a")))
        second = start(serial.run("x", lambda: work("b")))
        third = start(serial.run("y", lambda: work("c")))
        idle = start(serial.idle())
        first.cancel()
        self.failureResultOf(first, CancelledError)
        gates["c"].callback(None)
        self.assertEqual(self.successResultOf(third), "c")
        self.assertEqual(log, ["a begins", "c begins", "c ends"])
        gates["a"].errback(ValueError("a"))
        self.assertNoResult(idle)
        gates["b"].callback(None)
        self.assertEqual(self.successResultOf(second), "b")
        self.successResultOf(idle)
        self.assertEqual(log[3:], ["b begins", "b ends"])

    def test_small_shards_share_a_worker(self) -> None:
        """Small shards that wait go to one worker together, and fail each alone."""
        node = self.node()
        self.workers.finish()
        held = [sample(seed, 50) for seed in range(5)]
        puts = [start(put_small(node.store, one)) for one in held]
        self.assertEqual(len(self.workers.queue), 1)
        self.workers.step()
        self.successResultOf(puts[0])
        self.assertEqual(len(self.workers.queue), 1)
        folder = f"{ROOT}/objects/{held[2].key.hash[:2]}"
        self.disk.fault = lambda operation: 5 if operation.path == folder else None
        self.workers.step()
        for number in (1, 3, 4):
            self.successResultOf(puts[number])
        self.workers.finish()
        self.failureResultOf(puts.pop(2), NodeUnreachable)
        self.assertEqual(node.shard_count, 4)

    def test_find_during_a_commit(self) -> None:
        """A find that saw the file missing does not strike off what came meanwhile."""
        node = self.node()
        self.workers.finish()
        self.result(put(node.store, OLD))
        (path,) = self.disk.tree(f"{ROOT}/objects")
        self.disk.delete(path)
        finding = start(node.store.find(OLD.key.hash))
        self.workers.step()
        putting = start(put_small(node.store, OLD))
        self.workers.finish()
        self.successResultOf(putting)
        self.successResultOf(finding)
        found = self.result(node.store.find(OLD.key.hash))
        self.assertEqual(found.state, "have")
        self.assertEqual(node.shard_count, 1)
