"""Temporaries as their writers see them."""

from __future__ import annotations

import hashlib

from ostore.backends.nodes.protocol import FRAMES, digest_header
from ostore.backends.shards import temporaries
from ostore.backends.shards.plain import HEAD
from ostore.model.layouts import ShardKey
from tests.backends.test_shards_temporaries import plain_layout
from tests.contracts.shards import blocks, put, sample
from tests.web.data.serving import (
    ServedNode,
    StalledWorkers,
    digest_of,
    shard_target,
    stream,
)

ONE = sample(1, 50_000, stripe=20_000)
PLAIN = "application/octet-stream"
HASH = "ab" * 32


class CreateTests(ServedNode):
    """`POST /temp/{any name}`."""

    async def test_created(self) -> None:
        """The uuid is the body; name and size are the asker's business."""
        for name in ("x", "a%20name", "%C3%A4", "8" * 32, "a.jpg", "a" * 900):
            answer = await self.ask("POST", f"/temp/{name}", {"Size": "12"})
            self.assertEqual(answer.status, 201)
            uuid = answer.body.decode("ascii")
            self.assertRegex(uuid, r"\A[0-9a-f]{32}\Z")
            self.assertEqual(answer.get("location"), f"/temp/{uuid}")
            self.assertTrue((self.temp / uuid).exists())
        self.assertEqual(len(list(self.temp.iterdir())), 6)

    async def test_chosen(self) -> None:
        """With `uuid` the asker chooses; a second time it is taken."""
        self.assertEqual(await self.create(f"?uuid={'7' * 32}"), "7" * 32)
        answer = await self.ask("POST", f"/temp/x?uuid={'7' * 32}")
        self.assert_problem(answer, 409, "node-refused")
        self.assertEqual(len(self.node.store.temporaries), 1)

    async def test_most(self) -> None:
        """A node that holds too many says so."""
        self.patch_most(2)
        for _ in range(2):
            await self.create()
        self.assert_problem(await self.ask("POST", "/temp/x"), 503, "node-unreachable")

    def patch_most(self, most: int) -> None:
        """Another limit for this test."""
        before = temporaries.MOST
        temporaries.MOST = most
        self.addCleanup(setattr, temporaries, "MOST", before)

    async def test_full(self) -> None:
        """A node without room takes no new ones."""
        self.node._root.full = True
        self.assert_problem(await self.ask("POST", "/temp/x"), 507, "node-full")


class FramedTests(ServedNode):
    """A shard in frames, written over several requests."""

    async def test_whole_story(self) -> None:
        """Created, written in two parts, committed: it is a shard with those frames."""
        uuid = await self.create()
        first = await self.patch(uuid, 0, stream(ONE.frames[:1]))
        self.assertEqual((first.status, first.get("upload-offset")), (204, "5000"))
        second = await self.patch(uuid, 5000, stream(ONE.frames[1:]))
        self.assertEqual((second.status, second.get("upload-offset")), (204, "12500"))
        done = await self.commit(
            uuid, ONE.key, ONE.layout.header(), digest_of(ONE.frames)
        )
        self.assertEqual(done.status, 201, done.body)
        self.assertEqual(done.get("x-ostore-layout"), ONE.layout.header())
        answer = await self.ask("GET", shard_target(ONE), {"Accept": FRAMES})
        self.assertEqual(answer.body, stream(ONE.frames))
        self.assertEqual(list(self.temp.iterdir()), [])
        self.assert_problem(await self.ask("GET", f"/temp/{uuid}"), 404, "not-found")

    async def test_held(self) -> None:
        """HEAD tells the bytes of blocks held, GET gives them."""
        uuid = await self.create()
        for count in range(len(ONE.frames) + 1):
            held = b"".join(bytes(frame.block) for frame in ONE.frames[:count])
            head = await self.ask("HEAD", f"/temp/{uuid}")
            self.assertEqual(head.status, 200)
            self.assertEqual(head.get("content-length"), str(len(held)))
            self.assertEqual(head.get("upload-offset"), str(len(held)))
            got = await self.ask("GET", f"/temp/{uuid}")
            self.assertEqual((got.status, got.body), (200, held))
            self.assertEqual(got.get("upload-offset"), str(len(held)))
            await self.patch(uuid, len(held), stream(ONE.frames[count : count + 1]))

    async def test_cut_body(self) -> None:
        """Of a body that is cut the whole frames are kept; the rest can follow."""
        uuid = await self.create()
        headers = {"Upload-Offset": "0", "Content-Type": f"{FRAMES}; v=1"}
        target, body = f"/temp/{uuid}", stream(ONE.frames)
        connection = await self.connected()
        lines = self.signed("PATCH", target, headers)
        connection.ask("PATCH", target, [*lines, ("Content-Length", str(len(body)))])
        connection.send(body[:-1])
        temp = self.node.store.temporaries._known[uuid]
        await self.until(lambda: temp.draft.frames == 2)
        self.assert_problem(await self.patch(uuid, 10_000, body), 409, "node-refused")
        await connection.close()
        await self.until(lambda: not temp.busy)
        head = await self.ask("HEAD", target)
        self.assertEqual(head.get("upload-offset"), "10000")
        answer = await self.patch(uuid, 10_000, stream(ONE.frames[2:]))
        self.assertEqual(answer.status, 204)
        done = await self.commit(uuid, ONE.key, ONE.layout.header())
        self.assertEqual(done.status, 201)

    async def test_chunked(self) -> None:
        """A body without a length is taken until its end."""
        uuid = await self.create()
        headers = {"Upload-Offset": "0", "Content-Type": FRAMES}
        target, body = f"/temp/{uuid}", stream(ONE.frames)
        connection = await self.connected()
        lines = self.signed("PATCH", target, headers)
        connection.ask("PATCH", target, [*lines, ("Transfer-Encoding", "chunked")])
        for at in range(0, len(body), 1000):
            piece = body[at : at + 1000]
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
        answer = await connection.answer()
        self.assertEqual((answer.status, answer.get("upload-offset")), (204, "12500"))

    async def test_wrong_offset(self) -> None:
        """Another offset than the bytes held is told the real one."""
        uuid = await self.create()
        await self.patch(uuid, 0, stream(ONE.frames[:1]))
        for offset in (0, 4999, 5001, 2**62):
            answer = await self.patch(uuid, offset, stream(ONE.frames[1:]))
            self.assert_problem(answer, 409, "node-refused")
            self.assertEqual(answer.get("upload-offset"), "5000")
        self.assertEqual(self.node.store.temporaries.held(uuid), 5000)

    async def test_refused_before_the_body(self) -> None:
        """Who waits for 100 Continue is told what is wrong instead."""
        plain, framed = await self.create(size=99_999), await self.create()
        await self.patch(framed, 0, stream(ONE.frames[:1]))
        for uuid, offset, kind, status, slug in (
            (plain, 7, PLAIN, 409, "node-refused"),
            (framed, 5000, PLAIN, 409, "node-refused"),
            (plain, 0, PLAIN, 413, "shard-refused"),
            (plain, 0, PLAIN, 404, "not-found"),
        ):
            headers = {
                "Upload-Offset": str(offset),
                "Content-Type": kind,
                "Content-Length": "100000",
                "Expect": "100-continue",
            }
            connection = await self.connected()
            target = f"/temp/{uuid}"
            connection.ask("PATCH", target, self.signed("PATCH", target, headers))
            self.assert_problem(await connection.answer(), status, slug)

    async def test_bad_frames(self) -> None:
        """A rotten frame, or one out of turn, is refused; what stood before stays."""
        uuid = await self.create()
        await self.patch(uuid, 0, stream(ONE.frames[:1]))
        flipped = bytearray(stream(ONE.frames[1:2]))
        flipped[-1] ^= 1
        for body in (bytes(flipped), stream(ONE.frames[2:]), b"no frame" * 8):
            answer = await self.patch(uuid, 5000, body)
            self.assert_problem(answer, 400, "shard-refused")
        self.assertEqual(self.node.store.temporaries.held(uuid), 5000)

    async def test_too_long(self) -> None:
        """More than `Size` is 413, and the temporary is gone."""
        uuid = await self.create(size=12_499)
        answer = await self.patch(uuid, 0, stream(ONE.frames))
        self.assert_problem(answer, 413, "shard-refused")
        self.assert_problem(await self.ask("GET", f"/temp/{uuid}"), 404, "not-found")
        self.assertEqual(list(self.temp.iterdir()), [])
        uuid = await self.create(size=12_500)
        self.assertEqual((await self.patch(uuid, 0, stream(ONE.frames))).status, 204)

    async def test_refused_commits(self) -> None:
        """A commit that says something else names nothing; the right one follows."""
        uuid = await self.create()
        await self.patch(uuid, 0, stream(ONE.frames))
        right = ONE.layout.header()
        wrong_digest = digest_header(bytes(32))
        other = ShardKey(ONE.key.hash, 6, ONE.key.layout)
        for key, layout, digest, query in (
            (ONE.key, right, wrong_digest, ""),
            (ONE.key, right.replace("size=50000", "size=50001"), None, ""),
            (ONE.key, right[:-32] + "0" * 32, None, ""),
            (other, right, None, ""),
            (ONE.key, right, None, "&deadline=1"),
        ):
            answer = await self.commit(uuid, key, layout, digest, query)
            self.assert_problem(answer, 400, "shard-refused")
        for layout, digest, query in (
            ("", None, ""),
            ("k=0; m=2; size=5", None, ""),
            ("k=30; m=3; size=5", None, ""),
            (right.partition("; id")[0], None, ""),
            (right, "MD5=abc", ""),
            (right, None, "&age=x"),
            (right, None, "&age=-1"),
            (right, None, "&age=1000000000"),
            (right, None, "&deadline=1.5"),
        ):
            answer = await self.commit(uuid, ONE.key, layout, digest, query)
            self.assert_problem(answer, 400, "malformed")
        self.assertEqual(list(self.root.glob("objects/*/*")), [])
        late = int(self.clock.wall() * 1000) + 60_000
        query = f"&deadline={late}&age=70.5"
        answer = await self.commit(uuid, ONE.key, right, digest_of(ONE.frames), query)
        self.assertEqual(answer.status, 201, answer.body)
        (facts,) = (await self.node.store.find(ONE.key.hash)).shards
        self.assertLess(abs(facts.age - 70.5), 20)

    async def test_stands_already(self) -> None:
        """Naming is create-only: a whole shard of that name is renewed, also 201."""
        await put(self.node.store, ONE, age=9000)
        uuid = await self.create()
        await self.patch(uuid, 0, stream(ONE.frames))
        answer = await self.commit(uuid, ONE.key, ONE.layout.header())
        self.assertEqual(answer.status, 201)
        (facts,) = (await self.node.store.find(ONE.key.hash)).shards
        self.assertLess(facts.age, 60)
        self.assertEqual(list(self.temp.iterdir()), [])

    async def test_empty_content(self) -> None:
        """A shard of an empty content needs no body at all."""
        empty = sample(4, 0)
        uuid = await self.create()
        digest = digest_of(())
        answer = await self.commit(uuid, empty.key, empty.layout.header(), digest)
        self.assertEqual(answer.status, 201)
        self.assertEqual(await blocks(self.node.store, empty.key), [])

    async def test_removed(self) -> None:
        """DELETE is 204, whether there was one or not."""
        uuid = await self.create()
        await self.patch(uuid, 0, stream(ONE.frames))
        for _ in range(2):
            answer = await self.ask("DELETE", f"/temp/{uuid}")
            self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(list(self.temp.iterdir()), [])

    async def test_unknown(self) -> None:
        """What is not there is 404."""
        target = "/temp/" + "9" * 32
        self.assert_problem(await self.ask("GET", target), 404, "not-found")
        self.assertEqual((await self.ask("HEAD", target)).status, 404)
        answer = await self.patch("9" * 32, 0, b"x")
        self.assert_problem(answer, 404, "not-found")
        answer = await self.commit("9" * 32, ONE.key, ONE.layout.header())
        self.assert_problem(answer, 404, "not-found")


class PlainTests(ServedNode):
    """A shard in plain bytes."""

    async def test_whole_story(self) -> None:
        """Plain bytes are cut at the commit; the answer tells the layout's id."""
        size = (3 << 20) + 77
        data = hashlib.shake_128(b"plain").digest(3 * (1 << 18) + 20)
        uuid = await self.create(size=len(data))
        held = 0
        for piece in (data[:5], data[5:500_000], data[500_000:]):
            answer = await self.patch(uuid, held, piece, PLAIN)
            held += len(piece)
            self.assertEqual(answer.get("upload-offset"), str(held))
        got = await self.ask("GET", f"/temp/{uuid}")
        self.assertEqual(got.body, data)
        digest = digest_header(hashlib.sha256(data).digest())
        layout = plain_layout(size, 4, 2)
        key = ShardKey(HASH, 2, layout.id)
        answer = await self.commit(uuid, key, f"k=4; m=2; size={size}", digest)
        self.assertEqual(answer.status, 201, answer.body)
        self.assertEqual(answer.get("x-ostore-layout"), layout.header())
        got = await self.ask("GET", f"/objects/{HASH}.2")
        self.assertEqual(got.body, data)
        self.assertEqual(list(self.temp.iterdir()), [])

    async def test_cut_body(self) -> None:
        """Of a plain body that is cut everything that came is kept."""
        uuid = await self.create()
        target = f"/temp/{uuid}"
        connection = await self.connected()
        lines = self.signed("PATCH", target, {"Upload-Offset": "0"})
        connection.ask("PATCH", target, [*lines, ("Content-Length", "1000")])
        connection.send(b"x" * 999)
        temp = self.node.store.temporaries._known[uuid]
        await self.until(lambda: temp.plain == 999)
        await connection.close()
        await self.until(lambda: not temp.busy)
        answer = await self.patch(uuid, 999, b"y", PLAIN)
        self.assertEqual(answer.get("upload-offset"), "1000")
        got = await self.ask("GET", target)
        self.assertEqual(got.body, b"x" * 999 + b"y")

    async def test_kinds(self) -> None:
        """The first body decides; frames do not follow plain bytes, nor these frames."""
        uuid = await self.create()
        await self.patch(uuid, 0, b"", FRAMES)
        await self.patch(uuid, 0, b"12345", PLAIN)
        answer = await self.patch(uuid, 5, stream(ONE.frames))
        self.assert_problem(answer, 409, "node-refused")
        uuid = await self.create()
        await self.patch(uuid, 0, stream(ONE.frames[:1]))
        answer = await self.patch(uuid, 5000, b"12345", PLAIN)
        self.assert_problem(answer, 409, "node-refused")

    async def test_refused_commits(self) -> None:
        """Another length, digest or layout: 400, and the bytes are kept."""
        uuid = await self.create()
        await self.patch(uuid, 0, b"x" * 25, PLAIN)
        key = ShardKey(HASH, 0, "")
        right = digest_header(hashlib.sha256(b"x" * 25).digest())
        for layout, digest in (
            ("k=4; m=2; size=101", right),
            ("k=4; m=2; size=96", right),
            (f"k=4; m=2; size={2**63 - 1}", right),
            ("k=4; m=2; size=100", digest_header(bytes(32))),
            ("k=4; m=2; size=100; id=" + "1" * 32, right),
        ):
            answer = await self.commit(uuid, key, layout, digest)
            self.assert_problem(answer, 400, "shard-refused")
        self.assertEqual(self.node.store.temporaries.held(uuid), 25)
        self.assertEqual(self.node.shard_count, 0)
        self.assertEqual([path.name for path in self.temp.iterdir()], [uuid])
        answer = await self.commit(uuid, key, "k=4; m=2; size=100", right)
        self.assertEqual(answer.status, 201)


class PressureTests(ServedNode):
    """Back-pressure from the disk to the socket."""

    def workers(self) -> StalledWorkers:
        """Worker threads that the test can stall."""
        self.stalled = StalledWorkers(super().workers())
        return self.stalled

    async def test_slow_disk(self) -> None:
        """While the disk hangs, no more than 2 MiB of a body are taken in."""
        one = sample(5, 64 << 20)
        for kind, body in ((FRAMES, stream(one.frames)), (PLAIN, bytes(16 << 20))):
            uuid = await self.create()
            target = f"/temp/{uuid}"
            connection = await self.connected()
            headers = {"Upload-Offset": "0", "Content-Type": kind}
            lines = self.signed("PATCH", target, headers)
            connection.ask(
                "PATCH", target, [*lines, ("Content-Length", str(len(body)))]
            )
            await self.until(lambda: self.site.in_flight == 1)
            self.stalled.stall()
            connection.send(body)
            received = [-1, 0]
            (channel,) = self.site.connections
            request = channel.requests[0]
            while received[-1] != received[-2]:
                for _ in range(50):
                    await self.clock.sleep(0.001)
                received.append(request.body.received)
            self.assertGreater(received[-1], 0)
            self.assertLess(received[-1], 2 << 20)
            self.stalled.go_on()
            answer = await connection.answer()
            held = len(body) - 32 * len(one.frames) * (kind == FRAMES)
            self.assertEqual(answer.get("upload-offset"), str(held))
            await connection.close()
            await self.until(lambda: not self.site.connections)

    async def test_vanished_writer(self) -> None:
        """A writer that vanishes while the disk hangs leaves nothing open."""
        uuid = await self.create()
        target = f"/temp/{uuid}"
        connection = await self.connected()
        lines = self.signed("PATCH", target, {"Upload-Offset": "0"})
        connection.ask("PATCH", target, [*lines, ("Content-Length", "99999")])
        await self.until(lambda: self.site.in_flight == 1)
        self.stalled.stall()
        connection.send(b"x" * 5000)
        await self.until(lambda: self.stalled.waiting > 0)
        await connection.close()
        self.stalled.go_on()
        await self.until(lambda: self.site.in_flight == 0)
        self.assertEqual(self.open_below(), [])
        self.assertEqual(self.node.store.temporaries.held(uuid), 5000)

    async def test_stopped(self) -> None:
        """A stop that does not wait for a body keeps what came and closes the file."""
        uuid = await self.create()
        target = f"/temp/{uuid}"
        connection = await self.connected()
        lines = self.signed("PATCH", target, {"Upload-Offset": "0"})
        connection.ask("PATCH", target, [*lines, ("Content-Length", "99999")])
        connection.send(b"x" * 5000)
        temp = self.node.store.temporaries._known[uuid]
        await self.until(lambda: temp.plain == 5000)
        await self.site.drain(0.01)
        self.assertEqual(self.open_below(), [])
        self.assertFalse(temp.busy)
        self.assertEqual((self.temp / uuid).stat().st_size, 5000 + len(HEAD))
