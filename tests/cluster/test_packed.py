"""The stories of the standalone again, with small contents packed into segments."""

from __future__ import annotations

from random import Random
from typing import ClassVar

from tests.cluster import (
    test_copies,
    test_faults,
    test_losses,
    test_objects,
    test_parallel,
    test_refusals,
)
from tests.support.standalone import NODES, StandaloneCase, files_below, some_bytes


class ObjectTests(test_objects.ObjectTests):
    """One client, one server."""

    packed = True


class ParallelTests(test_parallel.ParallelTests):
    """Many clients at once."""

    packed = True


class RefusalTests(test_refusals.RefusalTests):
    """What is refused leaves nothing."""

    packed = True


class PartTests(test_copies.PartTests):
    """Parts of contents."""

    packed = True


class ErrorTests(test_faults.ErrorTests):
    """Disks that fail."""

    packed = True
    naming = ("link", "fdatasync")

    def used(self, name: str, operation: str) -> bool:
        """What is small is only written, into a file that is there."""
        return name == "large" or operation == "pwrite"


class FullTests(test_faults.FullTests):
    """Disks that are full."""

    packed = True


class LaggardTests(test_faults.LaggardTests):
    """Disks that hang."""

    packed = True


class FolderTests(test_losses.FolderTests):
    """Whole nodes gone."""

    packed = True
    pairs = ((1, 2), (3, 6), (4, 5))


class SegmentTests(StandaloneCase):
    """Segments that are there, or not, or rotten."""

    packed = True
    options: ClassVar = {"laggard": "1min"}

    async def test_no_files(self) -> None:
        """A small content makes no file of its own, a large one does."""
        await self.put("small", some_bytes(5000))
        self.assertEqual(sum(len(paths) for paths in self.kept().values()), 0)
        await self.put("large", some_bytes(3 << 20))
        self.assertEqual(sum(len(paths) for paths in self.kept().values()), 6)
        await self.assert_reads("small", some_bytes(5000))

    async def test_back_and_forth(self) -> None:
        """The limit may change at every start: all that was stored reads as before."""
        contents = {f"{n}": some_bytes(3000 + n) for n in range(4)}
        for number, (name, content) in enumerate(contents.items()):
            await self.fall()
            await self.rise(pack_limit="0" if number % 2 else "64KiB")
            await self.put(name, content)
            for again in list(contents)[: number + 1]:
                await self.put(f"again {again}", contents[again])
        for name, content in contents.items():
            await self.assert_reads(name, content)
            self.assertEqual(set(self.shards(content)), set(range(6)))
        self.assertEqual(len(self.objects()), 24)
        self.assertEqual(sum(len(paths) for paths in self.kept().values()), 12)

    async def test_lost_while_stopped(self) -> None:
        """Segments of two nodes deleted while it was stopped: exact, and mended."""
        content = some_bytes(20_000)
        await self.put("x", content)
        whole = self.shards(content)
        await self.fall()
        for number in (2, 5):
            for path in files_below(self.node(number) / "segments"):
                path.unlink()
        await self.rise()
        await self.assert_reads("x", content)
        await self.until_whole(content, whole)

    async def test_rotten_while_stopped(self) -> None:
        """Bytes of two nodes' segments changed: exact, and mended."""
        contents = {f"{n}": some_bytes(9_000, n) for n in range(5)}
        for name, content in contents.items():
            await self.put(name, content)
        whole = {name: self.shards(content) for name, content in contents.items()}
        await self.fall()
        rng = Random(1)
        for number in rng.sample(list(NODES), 2):
            (path,) = files_below(self.node(number) / "segments")
            data = bytearray(path.read_bytes())
            for offset in rng.sample(range(4096, len(data)), 20):
                data[offset] ^= 0xFF
            path.write_bytes(data)
        await self.rise()
        for name, content in contents.items():
            await self.assert_reads(name, content)
        for name, content in contents.items():
            await self.until_whole(content, whole[name])
