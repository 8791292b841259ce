"""Disks that fail, fill up or hang under the whole store."""

from __future__ import annotations

import errno
import sqlite3
from itertools import cycle
from typing import ClassVar

from ostore.engine import intake
from ostore.service import falling, process, serving, standalone
from ostore.streaming import pools
from ostore.streaming.buffers import Buffers
from tests.support.faults import FaultyFiles
from tests.support.http import Answer
from tests.support.standalone import NODES, StandaloneCase, some_bytes

SMALL = b"a small content"
LARGE = some_bytes(5 * 2**20 + 3)
CONTENTS = {"small": SMALL, "large": LARGE}

WRITES = ("create", "pwrite", "preallocate", "fsync", "fsync_folder", "link")
"""Operations of which each may be the one that fails a write."""


class FaultCase(StandaloneCase):
    """Every node's files can be made to fail; `files` has them by the node's number."""

    options: ClassVar = {
        "laggard": "100ms",
        "heartbeat": "300ms",
        "locate-timeout": "300ms",
    }

    def setUp(self):  # type: ignore[no-untyped-def] # as in StandaloneCase
        """Start over such files."""
        self.files: dict[int, FaultyFiles] = {}
        self.full = False

        numbers = cycle(NODES)

        def made(blocks: Buffers) -> FaultyFiles:
            files = self.files[next(numbers)] = FaultyFiles(blocks)
            files.full = self.full
            return files

        self.patch(standalone, "Files", made)
        return super().setUp()

    def fail_on(self, number: int, *nodes: int, operation: str = "*") -> None:
        """Let an operation fail on those nodes, with that errno."""
        for node in nodes:
            self.files[node].errors[operation] = number

    def heal(self) -> None:
        """No node fails any more."""
        for files in self.files.values():
            files.errors.clear()

    def marks(self) -> int:
        """Versions that the metadata calls degraded."""
        path = self.root / "metadata.sqlite"
        with sqlite3.connect(path) as database:
            found = database.execute(
                "SELECT count(*) FROM version WHERE missing <> 0"
            ).fetchone()
        database.close()
        return int(found[0])

    async def send(self, name: str) -> Answer:
        """PUT one of the contents under its name."""
        return await self.ask("PUT", f"/objects/{name}", (), CONTENTS[name])

    async def until_six(self, content: bytes) -> None:
        """Wait until all six shards are there."""
        await self.until(lambda: len(self.shards(content)) == 6, "six shards")

    async def assert_nothing(self) -> None:
        """No version, and no temporary that stays."""
        self.assertEqual(await self.versions(), [])
        await self.until(lambda: not self.temporaries(), "temp/ empty")


class ErrorTests(FaultCase):
    """EIO.

    `naming` are operations without which no shard gets its name; not every operation is
    `used` for every content.
    """

    naming: tuple[str, ...] = ("link",)

    def used(self, name: str, operation: str) -> bool:
        """Only what is large reserves room."""
        return (name, operation) != ("small", "preallocate")

    async def test_one_node(self) -> None:
        """One node that fails in a PUT: stored, marked, and mended when it is well."""
        for operation in WRITES:
            self.fail_on(errno.EIO, 2, operation=operation)
            for name, content in CONTENTS.items():
                answer = await self.send(name)
                self.assertEqual(answer.status, 200, (operation, answer.body))
                await self.assert_reads(name, content)
            self.heal()
        self.assertGreater(self.files[2].failed, 0)
        for content in CONTENTS.values():
            await self.until_six(content)
        await self.until(lambda: self.marks() == 0, "no marks")

    async def test_marked(self) -> None:
        """While the node fails the version stays marked; afterwards the mark goes."""
        self.fail_on(errno.EIO, 5)
        for name in CONTENTS:
            self.assertEqual((await self.send(name)).status, 200)
        self.assertEqual(self.marks(), 2)
        for content in CONTENTS.values():
            self.assertEqual(len(self.shards(content)), 5)
        self.heal()
        await self.until(lambda: self.marks() == 0, "no marks")
        for name, content in CONTENTS.items():
            self.assertEqual(len(self.shards(content)), 6)
            await self.assert_reads(name, content)

    async def test_marked_over_a_restart(self) -> None:
        """The mark outlives the process: the next one mends."""
        for operation in self.naming:
            self.fail_on(errno.EIO, 5, operation=operation)
        for name in CONTENTS:
            self.assertEqual((await self.send(name)).status, 200)
        self.assertEqual(self.marks(), 2)
        await self.fall()
        await self.rise()
        await self.until(lambda: self.marks() == 0, "no marks")
        for content in CONTENTS.values():
            self.assertEqual(len(self.shards(content)), 6)

    async def test_two_nodes(self) -> None:
        """Two nodes that fail are one too many for a write, not for a read."""
        for name in CONTENTS:
            await self.send(name)
        self.fail_on(errno.EIO, 1, 4)
        for name, content in CONTENTS.items():
            await self.assert_reads(name, content)
            answer = await self.ask("PUT", "/objects/new", (), content[::-1])
            self.assert_problem(answer, 503)
        self.assertEqual(await self.numbers("new"), [])
        self.heal()
        await self.until(lambda: not self.temporaries(), "temp/ empty")

    async def test_two_nodes_at_quorum_four(self) -> None:
        """With a write quorum of four they are not, and both shards come back."""
        await self.fall()
        await self.rise(write_quorum="4")
        self.fail_on(errno.EIO, 1, 4)
        for name, content in CONTENTS.items():
            self.assertEqual((await self.send(name)).status, 200)
            await self.assert_reads(name, content)
            self.assertEqual(len(self.shards(content)), 4)
        self.heal()
        await self.until(lambda: self.marks() == 0, "no marks")
        for content in CONTENTS.values():
            self.assertEqual(len(self.shards(content)), 6)

    async def test_three_nodes(self) -> None:
        """Three nodes that fail: 503, no version, and the next try is version 1."""
        for operation in WRITES:
            for name in CONTENTS:
                if not self.used(name, operation):
                    continue
                self.fail_on(errno.EIO, 1, 3, 5, operation=operation)
                self.assert_problem(await self.send(name), 503)
                self.heal()
                await self.assert_nothing()
        self.assertEqual((await self.send("large")).status, 200)

    async def test_reads(self) -> None:
        """EIO while a GET reads: other shards take over, from the same stripe on."""
        for name in CONTENTS:
            await self.send(name)
        for operation in ("open", "pread", "fstat"):
            for pair in ((1, 2), (3, 4), (5, 6)):
                self.fail_on(errno.EIO, *pair, operation=operation)
                for name, content in CONTENTS.items():
                    await self.assert_reads(name, content)
                self.heal()

    async def test_reads_of_three(self) -> None:
        """On three nodes: 503, and right as soon as one is well."""
        for name in CONTENTS:
            await self.send(name)
        self.fail_on(errno.EIO, 1, 2, 3)
        for name in CONTENTS:
            self.assert_problem(await self.get(name), 503)
        self.files[2].errors.clear()
        for name, content in CONTENTS.items():
            await self.assert_reads(name, content)


class FullTests(FaultCase):
    """ENOSPC."""

    async def test_one(self) -> None:
        """One full disk is left out."""
        self.fail_on(errno.ENOSPC, 6, operation="pwrite")
        for name, content in CONTENTS.items():
            self.assertEqual((await self.send(name)).status, 200)
            await self.assert_reads(name, content)

    async def test_many(self) -> None:
        """Too many are a 507 and leave nothing; with room again all is well."""
        for name in CONTENTS:
            self.fail_on(errno.ENOSPC, 1, 2, operation="pwrite")
            self.assert_problem(await self.send(name), 507)
            self.heal()
            await self.assert_nothing()
        for name, content in CONTENTS.items():
            self.assertEqual((await self.send(name)).status, 200)
            await self.assert_reads(name, content)

    async def test_start(self) -> None:
        """With no byte left a start succeeds, and the next one; reads go on."""
        for name in CONTENTS:
            self.assertEqual((await self.send(name)).status, 200)
        for self.full in (True, True, False):
            await self.fall()
            await self.rise()
            for name, content in CONTENTS.items():
                await self.assert_reads(name, content)
            nodes = (await self.ask("GET", "/cluster")).json()["nodes"]
            states = {node["state"] for node in nodes}
            self.assertEqual(states == {"full"}, self.full, states)
            answer = await self.ask("PUT", "/objects/new", (), b"new")
            self.assertEqual(answer.status, 507 if self.full else 200)


class LaggardTests(FaultCase):
    """A disk that hangs."""

    def hang(self, operation: str, *nodes: int) -> None:
        """Let an operation hang on those nodes till release(), or the test's end."""
        for node in nodes:
            self.files[node].hang(operation)
            self.addCleanup(self.files[node].release)

    async def test_put(self) -> None:
        """A PUT does not wait for the end of a node that hangs; it is mended later."""
        self.hang("fsync", 3)
        for name, content in CONTENTS.items():
            self.assertEqual((await self.send(name)).status, 200)
            await self.assert_reads(name, content)
            self.assertEqual(len(self.shards(content)), 5)
        self.assertTrue(self.files[3].hanging.is_set())
        self.assertEqual(self.marks(), 2)
        self.files[3].release()
        await self.until(lambda: self.marks() == 0, "no marks")
        for content in CONTENTS.values():
            self.assertEqual(len(self.shards(content)), 6)

    async def test_stop(self) -> None:
        """The stop leaves behind what hangs, in a write or in a look at the disk."""
        self.patch(process, "GRACE", 0.3)
        self.patch(serving, "REQUESTS", 0.1)
        self.patch(falling, "LEAST", 0.1)
        self.patch(pools, "PATIENCE", 0.1)
        await self.fall()
        await self.rise(repair="off")  # a repair's own timers outlive it for a while
        self.hang("fsync", 3)
        self.assertEqual((await self.send("small")).status, 200)
        self.hang("stat", 4)
        await self.until(lambda: self.files[4].held, "a look that hangs")
        await self.fall()
        for node in (3, 4):
            self.assertGreater(self.files[node].held, 0)

    async def test_two(self) -> None:
        """Two that hang are one too many: a 503 in the end, and no version."""
        self.patch_stall()
        self.hang("fsync", 1)
        self.hang("fsync", 2)
        for name in CONTENTS:
            self.assert_problem(await self.send(name), 503)
        self.files[1].release()
        self.files[2].release()
        await self.assert_nothing()

    async def test_reads(self) -> None:
        """A GET does not wait for the end of two nodes whose reads hang."""
        for name in CONTENTS:
            await self.send(name)
        for operation in ("pread", "open"):
            self.hang(operation, 2, 5)
            for name, content in CONTENTS.items():
                await self.assert_reads(name, content)
                await self.assert_reads(name, content)
        self.assertTrue(self.files[2].hanging.is_set())
        self.assertTrue(self.files[5].hanging.is_set())

    async def test_new_content(self) -> None:
        """Nor does a PUT of a new content for nodes that do not say what they hold."""
        self.hang("open", 4)
        for name, content in CONTENTS.items():
            self.assertEqual((await self.send(name)).status, 200)
            self.assertEqual((await self.send(name)).status, 200)
            await self.assert_reads(name, content)

    def patch_stall(self) -> None:
        """Less patience with nodes that keep a write from its quorum."""
        self.patch(intake, "STALL", 0.3)
