"""A storage root: whose it is, and what happens when it goes away under a node."""

from __future__ import annotations

from pathlib import Path
from random import Random

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.root import Root
from ostore.model.errors import (
    Malformed,
    NodeFull,
    NodeUnreachable,
    OstoreError,
    Refused,
)
from tests.backends.test_shards_crash import (
    NOW,
    OLD,
    ROOT,
    TINY,
    done,
    node_on,
    outcome,
    sunk,
)
from tests.contracts.shards import blocks, put_small
from tests.support.disk import Operation, SimulatedDisk


class Roots(SynchronousTestCase):
    """One disk, one root upon it."""

    def setUp(self) -> None:
        """An empty disk."""
        self.disk = SimulatedDisk(lambda: NOW)
        self.disk.make("/data")

    def started(self, seed: int = 0) -> ShardNode:
        """A running node."""
        node = node_on(self.disk, seed=seed)
        done(node.start())
        return node

    def assertFails(self, work: object, error: type[OstoreError]) -> str:
        """The one line of the error."""
        assert isinstance(work, Failure), work
        self.assertIsInstance(work.value, error)
        line = str(work.value)
        self.assertNotIn("\n", line)
        return line

    def state(self, node: ShardNode, hash: str) -> str:
        """What find says."""
        states: list[str] = []

        async def look() -> None:
            states.append((await node.store.find(hash)).state)

        done(look())
        return states[0]

    # Taking a root

    def test_missing_and_empty(self) -> None:
        """A root that is missing, empty, or bears lost+found alone gets an id."""
        for prepare in (
            lambda: None,
            lambda: self.disk.make(ROOT),
            lambda: self.disk.make(f"{ROOT}/lost+found"),
        ):
            self.setUp()
            prepare()
            node = self.started()
            self.assertRegex(node.node_id, "^[0-9a-f]{32}$")
            self.assertEqual(node.boot.counter, 1)
            self.assertRegex(node.boot.random, "^[0-9a-f]{16}$")
            self.assertEqual((node.state, node.cluster, node.epoch), ("up", "", 0))

    def test_again(self) -> None:
        """The id stays, the boot counter grows, the shards are there."""
        node = self.started()
        done(sunk(node.store, OLD))
        done(node.stop())
        again = self.started(seed=5)
        self.assertEqual(again.node_id, node.node_id)
        self.assertEqual(again.boot.counter, 2)
        self.assertNotEqual(again.boot.random, node.boot.random)
        self.assertEqual(again.shard_count, 1)
        self.assertEqual(self.state(again, OLD.key.hash), "have")

    def test_strangers(self) -> None:
        """A folder with anything else in it is refused, and left as it was."""
        self.disk.make(ROOT)
        self.disk.put(f"{ROOT}/letter.txt", b"dear all")
        line = self.assertFails(outcome(node_on(self.disk).start()), Malformed)
        self.assertIn("must be missing, empty, or a storage root", line)
        self.assertEqual(self.disk.names(ROOT), ["letter.txt"])

    def test_damaged_identity(self) -> None:
        """An identity that cannot be read is refused, never replaced."""
        for text in (
            b"",
            b"{}",
            b"[]",
            b"\xff",
            b'{"format": 2, "node": "", "boot": 1, "cluster": "", "epoch": 0}',
            b'{"format": 1, "node": "x", "boot": 1, "cluster": "", "epoch": 0}',
            b'{"format": 1, "node": 5, "boot": 1, "cluster": "", "epoch": 0}',
            b'{"format": 1, "node": "%032d", "boot": true, "cluster": "", "epoch": 0}'
            % 0,
        ):
            self.setUp()
            self.disk.make(ROOT)
            self.disk.put(f"{ROOT}/node.json", text)
            self.assertFails(outcome(node_on(self.disk).start()), Malformed)
            self.assertEqual(self.disk.content(f"{ROOT}/node.json"), text)

    def test_one_process(self) -> None:
        """A second process is refused while the first lives, not afterwards."""
        node = self.started()
        line = self.assertFails(outcome(node_on(self.disk).start()), Refused)
        self.assertIn("in use by another process", line)
        done(node.stop())
        self.started()

    def test_not_a_folder(self) -> None:
        """A root that is a file is refused with one line."""
        self.disk.put(ROOT, b"")
        self.assertFails(outcome(node_on(self.disk).start()), NodeUnreachable)

    def test_real_lock(self) -> None:
        """The lock of a real folder works between two roots too."""
        path = self.mktemp()
        first = Root(path, Files(), Random(1).randbytes)
        first.open()
        second = Root(path, Files(), Random(2).randbytes)
        self.assertRaises(Refused, second.open)
        first.close()
        second.open()
        self.assertEqual(second.identity.node, first.identity.node)
        second.close()
        other = Path(self.mktemp())
        other.mkdir()
        (other / "letter").touch()
        stranger = Root(str(other), Files(), Random(3).randbytes)
        self.assertRaises(Malformed, stranger.open)

    # Clusters

    def test_adopt(self) -> None:
        """A cluster id is taken once, the epoch only grows, and both are durable."""
        node = self.started()
        done(node.adopt("c1", 3))
        done(node.adopt("c1", 3))
        done(node.adopt("c1", 4))
        self.assertFails(outcome(node.adopt("c2", 9)), Refused)
        self.assertFails(outcome(node.adopt("c1", 3)), Refused)
        self.assertFails(outcome(node.adopt("../x", 9)), Malformed)
        self.disk = self.disk.after_power_cut(Random(0))
        again = self.started()
        self.assertEqual((again.cluster, again.epoch), ("c1", 4))

    def test_adopt_with_shards(self) -> None:
        """A node that holds a shard, were it in garbage, takes no cluster id."""
        node = self.started()
        done(sunk(node.store, OLD))
        self.assertFails(outcome(node.adopt("c1", 1)), Refused)

    # Losing a root

    def test_deleted(self) -> None:
        """A deleted root is made anew: same id and cluster, next boot, no shards."""
        node = self.started()
        done(node.adopt("c1", 3))
        done(sunk(node.store, OLD))
        before = node.boot
        self.disk.delete(ROOT)
        done(node.check_root())
        self.assertEqual(node.state, "up")
        self.assertEqual(node.boot.counter, before.counter + 1)
        self.assertEqual(node.shard_count, 0)
        self.assertEqual(self.state(node, OLD.key.hash), "none")
        done(sunk(node.store, OLD))
        self.assertEqual(self.state(node, OLD.key.hash), "have")
        self.assertFails(outcome(node_on(self.disk).start()), Refused)
        done(node.stop())
        again = self.started()
        self.assertEqual(
            (again.node_id, again.cluster, again.epoch), (node.node_id, "c1", 3)
        )

    def test_deleted_before_a_write(self) -> None:
        """A write that meets no root does not wait for the next look at it."""
        for write in (put_small, sunk):
            self.setUp()
            node = self.started()
            done(sunk(node.store, OLD))
            self.disk.delete(ROOT)
            done(write(node.store, TINY))
            self.assertEqual((node.state, node.boot.counter), ("up", 2))
            self.assertEqual(self.state(node, TINY.key.hash), "have")
            self.assertEqual(self.state(node, OLD.key.hash), "none")
            self.assertEqual(node.shard_count, 1)

    def test_deleted_in_a_small_write(self) -> None:
        """So it is wherever in the write of a small shard the root vanishes."""
        node = self.started()
        before = len(self.disk.operations)
        done(put_small(node.store, TINY))
        for number in range(len(self.disk.operations) - before):
            self.setUp()
            node = self.started()
            left = [number]

            def vanish(_: object, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == -1:
                    self.disk.delete(ROOT)

            self.disk.fault = vanish
            try:
                done(put_small(node.store, TINY))
            except NodeUnreachable as error:
                self.assertIn("removed meanwhile", str(error))
            else:
                self.disk.fault = None
                self.assertEqual(self.state(node, TINY.key.hash), "have", number)
                self.assertEqual(node.boot.counter, 2)

    def test_away_and_back(self) -> None:
        """A root that is away for a moment makes no shard missing."""
        key = OLD.key

        async def renew(node: ShardNode) -> None:
            await node.store.renew(key.hash, key.layout)

        async def read(node: ShardNode) -> None:
            await blocks(node.store, key)

        async def find(node: ShardNode) -> None:
            found = await node.store.find(key.hash)
            self.assertEqual(found.state, "have")

        async def discard(node: ShardNode) -> None:
            await node.store.discard(key, await node.store.condemn(key))

        async def list_(node: ShardNode) -> None:
            self.assertEqual(len(await node.store.list("", 9)), 1)

        for ask in (renew, read, find, discard, list_):
            for stays_away in (1, 2, 99):
                self.setUp()
                node = self.started()
                done(sunk(node.store, OLD))
                self.disk.replace("/data/aside", ROOT)
                left = [stays_away]

                def come_back(_: object, left: list[int] = left) -> None:
                    left[0] -= 1
                    if left[0] == -1:
                        self.disk.replace(ROOT, "/data/aside")

                self.disk.fault = come_back
                got = outcome(ask(node))
                if left[0] >= 0:
                    self.assertFails(got, NodeUnreachable)
                    self.disk.replace(ROOT, "/data/aside")
                self.disk.fault = None
                if ask is discard and got is None:
                    continue
                self.assertEqual(self.state(node, key.hash), "have", ask.__name__)
                self.assertEqual((node.store.lost, node.shard_count), (0, 1))
                self.assertEqual(node.boot.counter, 1)

    def test_away_while_counting(self) -> None:
        """A count that meets no root goes on when it is back."""
        node = self.started()
        done(sunk(node.store, OLD))
        done(node.stop())
        for names in ("objects", f"objects/{OLD.key.hash[:2]}"):
            again, left = node_on(self.disk), [1]

            def vanish(
                done_: Operation, left: list[int] = left, name: str = names
            ) -> None:
                if done_.name == "scan" and done_.path == f"{ROOT}/{name}":
                    left[0] -= 1
                    if left[0] == 0:
                        self.disk.replace("/data/aside", ROOT)

            self.disk.fault = vanish
            done(again.start())
            self.assertEqual(left[0], 0)
            self.assertEqual(again.state, "scanning")
            self.disk.replace(ROOT, "/data/aside")
            self.assertEqual(self.state(again, OLD.key.hash), "have")
            self.disk.fault = None
            done(again.stop())

    def test_emptied(self) -> None:
        """A root whose content was deleted is filled again under the same id."""
        for names in (
            ["node.json"],
            ["lock"],
            ["node.json", "lock", "objects", "temp"],
        ):
            self.setUp()
            node = self.started()
            done(sunk(node.store, OLD))
            for name in names:
                self.disk.delete(f"{ROOT}/{name}")
            done(node.check_root())
            self.assertEqual((node.state, node.boot.counter), ("up", 2))
            held = "none" if "objects" in names else "have"
            self.assertEqual(self.state(node, OLD.key.hash), held)
            self.assertFails(outcome(node_on(self.disk).start()), Refused)
            done(node.stop())
            self.assertEqual(self.started().node_id, node.node_id)

    def test_vanishing_under_a_write(self) -> None:
        """A write that had begun before the root vanished is never acknowledged."""
        for remade in (False, True):
            for size in range(2):
                self.setUp()
                node = self.started()

                async def write(node: ShardNode = node, anew: bool = remade) -> None:
                    sink = await node.store.create("d" * 32)
                    await sink.write(OLD.frames[0])
                    self.disk.delete(ROOT)
                    if anew:
                        await node.check_root()
                    try:
                        await sink.commit(OLD.key, OLD.layout, None, 0)
                    finally:
                        await sink.abort()

                self.assertFails(outcome(write()), NodeUnreachable)
                self.assertEqual(self.state(node, OLD.key.hash), "none", size)

    def test_folders_deleted(self) -> None:
        """Folders below the root that somebody deleted are made again when needed."""
        node = self.started()
        done(sunk(node.store, OLD))
        for name in ("objects", "temp", f"objects/{TINY.key.hash[:2]}"):
            self.disk.delete(f"{ROOT}/{name}")
            done(sunk(node.store, TINY))
            self.assertEqual(self.state(node, TINY.key.hash), "have", name)
            left = node_on(self.disk.after_power_cut(Random(0)))
            done(left.start())
            self.assertEqual(self.state(left, TINY.key.hash), "have", name)

    def test_exchanged_for_a_copy(self) -> None:
        """Another folder that bears our id is taken over and counted."""
        node = self.started()
        done(sunk(node.store, OLD))
        copy = self.disk.copy()
        done(sunk(node.store, TINY))
        identity = copy.content(f"{ROOT}/node.json")
        path = copy.tree(f"{ROOT}/objects")[0]
        self.disk.make("/data/copy/objects/" + OLD.key.hash[:2])
        self.disk.put("/data/copy/node.json", identity)
        self.disk.put(path.replace(ROOT, "/data/copy"), copy.content(path))
        self.disk.delete(ROOT)
        self.disk.replace(ROOT, "/data/copy")
        done(node.check_root())
        self.assertEqual((node.state, node.boot.counter), ("up", 2))
        self.assertEqual(self.state(node, OLD.key.hash), "have")
        self.assertEqual(self.state(node, TINY.key.hash), "none")
        self.assertEqual(node.shard_count, 1)

    def test_exchanged_for_anothers(self) -> None:
        """A folder with another id, or with strange files, makes the node readonly."""
        other = b'{"format": 1, "node": "%032d", "boot": 1, "cluster": "", "epoch": 0}'
        for name, data in (
            ("node.json", other % 7),
            ("node.json", b"{"),
            ("node.json", None),
            ("letter.txt", b""),
        ):
            self.setUp()
            node = self.started()
            done(node.adopt("c1", 1))
            self.disk.make("/data/other")
            mine = self.disk.content(f"{ROOT}/node.json")
            theirs = mine.replace(b"c1", b"c2") if data is None else data
            self.disk.put(f"/data/other/{name}", theirs)
            self.disk.delete(ROOT)
            self.disk.replace(ROOT, "/data/other")
            done(node.check_root())
            self.assertEqual(node.state, "readonly")
            self.assertTrue(node.reason)
            self.assertFails(outcome(put_small(node.store, TINY)), NodeUnreachable)
            self.assertFails(outcome(sunk(node.store, TINY)), NodeUnreachable)
            self.assertEqual(self.disk.names(ROOT), [name])

    def test_unmounted(self) -> None:
        """A root that was a mount is not made anew on the disk below it."""
        for stays in (True, False):
            self.setUp()
            self.disk.mount(ROOT)
            node = self.started()
            done(sunk(node.store, OLD))
            self.disk.replace("/data/aside", ROOT)
            if stays:
                self.disk.make(ROOT)
            done(node.check_root())
            self.assertEqual(node.state, "readonly")
            self.assertFails(outcome(put_small(node.store, TINY)), NodeUnreachable)
            self.assertEqual(self.disk.names(ROOT), [])
            if stays:
                self.disk.delete(ROOT)
            self.disk.replace(ROOT, "/data/aside")
            done(node.check_root())
            self.assertEqual(node.state, "up")
            self.assertEqual(self.state(node, OLD.key.hash), "have")

    def test_failing_disk(self) -> None:
        """A root that cannot be looked at makes the node readonly until it can."""
        node = self.started()
        self.disk.fault = lambda _: 5
        done(node.check_root())
        self.assertEqual(node.state, "readonly")
        self.disk.fault = None
        done(node.check_root())
        self.assertEqual(node.state, "up")

    def fill(self) -> None:
        """Not one byte is left."""
        self.disk.capacity -= self.disk.space("/").free

    def test_start_on_a_full_disk(self) -> None:
        """Without any room a node starts again and again, counts it, and reads."""
        node = self.started()
        done(sunk(node.store, OLD))
        for counter in range(2, 6):
            done(node.stop())
            self.fill()
            node = self.started(seed=counter)
            self.assertEqual((node.state, node.boot.counter), ("full", counter))
            done(blocks(node.store, OLD.key))
            self.assertFails(outcome(put_small(node.store, TINY)), NodeFull)
            self.disk = self.disk.after_power_cut(Random(0))
        done(node.stop())

    def test_first_start_on_a_full_disk(self) -> None:
        """A root that has no id yet, nor room for one, is refused in one line."""
        self.fill()
        line = self.assertFails(outcome(node_on(self.disk).start()), NodeUnreachable)
        self.assertIn("No space left", line)

    def test_adopt_on_a_full_disk(self) -> None:
        """A cluster and its epochs are written down there too."""
        node = self.started()
        self.fill()
        for epoch in (1, 2, 3):
            done(node.adopt("c1", epoch))
        self.disk = self.disk.after_power_cut(Random(0))
        again = self.started()
        self.assertEqual((again.cluster, again.epoch), ("c1", 3))

    def test_full(self) -> None:
        """Below the head-room new shards are refused, renewals are not."""
        node = self.started()
        done(sunk(node.store, OLD))
        total = self.disk.capacity
        used = total - self.disk.space("/").free
        self.disk.capacity = used + used // 200
        done(node.check_root())
        self.assertEqual((node.state, node.full), ("full", True))
        self.assertFails(outcome(put_small(node.store, TINY)), NodeFull)
        self.assertFails(outcome(sunk(node.store, TINY)), NodeFull)

        async def look() -> None:
            found = await node.store.renew(OLD.key.hash, OLD.key.layout)
            self.assertEqual(found.state, "have")
            await blocks(node.store, OLD.key)

        done(look())
        self.disk.capacity = total
        done(node.check_root())
        self.assertEqual(node.state, "up")
