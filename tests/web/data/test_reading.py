"""Shards as their readers see them: right bytes, an error, or a cut connection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.nodes.protocol import FRAMES
from ostore.backends.shards.files import Files
from ostore.erasure.framing import FRAME_HEADER, FrameParser
from ostore.erasure.geometry import Buffer, Geometry
from ostore.erasure.shardfile import PROLOGUE
from tests.contracts.shards import Sample, put, sample
from tests.erasure.cases import content, open_file, shard_file, small_stripes
from tests.support.http import Cut
from tests.web.data.serving import ServedNode, shard_target, stream

ONE = sample(1, 50_000, stripe=20_000)
RECUT = sample(1, 50_000, stripe=30_000)
LARGE = sample(2, 64 << 20, data=1)


def whole(one: Sample) -> bytes:
    """The bare bytes of a shard."""
    return b"".join(bytes(frame.block) for frame in one.frames)


class OffsetTests(SynchronousTestCase):
    """Where blocks lie among the bare bytes of a shard."""

    @settings(deadline=None, max_examples=60)
    @given(st.integers(0, 400), st.integers(1, 5), st.integers(1, 90))
    def test_as_a_naive_sum(self, size: int, k: int, stripe: int) -> None:
        """The offset of a block is the sum of those before it."""
        coded = small_stripes(content(size), Geometry(k, 1), stripe)
        _, index = open_file(shard_file(coded, k))
        expected = 0
        for number, frame in enumerate(coded.shards[k]):
            self.assertEqual(index.block_offset(number), expected)
            expected += len(frame.block)
        self.assertEqual(index.block_offset(len(index)), expected)
        self.assertRaises(IndexError, index.block_offset, len(index) + 1)


class BareTests(ServedNode):
    """`GET /objects/{hash}.{i}`: the blocks one behind the other."""

    async def test_whole(self) -> None:
        """All of them, with their length and layout."""
        await put(self.node.store, ONE)
        for target in (
            shard_target(ONE),
            f"{shard_target(ONE)}?layout={ONE.key.layout}",
        ):
            answer = await self.ask("GET", target)
            self.assertEqual((answer.status, answer.body), (200, whole(ONE)))
            self.assertEqual(answer.get("content-type"), "application/octet-stream")
            self.assertEqual(answer.get("accept-ranges"), "bytes")
            self.assertEqual(answer.get("x-ostore-layout"), ONE.layout.header())
            head = await self.ask("HEAD", target)
            self.assertEqual(head.get("content-length"), "12500")
            self.assertEqual((head.status, head.body), (200, b""))

    async def test_empty(self) -> None:
        """A shard without frames is empty, and has no range."""
        empty = sample(4, 0)
        await put(self.node.store, empty)
        for headers in ({}, {"Accept": FRAMES}):
            answer = await self.ask("GET", shard_target(empty), headers)
            self.assertEqual((answer.status, answer.body), (200, b""))
        answer = await self.ask("GET", shard_target(empty), {"Range": "bytes=0-"})
        self.assert_problem(answer, 416, "range-not-satisfiable")
        self.assertEqual(answer.get("content-range"), "bytes */0")

    async def test_ranges(self) -> None:
        """Single ranges as RFC 9110 has them, across the borders of blocks."""
        await put(self.node.store, ONE)
        data = whole(ONE)
        for text, first, stop in (
            ("0-0", 0, 1),
            ("0-", 0, 12_500),
            ("4999-5000", 4999, 5001),
            ("5000-9999", 5000, 10_000),
            ("4990-10010", 4990, 10_011),
            ("-1", 12_499, 12_500),
            ("-99999", 0, 12_500),
            ("12499-99999", 12_499, 12_500),
        ):
            answer = await self.ask(
                "GET", shard_target(ONE), {"Range": f"bytes={text}"}
            )
            self.assertEqual(answer.status, 206)
            self.assertEqual(answer.body, data[first:stop])
            shown = f"bytes {first}-{stop - 1}/12500"
            self.assertEqual(answer.get("content-range"), shown)
        for text in ("bytes=12500-", "bytes=-0"):
            answer = await self.ask("GET", shard_target(ONE), {"Range": text})
            self.assert_problem(answer, 416, "range-not-satisfiable")
            self.assertEqual(answer.get("content-range"), "bytes */12500")
        for text in ("bytes=5-4", "lines=0-1", "bytes=0-1,3-4", "x"):
            answer = await self.ask("GET", shard_target(ONE), {"Range": text})
            self.assertEqual((answer.status, answer.body), (200, data))

    async def test_head_has_no_range(self) -> None:
        """HEAD tells of the whole."""
        await put(self.node.store, ONE)
        head = await self.ask("HEAD", shard_target(ONE), {"Range": "bytes=0-1"})
        self.assertEqual((head.status, head.get("content-length")), (200, "12500"))

    async def test_newest_layout(self) -> None:
        """Without a layout the one renewed last is read."""
        for older, newer in ((ONE, RECUT), (RECUT, ONE)):
            await put(self.node.store, older, age=500)
            await put(self.node.store, newer, age=100)
            await self.node.store.renew(newer.key.hash, newer.key.layout)
            answer = await self.ask("GET", shard_target(ONE))
            self.assertEqual(answer.get("x-ostore-layout"), newer.layout.header())
            self.assertEqual(answer.body, whole(newer))
            self.moved += 1000

    async def test_missing(self) -> None:
        """An unknown hash, index or layout is 404."""
        await put(self.node.store, ONE)
        for target in (
            "/objects/" + "ab" * 32 + ".0",
            f"/objects/{ONE.key.hash}.1",
            f"{shard_target(ONE)}?layout={'0' * 32}",
        ):
            for suffix in ("", "?part=index", "?stripes=0-0"):
                sent = target + (suffix.replace("?", "&") if "?" in target else suffix)
                answer = await self.ask("GET", sent, {"Accept": FRAMES})
                self.assert_problem(answer, 404, "shard-missing")


class FrameTests(ServedNode):
    """The same with `Accept: application/x-ostore-frames`."""

    async def test_stripes(self) -> None:
        """The frames of the stripes asked for, both ends included."""
        await put(self.node.store, ONE)
        for query, first, stop in (
            ("", 0, 3),
            ("?stripes=0-0", 0, 1),
            ("?stripes=1-2", 1, 3),
            ("?stripes=2-9999999999", 2, 3),
            ("?stripes=3-4", 3, 3),
        ):
            accept = {"Accept": f"text/html, {FRAMES.upper()};q=1"}
            answer = await self.ask("GET", shard_target(ONE) + query, accept)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.get("content-type"), FRAMES)
            self.assertEqual(answer.body, stream(ONE.frames[first:stop]))
            parser = FrameParser(first)
            self.assertEqual(len(parser.feed(answer.body)), stop - first)
            head = await self.ask("HEAD", shard_target(ONE) + query, accept)
            self.assertEqual(head.get("content-length"), str(len(answer.body)))

    async def test_stripes_of_bare_bytes(self) -> None:
        """Stripes are asked of frames alone."""
        await put(self.node.store, ONE)
        answer = await self.ask("GET", f"{shard_target(ONE)}?stripes=0-0")
        self.assert_problem(answer, 400, "malformed")


class RotTests(ServedNode):
    """Bytes that are not what they were."""

    async def rotten(self, number: int) -> Path:
        """The shard with one bit changed in a block."""
        await put(self.node.store, ONE)
        (path,) = self.root.glob("objects/*/*")
        data = bytearray(path.read_bytes())
        frame = FRAME_HEADER.size + 5000
        data[len(PROLOGUE) + number * frame + FRAME_HEADER.size] ^= 1
        path.write_bytes(data)
        return path

    async def test_first_block(self) -> None:
        """Found before the first byte is out: an error, told to the wiring."""
        for headers in ({}, {"Accept": FRAMES}, {"Range": "bytes=7-8"}):
            await self.rotten(0)
            answer = await self.ask("GET", shard_target(ONE), headers)
            self.assert_problem(answer, 410, "shard-rotten")
            self.assertEqual(self.found_rotten.pop(), ONE.key)
            await self.gone()

    async def test_later_block(self) -> None:
        """Found while it is sent: the connection is cut behind right bytes."""
        for headers, right in (
            ({}, whole(ONE)[:10_000]),
            ({"Accept": FRAMES}, stream(ONE.frames[:2])),
            ({"Range": "bytes=4990-12000"}, whole(ONE)[4990:10_000]),
        ):
            await self.rotten(2)
            with self.assertRaises(Cut) as cut:
                await self.ask("GET", shard_target(ONE), headers)
            self.assertTrue(right.startswith(cut.exception.got), headers)
            await self.until(lambda: self.site.in_flight == 0)
            self.assertEqual(self.found_rotten.pop(), ONE.key)
            await self.gone()

    async def gone(self) -> None:
        """The shard counts as absent from now on, everywhere."""
        layout = f"?layout={ONE.key.layout}"
        answer = await self.ask("GET", f"/objects/{ONE.key.hash}")
        self.assertEqual(answer.json(), {"state": "none", "shards": []})
        answer = await self.ask("GET", shard_target(ONE))
        self.assert_problem(answer, 404, "shard-missing")
        answer = await self.ask("GET", shard_target(ONE) + layout)
        self.assert_problem(answer, 410, "shard-rotten")
        self.found_rotten.clear()
        self.assertEqual(self.open_below(), [])

    async def test_outside_the_range(self) -> None:
        """A range reads and checks its own blocks alone."""
        await self.rotten(2)
        answer = await self.ask("GET", shard_target(ONE), {"Range": "bytes=0-9999"})
        self.assertEqual((answer.status, answer.body), (206, whole(ONE)[:10_000]))

    async def test_marked_bad(self) -> None:
        """With `bad=1` what is right of a shard that is marked bad can be had."""
        await self.rotten(2)
        await self.node.store.mark_bad(ONE.key)
        layout, accept = f"?layout={ONE.key.layout}", {"Accept": FRAMES}
        answer = await self.ask("GET", shard_target(ONE) + layout, accept)
        self.assert_problem(answer, 410, "shard-rotten")
        target = f"{shard_target(ONE)}{layout}&bad=1"
        answer = await self.ask("GET", f"{target}&stripes=0-1", accept)
        self.assertEqual(answer.body, stream(ONE.frames[:2]))
        answer = await self.ask("GET", f"{target}&part=index")
        self.assertEqual(answer.status, 200)
        answer = await self.ask("GET", target, {"Range": "bytes=0-9999"})
        self.assertEqual((answer.status, answer.body), (206, whole(ONE)[:10_000]))
        answer = await self.ask("GET", f"{target}&stripes=2-2", accept)
        self.assert_problem(answer, 410, "shard-rotten")
        answer = await self.ask("GET", f"{shard_target(ONE)}{layout}&bad=0")
        self.assert_problem(answer, 400, "malformed")
        self.assertEqual(self.node.store.rotten, 1)

    async def test_footer(self) -> None:
        """A file that is no shard any more is 410, or simply not there."""
        await put(self.node.store, ONE)
        (path,) = self.root.glob("objects/*/*")
        path.write_bytes(b"x" * 5000)
        layout = f"?layout={ONE.key.layout}"
        answer = await self.ask("GET", shard_target(ONE) + layout)
        self.assert_problem(answer, 410, "shard-rotten")
        self.assertEqual(self.found_rotten, [ONE.key])
        await self.gone()


class ColdFiles(Files):
    """Nothing lies in the page cache; counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        """Never."""
        return None

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """The bytes, counted."""
        self.read += length
        return super().pread(fd, length, offset)


class PressureTests(ServedNode):
    """Back-pressure from the socket to the disk."""

    def files(self) -> Files:
        """The file seam, which counts."""
        self.counted = ColdFiles()
        return self.counted

    async def begun(self, headers: dict[str, str]) -> Callable[[], int]:
        """A reader who takes nothing of a large shard; counts what is read for it."""
        connection = await self.connected()
        before = self.counted.read
        connection.ask(
            "GET", shard_target(LARGE), self.signed("GET", shard_target(LARGE), headers)
        )
        connection.pause()
        await self.until(lambda: self.counted.read > before + (1 << 20))
        return lambda: self.counted.read - before

    async def settled(self, count: Callable[[], int]) -> int:
        """What it counts once it counts no further."""
        seen = [-1, count()]
        while seen[-1] != seen[-2]:
            for _ in range(50):
                await self.clock.sleep(0.001)
            seen.append(count())
        return seen[-1]

    async def test_slow_reader(self) -> None:
        """A reader who takes nothing holds the disk; he gets all when he goes on."""
        await put(self.node.store, LARGE)
        for headers, expected in (
            ({}, whole(LARGE)),
            ({"Accept": FRAMES}, stream(LARGE.frames)),
        ):
            read = await self.begun(headers)
            (channel,) = self.site.connections
            ahead = await self.settled(read) - channel.requests[0].reply.sent
            self.assertLess(ahead, 3 << 20)
            self.assertLess(read(), 32 << 20)
            connection = self.connections[-1]
            connection.resume()
            answer = await connection.answer()
            self.assertTrue(answer.body == expected)
            await connection.close()
            await self.until(lambda: not self.site.connections)

    async def test_vanished_reader(self) -> None:
        """A reader who goes away leaves nothing open, and no more is read."""
        await put(self.node.store, LARGE)
        read = await self.begun({"Accept": FRAMES})
        await self.connections[-1].close()
        await self.until(lambda: self.site.in_flight == 0)
        await self.until(lambda: not self.open_below())
        self.assertLess(await self.settled(read), 32 << 20)
        self.assertFalse(self.lines[-1]["complete"])
        self.assertEqual(self.found_rotten, [])
