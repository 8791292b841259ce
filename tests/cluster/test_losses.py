"""Shards that are lost or rotten: reads stay right, and put back what was missing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from itertools import combinations, count
from pathlib import Path

from ostore.erasure.framing import FRAME_HEADER
from ostore.erasure.shardfile import FOOTER_SIZE, INDEX_ROW, PROLOGUE
from ostore.maintenance.pace import Pace
from ostore.service import member
from ostore.streaming.tasks import gather
from tests.support.http import Cut
from tests.support.standalone import (
    NODES,
    TURNS,
    StandaloneCase,
    clock,
    sha256,
    some_bytes,
)

SMALL = b"this object will be separate to 4+2 shards"
LARGE = some_bytes(5 * 2**20 + 3)
STRIPES = 6
BLOCK = 1 << 18
"""Bytes of a block of a full stripe."""
FRAME = FRAME_HEADER.size

Spoil = Callable[[bytearray], None]


def flip(offset: int) -> Spoil:
    """Change one bit; a negative offset counts from the end."""

    def spoil(data: bytearray) -> None:
        data[offset] ^= 1

    return spoil


def cut(length: int) -> Spoil:
    """Leave so many bytes."""

    def spoil(data: bytearray) -> None:
        del data[length:]

    return spoil


def replace(data: bytearray) -> None:
    """Write something else."""
    data[:] = b"some_garbage"


INDEX = FOOTER_SIZE + STRIPES * INDEX_ROW.size
SPOILS: dict[str, Spoil] = {
    "prologue: magic": flip(0),
    "prologue: version": flip(9),
    "prologue: checksum": flip(len(PROLOGUE) - 1),
    **{f"frame header: byte {i}": flip(len(PROLOGUE) + i) for i in range(0, FRAME, 3)},
    "block: first byte": flip(len(PROLOGUE) + FRAME),
    "block: last byte": flip(len(PROLOGUE) + FRAME + BLOCK - 1),
    "second frame header": flip(len(PROLOGUE) + FRAME + BLOCK),
    "last block": flip(-INDEX - 1),
    **{
        f"first index row: byte {i}": flip(-INDEX + i)
        for i in range(0, INDEX_ROW.size, 3)
    },
    "last index row": flip(-FOOTER_SIZE - 1),
    **{f"footer: byte {i}": flip(i - FOOTER_SIZE) for i in range(0, FOOTER_SIZE, 7)},
    "footer: last byte": flip(-1),
    "cut in a block": cut(BLOCK),
    "cut in the footer": cut(-1),
    "emptied": cut(0),
    "overwritten": replace,
}


class LossCase(StandaloneCase):
    """A small and a large object are stored before each test."""

    async def rise(self, **options: str) -> None:
        """Start, and store them."""
        await super().rise(**options)
        if not self.objects():
            await self.put("small", SMALL)
            await self.put("large", LARGE)
            self.small, self.large = self.shards(SMALL), self.shards(LARGE)
            self.assertEqual(len(self.small), 6)
            self.assertEqual(len(self.large), 6)

    async def assert_right(self) -> None:
        """Both read exact."""
        await self.assert_reads("small", SMALL)
        await self.assert_reads("large", LARGE)

    async def assert_mended(self) -> None:
        """Both get back to six shards on six nodes, as they were."""
        await self.until_whole(SMALL, self.small)
        await self.until_whole(LARGE, self.large)


class FolderTests(LossCase):
    """Whole nodes gone."""

    pairs = tuple(combinations(NODES, 2))

    async def test_every_pair(self) -> None:
        """Any two folders deleted under a running store: reads are exact and mend."""
        for pair in self.pairs:
            self.lose(*pair)
            await self.assert_right()
            await self.assert_mended()

    async def test_a_write_at_once(self) -> None:
        """Writes and reads right behind the deletion wait for no look at the roots."""
        await self.fall()
        self.patch(member, "WATCH", 3600)
        await self.rise()
        for size in (100, 3 * 2**20):
            for number in (1, 2):  # at one stroke: repairs may be writing there
                self.node(number).rename(self.root / f"gone{number} {size}")
            await self.put("new", some_bytes(size))
            await self.assert_reads("new", some_bytes(size))
            await self.assert_right()
        await self.assert_mended()

    async def test_away_for_a_moment(self) -> None:
        """Roots that are away and back before anybody looks lose nothing."""
        await self.fall()
        self.patch(member, "WATCH", 3600)
        await self.rise(repair="off")
        for number in (2, 4, 5):
            self.node(number).rename(self.root / f"away{number}")
        for name in ("small", "large"):
            self.assert_problem(await self.get(name), 503)
        for number in (2, 4, 5):
            (self.root / f"away{number}").rename(self.node(number))
        await self.assert_right()
        self.assertEqual(self.shards(SMALL), self.small)
        for content in (SMALL, LARGE):
            answer = await self.ask("GET", f"/locate/{sha256(content)}")
            self.assertEqual(len(answer.json()), 6)

    async def test_every_pair_while_stopped(self) -> None:
        """Deleted while it was stopped: the same."""
        for pair in self.pairs:
            await self.fall()
            self.lose(*pair)
            await self.rise()
            await self.assert_right()
            await self.assert_mended()

    async def test_three(self) -> None:
        """Without three nodes a read is a 503, and right when one is back."""
        for number in (2, 4, 5):
            self.node(number).rename(self.root / f"away{number}")
        for name in ("small", "large"):
            self.assert_problem(await self.get(name), 503)
            head = await self.ask("HEAD", f"/objects/{name}")
            self.assertEqual(head.status, 503)
        self.assertEqual(await self.numbers("small"), [1])
        await self.until(self.node(4).exists, "the node's folder")
        self.put_back(4)
        while (await self.get("small")).status != 200:
            await clock.sleep(0.01)
        await self.assert_right()
        await self.assert_mended()

    def put_back(self, number: int) -> None:
        """The old folder for the one that the running node made, between two looks."""
        for attempt in count():
            with contextlib.suppress(OSError):
                self.node(number).rename(self.root / f"made{attempt}")
            with contextlib.suppress(OSError):
                (self.root / f"away{number}").rename(self.node(number))
                return

    async def test_three_while_stopped(self) -> None:
        """So it is when they were lost and put back between two starts."""
        await self.fall()
        for number in (1, 3, 6):
            self.node(number).rename(self.root / f"away{number}")
        await self.rise()
        for name in ("small", "large"):
            self.assert_problem(await self.get(name), 503)
        await self.fall()
        shutil.rmtree(self.node(3))
        (self.root / "away3").rename(self.node(3))
        await self.rise()
        await self.assert_right()
        await self.assert_mended()

    async def test_stored_again(self) -> None:
        """What too few shards are left of is whole again once it is PUT again."""
        self.lose(1, 2, 3)
        self.assert_problem(await self.get("large"), 503)
        await self.until(
            lambda: all(self.node(n).exists() for n in NODES), "the folders"
        )
        self.assertEqual((await self.put("large", LARGE))["version"], 2)
        await self.assert_reads("large", LARGE, 1)
        target = f"/locate/{sha256(LARGE)}"
        while set((await self.ask("GET", target)).json()) != set("012345"):
            await clock.sleep(0.01)  # a slow node's shard is made a moment later
        await self.put("small", SMALL)
        await self.until(lambda: self.shards(SMALL) == self.small, "the small shards")

    async def test_unusable(self) -> None:
        """A file in a folder's place: reads and writes go on, and mend at its end."""
        self.lose(3)
        self.node(3).write_bytes(b"not a folder")
        await self.assert_right()
        content = some_bytes((1 << 20) + 1)
        await self.put("more", content)
        await self.put("less", b"less")
        await self.assert_reads("more", content)
        self.assertEqual(len(self.shards(content)), 5)
        self.node(3).unlink()
        await self.assert_mended()
        await self.until(lambda: len(self.shards(content)) == 6, "the sixth shard")
        await self.until(lambda: len(self.shards(b"less")) == 6, "the sixth shard")

    async def test_two_unusable(self) -> None:
        """With two nodes away reads are exact; a write needs five nodes: 503."""
        self.lose(1, 6)
        for number in (1, 6):
            self.node(number).write_bytes(b"not a folder")
        await self.assert_right()
        for content in (b"small", some_bytes(3 << 20)):
            answer = await self.ask("PUT", "/objects/new", (), content)
            self.assert_problem(answer, 503)
            self.assertIsNotNone(answer.get("retry-after"))
        self.assertEqual(await self.numbers("new"), [])
        await self.until(lambda: not self.temporaries(), "temp/ empty")

    async def test_emptied(self) -> None:
        """Only objects/ of two nodes deleted: exact, and mended."""
        for number in (1, 2):
            shutil.rmtree(self.node(number) / "objects")
        await self.assert_right()
        await self.assert_mended()


class FileTests(LossCase):
    """Single shard files gone or changed."""

    async def test_lost_and_overwritten(self) -> None:
        """One file deleted and one overwritten: exact, and both are back."""
        self.shard(SMALL, 0).unlink()
        self.shard(SMALL, 1).write_bytes(b"some_garbage")
        await self.assert_right()
        await self.assert_mended()

    async def test_paced(self) -> None:
        """Repairs take their steps from the bucket of all maintenance."""
        await self.fall()
        taken: list[float] = []
        real = Pace.take

        async def take(pace: Pace, steps: float, *, urgent: bool = False) -> None:
            taken.append(steps)
            await real(pace, steps, urgent=urgent)

        self.patch(Pace, "take", take)
        await self.rise()
        self.shard(LARGE, 1).unlink()
        await self.assert_right()
        await self.assert_mended()
        self.assertGreaterEqual(taken.count(1.25), STRIPES)

    async def test_lost_while_stopped(self) -> None:
        """A file deleted while the node was stopped comes back by a read."""
        await self.fall()
        self.shard(LARGE, 2).unlink()
        self.shard(SMALL, 5).unlink()
        await self.rise()
        await self.assert_right()
        await self.assert_mended()

    async def test_three_lost(self) -> None:
        """Three files gone: 503 and no bytes; put back, it is right after a start."""
        for content, name in ((SMALL, "small"), (LARGE, "large")):
            for index in (0, 2, 4):
                path = self.shard(content, index)
                path.rename(self.root / path.name)
            for _ in range(2):
                self.assert_problem(await self.get(name), 503)
            part = [("Range", "bytes=1-1")]
            self.assert_problem(await self.ask("GET", f"/objects/{name}", part), 503)
        await self.fall()
        for number, hashes in enumerate((sha256(SMALL), sha256(LARGE))):
            for path in sorted(self.root.glob(f"{hashes}.*"))[: 2 + number]:
                self.bring_back(path)
        await self.rise()
        await self.assert_right()
        await self.assert_mended()

    def bring_back(self, path: Path) -> None:
        """Into a node that lacks it."""
        hash = path.name.split(".")[0]
        number = next(n for n, paths in self.kept(hash).items() if not paths)
        path.rename(self.node(number) / "objects" / hash[:2] / path.name)

    async def test_every_byte(self) -> None:
        """Whatever byte of a shard file changes: reads are exact, the file is mended.

        Two files at a time, as many as may be lost.
        """
        spoils = list(SPOILS.items())
        for at in range(0, len(spoils), 2):
            for index, (what, spoil) in enumerate(spoils[at : at + 2], 1):
                path = self.shard(LARGE, index)
                data = bytearray(path.read_bytes())
                spoil(data)
                path.write_bytes(data)
                self.assertNotEqual(bytes(data), self.large[index], what)
            await self.read_until_whole()

    async def read_until_whole(self) -> None:
        """Read until the shards are as they were: a slow disk's rot may not be met."""
        for _ in range(TURNS):
            await self.assert_reads("large", LARGE)
            with contextlib.suppress(FileNotFoundError):
                if self.shards(LARGE) == self.large:
                    return
            await clock.sleep(0.005)
        self.fail("read in vain")

    async def test_two_rotten(self) -> None:
        """Two rotten blocks in one stripe are made up for by parity."""
        for index in (0, 3):
            self.spoil(index, flip(len(PROLOGUE) + FRAME + 1))
        await self.read_until_whole()

    async def test_more_rotten(self) -> None:
        """Every shard rotten, two in each stripe: all can be read still."""
        for index, stripe in enumerate((0, 0, 1, 1, 2, 2, 3, 3, 4, 4)):
            offset = len(PROLOGUE) + stripe * (FRAME + BLOCK) + FRAME
            self.spoil(index % 6, flip(offset))
        for _ in range(2):
            await self.assert_reads("large", LARGE)
            part = [("Range", "bytes=3000000-4000000")]
            answer = await self.ask("GET", "/objects/large", part)
            self.assertEqual(answer.status, 206)
            self.assertTrue(answer.body == LARGE[3000000:4000001], "the bytes differ")
            self.assertEqual((await self.ask("HEAD", "/objects/large")).status, 200)

    async def test_too_many_rotten(self) -> None:
        """Three in one stripe on the way: cut, and all before it was right."""
        for index in range(3):
            self.spoil(index, flip(len(PROLOGUE) + 2 * (FRAME + BLOCK) + FRAME))
        with self.assertRaises(Cut) as caught:
            await self.get("large")
        got = caught.exception.got
        self.assertGreater(len(got), 0)
        self.assertTrue(LARGE.startswith(got))

    async def test_three_rotten(self) -> None:
        """Three rotten blocks in one stripe: never wrong bytes with a normal end."""
        for index in range(3):
            self.spoil(index, flip(len(PROLOGUE) + FRAME + 1))
        self.assert_problem(await self.get("large"), 503)

    async def test_one_byte(self) -> None:
        """A range of one byte finds the rot in its stripe, and has it mended."""
        self.spoil(0, flip(-INDEX - 1))
        part = [("Range", f"bytes={len(LARGE) - 3}-{len(LARGE) - 3}")]
        answer = await self.ask("GET", "/objects/large", part)
        self.assertEqual((answer.status, answer.body), (206, LARGE[-3:-2]))
        await self.until_whole(LARGE, self.large)

    async def test_one_byte_of_a_lost_one(self) -> None:
        """So it does with a file that is gone."""
        self.shard(LARGE, 3).unlink()
        answer = await self.ask("GET", "/objects/large", [("Range", "bytes=0-0")])
        self.assertEqual((answer.status, answer.body), (206, LARGE[:1]))
        await self.until_whole(LARGE, self.large)

    async def test_aborted(self) -> None:
        """A client that leaves after the first bytes does not stop the repair."""
        self.shard(LARGE, 0).unlink()
        self.spoil(2, flip(len(PROLOGUE) + FRAME))
        connection = await self.connected()
        connection.ask("GET", "/objects/large")
        await connection.head()
        await connection.take(10)
        await connection.close()
        await self.until_whole(LARGE, self.large)

    async def test_known_content(self) -> None:
        """A PUT of a content with one rotten shard does not rely on that shard."""
        self.shard(SMALL, 0).unlink()
        self.shard(SMALL, 1).write_bytes(b"some_garbage")
        await self.put("other", SMALL)
        await self.until_whole(SMALL, self.small)
        await self.assert_reads("other", SMALL)

    async def test_strangers(self) -> None:
        """Files that are not ours harm neither a start nor a read, and stay."""
        strange = [
            self.node(1) / "objects" / "README",
            self.node(1) / "objects" / sha256(SMALL)[:2] / "x",
            self.node(2) / "objects" / sha256(SMALL)[:2] / f"{sha256(SMALL)}.99.zz",
        ]
        await self.fall()
        for path in strange:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"strange")
        await self.rise()
        await self.assert_right()
        for path in strange:
            self.assertEqual(path.read_bytes(), b"strange")

    async def test_racing(self) -> None:
        """Many reads of what lacks two shards end in six shards, not in more."""
        self.shard(LARGE, 0).unlink()
        self.shard(LARGE, 4).unlink()
        for outcome in await gather(self.assert_right() for _ in range(6)):
            self.assertIsNone(outcome)
        await self.assert_mended()

    def spoil(self, index: int, how: Spoil) -> None:
        """Change the file of one shard of the large object."""
        path = self.shard(LARGE, index)
        data = bytearray(path.read_bytes())
        how(data)
        path.write_bytes(data)
