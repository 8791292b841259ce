"""Files, paths and the index: the small parts below the store."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.direct import DirectWriter
from ostore.backends.shards.files import (
    ALIGNED,
    PAGE,
    Files,
    ShortRead,
    node_error,
)
from ostore.backends.shards.index import Index
from ostore.backends.shards.paths import Paths, parse_garbage, parse_shard
from ostore.model.errors import Malformed, NodeFull, NodeUnreachable
from ostore.model.layouts import ShardKey
from ostore.streaming.buffers import Buffers
from tests.support.disk import Operation, PowerCut, SimulatedDisk

hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
keys = st.builds(
    ShardKey,
    st.sampled_from([f"{n:02x}" + "0" * 62 for n in (0, 1, 255)]) | hexes,
    st.integers(0, 31),
    st.sampled_from(["0" * 32, "f" * 32]),
)


def room(before: int, piece: bytes) -> memoryview:
    """Page-aligned memory with that piece behind so many bytes."""
    length = before + len(piece)
    found = Buffers(max(1, length), 1).take(length)
    found[before:] = piece
    return found


class FilesContract(SynchronousTestCase):
    """The seam does the same in memory and on a real disk."""

    def places(self) -> list[tuple[Files, str]]:
        """Each implementation, and an empty folder there."""
        disk = SimulatedDisk()
        disk.make("/folder")
        real = Path(self.mktemp())
        real.mkdir()
        return [(disk, "/folder"), (Files(), str(real.resolve()))]

    def test_simulation_is_complete(self) -> None:
        """The simulated disk has a method of its own for each of the seam's."""
        for name in vars(Files):
            if not name.startswith("_"):
                self.assertIn(name, vars(SimulatedDisk))

    @settings(max_examples=30)
    @given(
        st.integers(0, 3 * PAGE),
        st.lists(st.integers(0, 3 * PAGE) | st.just(ALIGNED + 1), max_size=6),
        st.sets(st.integers(0, 5)),
        st.sets(st.integers(0, 5)),
    )
    def test_direct(
        self, begun: int, lengths: list[int], flushes: set[int], rooms: set[int]
    ) -> None:
        """What is appended past the page cache is the file, at any lengths."""
        for files, folder in self.places():
            path = f"{folder}/a"
            fd = files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            rng = Random(begun)
            expected = rng.randbytes(begun)
            files.pwrite(fd, [expected], 0)
            writer = DirectWriter(files, fd, begun)
            for number, length in enumerate(lengths):
                piece = rng.randbytes(length)
                expected += piece
                if number in rooms:
                    writer.write_room(room(writer.end % PAGE, piece))
                else:
                    writer.write([piece[: length // 3], piece[length // 3 :]])
                if number in flushes:
                    writer.flush()
                    self.assertEqual(files.pread(fd, len(expected), 0), expected)
            self.assertEqual(writer.end, len(expected))
            writer.flush()
            self.assertEqual(files.fstat(fd).size, len(expected))
            self.assertEqual(files.pread(fd, len(expected), 0), expected)
            files.close(fd)

    def test_refused_direct(self) -> None:
        """Where such writes are refused, at once or when they come, they are ordinary."""
        for asked in (False, True):
            disk = SimulatedDisk()
            disk.knows_direct = asked
            first = True

            def refuse(operation: Operation) -> int | None:
                nonlocal first
                if operation.name != "pwrite" or not first:
                    return None
                first = False
                return errno.EINVAL

            fd = disk.open("/a", os.O_RDWR | os.O_CREAT)
            writer = DirectWriter(disk, fd, 0)
            if asked:
                disk.fault = refuse
            writer.write_room(room(0, b"x" * 5000))
            writer.write_room(room(5000 % PAGE, b"y" * 5000))
            writer.write([b"z" * 5000])
            writer.flush()
            expected = b"x" * 5000 + b"y" * 5000 + b"z" * 5000
            self.assertEqual(disk.content("/a"), expected)
            self.assertEqual(first, not asked)

    def test_bytes(self) -> None:
        """What is written at an offset is read there; a short file says so."""
        for files, folder in self.places():
            fd = files.open(f"{folder}/a", os.O_RDWR | os.O_CREAT | os.O_EXCL)
            self.assertEqual(files.pwrite(fd, [b"ab", b"", b"cde"], 3), 5)
            self.assertEqual(files.pread(fd, 8, 0), b"\0\0\0abcde")
            self.assertEqual(bytes(files.pread_cached(fd, 3, 4) or b""), b"bcd")
            self.assertIsNone(files.pread_cached(fd, 9, 0))
            self.assertRaises(ShortRead, files.pread, fd, 6, 3)
            files.preallocate(fd, 8, 100)
            self.assertEqual(files.fstat(fd).size, 108)
            files.write_behind(fd, 0, 8)
            files.truncate(fd, 5)
            files.touch(fd, 1234.5)
            files.fsync(fd)
            facts = files.fstat(fd)
            self.assertEqual((facts.size, facts.modified), (5, 1234.5))
            self.assertEqual((facts.links, facts.folder), (1, False))
            self.assertEqual(files.stat(f"{folder}/a"), facts)
            files.close(fd)
            self.assertRaises(OSError, files.close, fd)

    def test_names(self) -> None:
        """Names are made create-only, moved, and removed as they should be."""
        for files, folder in self.places():
            a, b, c = (f"{folder}/{name}" for name in "abc")
            files.close(files.open(a, os.O_WRONLY | os.O_CREAT))
            self.assertRaises(
                FileExistsError, files.open, a, os.O_WRONLY | os.O_CREAT | os.O_EXCL
            )
            files.link(a, b)
            self.assertEqual(files.stat(a).links, 2)
            self.assertRaises(FileExistsError, files.link, a, b)
            self.assertRaises(FileNotFoundError, files.link, c, a)
            self.assertRaises(FileNotFoundError, files.link, a, f"{folder}/x/a")
            files.mkdir(c)
            self.assertRaises(FileExistsError, files.mkdir, c)
            self.assertRaises(FileNotFoundError, files.mkdir, f"{folder}/x/y")
            self.assertEqual(
                sorted(files.scan(folder)), [("a", True), ("b", True), ("c", False)]
            )
            files.rename(a, b)
            self.assertEqual(files.stat(a).links, 2)
            files.remove(b)
            files.rename(a, b)
            files.fsync_folder(folder)
            files.remove(b)
            self.assertRaises(FileNotFoundError, files.remove, b)
            self.assertEqual(list(files.scan(folder)), [("c", False)])
            with self.assertRaises(FileNotFoundError):
                list(files.scan(f"{folder}/nothing"))
            self.assertRaises(FileNotFoundError, files.stat, a)
            self.assertTrue(files.stat(c).folder)

    def test_unlinked(self) -> None:
        """An open file whose name is gone has no links."""
        for files, folder in self.places():
            fd = files.open(f"{folder}/a", os.O_RDWR | os.O_CREAT)
            files.remove(f"{folder}/a")
            self.assertEqual(files.fstat(fd).links, 0)
            files.pwrite(fd, [b"x"], 0)
            files.close(fd)

    def test_lock(self) -> None:
        """One descriptor has the lock, until it is closed."""
        for files, folder in self.places():
            flags = os.O_RDWR | os.O_CREAT
            one, two = (files.open(f"{folder}/lock", flags) for _ in range(2))
            self.assertTrue(files.lock(one))
            self.assertFalse(files.lock(two))
            files.close(one)
            self.assertTrue(files.lock(two))
            files.close(two)

    def test_space(self) -> None:
        """Free bytes are some of all bytes."""
        for files, folder in self.places():
            space = files.space(folder)
            self.assertLess(0, space.free)
            self.assertLessEqual(space.free, space.total)

    def test_symbolic_link(self) -> None:
        """A symbolic link is not followed and is no plain file."""
        files, folder = self.places()[1]
        (Path(folder) / "secret").write_bytes(b"x")
        (Path(folder) / "link").symlink_to("secret")
        self.assertRaises(OSError, files.open, f"{folder}/link", os.O_RDONLY)
        self.assertIn(("link", False), list(files.scan(folder)))

    def test_errors(self) -> None:
        """A full disk is NodeFull, all else NodeUnreachable, without any path."""
        self.assertIsInstance(node_error(OSError(28, "x", "/secret")), NodeFull)
        for number in (5, 13, 30):
            error = node_error(OSError(number, "x", "/secret"))
            self.assertIsInstance(error, NodeUnreachable)
            self.assertNotIn("secret", str(error))


class Simulation(SynchronousTestCase):
    """The simulated disk really loses what was not synced."""

    def test_losses(self) -> None:
        """Bytes and names survive a power cut by their own syncs only."""
        disk = SimulatedDisk()
        disk.make("/f")
        for name in ("a", "b", "c"):
            fd = disk.open(f"/f/{name}", os.O_RDWR | os.O_CREAT)
            disk.pwrite(fd, [b"12345678"], 0)
            if name != "a":
                disk.fsync(fd)
        left = disk.after_power_cut(Random(0), "lost")
        self.assertEqual(left.names("/f"), [])
        left = disk.after_power_cut(Random(0), "kept")
        self.assertEqual(left.names("/f"), ["a", "b", "c"])
        self.assertEqual(
            (left.content("/f/a"), left.content("/f/b")), (b"", b"12345678")
        )
        disk.fsync_folder("/f")
        self.assertEqual(disk.after_power_cut(Random(0)).names("/f"), ["a", "b", "c"])

    def test_torn(self) -> None:
        """A write that was not synced may survive in part."""
        lengths = set()
        for seed in range(50):
            disk = SimulatedDisk()
            fd = disk.open("/a", os.O_RDWR | os.O_CREAT)
            disk.pwrite(fd, [b"12345678"], 0)
            left = disk.after_power_cut(Random(seed), "kept", "torn").content("/a")
            self.assertTrue(b"12345678".startswith(left))
            lengths.add(len(left))
        self.assertGreater(len(lengths), 5)

    def test_darkness(self) -> None:
        """After the cut nothing works any more."""
        disk = SimulatedDisk()
        disk.cut_after = 0
        self.assertRaises(PowerCut, disk.mkdir, "/a")
        self.assertRaises(PowerCut, disk.mkdir, "/b")
        self.assertEqual(disk.after_power_cut(Random(0), "kept").names("/"), ["a"])
        disk = SimulatedDisk()
        disk.cut_before = 0
        self.assertRaises(PowerCut, disk.mkdir, "/a")
        self.assertEqual(disk.after_power_cut(Random(0), "kept").names("/"), [])


class Names(SynchronousTestCase):
    """Paths and the names found on disk."""

    @settings(deadline=None, max_examples=100)
    @given(keys, st.integers(0, 255))
    def test_round_trip(self, key: ShardKey, copy: int) -> None:
        """A name that was built is read back as the same shard."""
        paths = Paths("/r")
        shard = paths.shard(key)
        self.assertEqual(shard.split("/")[:4], ["", "r", "objects", key.hash[:2]])
        self.assertEqual(parse_shard(shard.rsplit("/", 1)[1]), key)
        name = paths.discarded(key, copy).rsplit("/", 1)[1]
        self.assertEqual(parse_garbage(name), (key, copy))

    @settings(deadline=None, max_examples=200)
    @given(st.text(max_size=80), st.integers(-5, 40), st.text(max_size=40))
    def test_strange(self, hash: str, index: int, layout: str) -> None:
        """What is no hash, index or id makes no path."""
        paths = Paths("/r")
        self.assertRaises(Malformed, paths.shard, ShardKey(hash[:63], index, layout))
        self.assertRaises(Malformed, paths.upload, layout[:31])
        self.assertIsNone(parse_shard(f"{hash}.{index}.{layout[:31]}"))

    def test_unicode_digits(self) -> None:
        """Digits of other scripts are no digits."""
        name = "0" * 64 + ".1٣." + "0" * 32
        self.assertIsNone(parse_shard(name))
        self.assertIsNone(parse_shard("0" * 64 + ".1." + "0" * 32 + "\n"))


class Indexes(SynchronousTestCase):
    """The index is a set of names."""

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(st.tuples(st.booleans(), keys, st.integers(0, 3)), max_size=30),
        hexes | st.just(""),
    )
    def test_like_a_set(
        self, steps: list[tuple[bool, ShardKey, int]], after: str
    ) -> None:
        """Adding and removing leaves what a set would hold, in hash order."""
        index, model = Index(), set[tuple[ShardKey, int]]()
        for add, key, copy in steps:
            if add:
                index.add(key, copy)
                model.add((key, copy))
            else:
                self.assertEqual(index.remove(key, copy), (key, copy) in model)
                model.discard((key, copy))
        self.assertEqual(len(index), len(model))
        hashes = sorted({key.hash for key, _ in model})
        self.assertEqual(list(index.hashes("")), hashes)
        self.assertEqual(list(index.hashes(after)), [h for h in hashes if h > after])
        for hash in hashes:
            self.assertEqual(
                set(index.of(hash)), {each for each in model if each[0].hash == hash}
            )
