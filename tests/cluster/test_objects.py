"""What a user does first: store, read, read older versions, delete."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import ClassVar
from urllib.parse import quote

from tests.support.standalone import NODES, StandaloneCase, digest, sha256, some_bytes

FIRST = b"this is object test3"
SECOND = b"this is object test3 version 2"
FIRST_DIGEST = "GYqqAdFPt+CScnUDc0/Gcu3kwcWmOADKNYpiZtdbgsM="
SECOND_DIGEST = "cAPvsxZe1PR54zIESQy0BaxC1pYJIvaHSF3qEOZYYIo="
MANY_FIRST = "2IJQkIth94IVsnPQMrsNxz1oqfrsPo0E2ZmZfJLDZnE="
MANY_REST = "66WuRH0s0albWDZ9nTmjFo9JIqTTXmB6EiRkhTh1zeA="


def said(base64: str) -> tuple[tuple[str, str], ...]:
    """A Digest header."""
    return (("Digest", f"SHA-256={base64}"),)


class ObjectTests(StandaloneCase):
    """Objects and versions, with the bytes where they belong."""

    async def test_nothing_there(self) -> None:
        """A GET on an empty store is a 404."""
        self.assert_problem(await self.get("test"), 404)

    async def test_put_get(self) -> None:
        """What was PUT without a digest reads back, with its length and its hash."""
        content = b"this is a test object"
        made = await self.put("test", content)
        answer = await self.get("test")
        self.assertEqual((answer.status, answer.body), (200, content))
        self.assertEqual(answer.get("content-length"), "21")
        self.assertEqual(answer.get("etag"), f'"{sha256(content)}"')
        self.assertEqual(answer.get("digest"), digest(content)[1])
        self.assertEqual(made["hash"], digest(content)[1].removeprefix("SHA-256="))

    async def test_versions(self) -> None:
        """Versions count from 1, each is readable, a marker ends the name."""
        made = [
            await self.put("test3", FIRST, said(FIRST_DIGEST)),
            await self.put("test3", SECOND, said(SECOND_DIGEST)),
        ]
        self.assertEqual([each["version"] for each in made], [1, 2])
        await self.assert_reads("test3", SECOND)
        await self.assert_reads("test3", FIRST, 1)
        for hash in (FIRST_DIGEST, SECOND_DIGEST):
            located = await self.ask("GET", f"/locate/{quote(hash, safe='')}")
            self.assertEqual(located.status, 200)
            self.assertEqual(set(located.json()), set("012345"))
            self.assertEqual(
                set(located.json().values()), {f"nodes/{n}" for n in NODES}
            )
        gone = await self.ask("DELETE", "/objects/test3")
        self.assertEqual((gone.status, gone.json()["deleted"]), (200, True))
        answer = await self.get("test3")
        self.assert_problem(answer, 404)
        self.assertEqual(answer.get("x-ostore-delete-marker"), "true")
        lines = [
            (each["version"], each["size"], each["hash"])
            for each in await self.versions("test3")
        ]
        self.assertEqual(
            lines, [(1, 20, FIRST_DIGEST), (2, 30, SECOND_DIGEST), (3, 0, "")]
        )
        await self.assert_reads("test3", FIRST, 1)
        await self.assert_reads("test3", SECOND, 2)
        self.assert_problem(await self.get("test3", 3), 404)
        self.assert_problem(await self.get("test3", 4), 404)

    async def test_delete_twice(self) -> None:
        """DELETE of what is absent or deleted is a 404 and adds nothing."""
        self.assert_problem(await self.ask("DELETE", "/objects/x"), 404)
        await self.put("x", b"1")
        self.assertEqual((await self.ask("DELETE", "/objects/x")).status, 200)
        self.assert_problem(await self.ask("DELETE", "/objects/x"), 404)
        self.assertEqual(await self.numbers("x"), [1, 2])
        await self.put("x", b"2")
        self.assertEqual(await self.numbers("x"), [1, 2, 3])
        await self.assert_reads("x", b"2")

    async def test_a_key_of_another_kind(self) -> None:
        """An Idempotency-Key of a PUT deletes nothing, that of a DELETE stores nothing."""
        for content in (FIRST, some_bytes(3 << 20)):
            put, gone = (("Idempotency-Key", "1"),), (("Idempotency-Key", "2"),)
            name = f"of{len(content)}"
            made = await self.put(name, content, put)
            answer = await self.ask("DELETE", f"/objects/{name}", put)
            self.assert_problem(answer, 409)
            await self.assert_reads(name, content)
            marker = await self.ask("DELETE", f"/objects/{name}", gone)
            for method in ("PUT", "POST"):
                answer = await self.ask(method, f"/objects/{name}", gone, content[:9])
                self.assert_problem(answer, 409)
                self.assertIn("Idempotency-Key", answer.json()["detail"])
            self.assertEqual(await self.put(name, content, put), made)
            again = await self.ask("DELETE", f"/objects/{name}", gone)
            self.assertEqual(again.json(), marker.json())
            self.assertEqual(await self.numbers(name), [1, 2])

    async def test_purge(self) -> None:
        """Purging the newest lets the one below show; a number is never used twice."""
        for content in (b"1", b"2", b"3"):
            await self.put("x", content)
        purged = await self.ask("DELETE", "/objects/x?version=3")
        self.assertEqual((purged.status, purged.body), (204, b""))
        await self.assert_reads("x", b"2")
        self.assert_problem(await self.get("x", 3), 404)
        self.assert_problem(await self.ask("DELETE", "/objects/x?version=3"), 404)
        self.assertEqual((await self.put("x", b"4"))["version"], 4)
        self.assertEqual(await self.numbers("x"), [1, 2, 4])

    async def test_same_content(self) -> None:
        """A second name for the same content adds a version and no file."""
        content = b"this object will have only 1 instance"
        await self.put("test4_1", content, [digest(content)])
        before = self.objects()
        self.assertEqual(len(before), 6)
        await self.put("test4_2", content, [digest(content)])
        self.assertEqual(self.objects(), before)
        for name in ("test4_1", "test4_2"):
            await self.assert_reads(name, content)
            lines = await self.versions(name)
            self.assertEqual([(v["version"], v["size"]) for v in lines], [(1, 37)])
            self.assertEqual(b64decode(lines[0]["hash"]).hex(), sha256(content))
        located = await self.ask("GET", f"/locate/{sha256(content)}")
        self.assertEqual(located.status, 200)

    async def test_same_large_content(self) -> None:
        """A large content goes through temporaries, and leaves none when it is known."""
        content = some_bytes((3 << 20) + 1)
        await self.put("a", content)
        before = self.shards(content)
        await self.put("b", content)
        self.assertEqual(len(self.objects()), 6)
        self.assertEqual(self.shards(content), before)
        self.assertEqual(self.temporaries(), [])
        await self.assert_reads("b", content)

    async def test_six_shards(self) -> None:
        """A content becomes six shards, one a node, numbered 0 to 5."""
        content = b"this object will be separate to 4+2 shards"
        await self.put("test5", content)
        self.assertEqual([len(each) for each in self.lying().values()], [1] * 6)
        self.assertEqual(set(self.shards(content)), set(range(6)))
        await self.assert_reads("test5", content)

    async def test_six_versions(self) -> None:
        """Six versions of two contents are twelve files."""
        first = b"this is object test8 version 1"
        rest = b"this is object test8 version 2-6"
        await self.put("test8", first, said(MANY_FIRST))
        for _ in range(5):
            await self.put("test8", rest, said(MANY_REST))
        self.assertEqual(await self.numbers("test8"), [1, 2, 3, 4, 5, 6])
        await self.assert_reads("test8", rest)
        self.assertEqual(len(self.objects()), 12)

    async def test_sizes(self) -> None:
        """Sizes at the edges of blocks and stripes read back, whole and in part."""
        for size in (
            0,
            1,
            3,
            4,
            5,
            (1 << 20) - 1,
            1 << 20,
            (1 << 20) + 1,
            5 * 2**20 + 3,
        ):
            content = some_bytes(size)
            await self.put("x", content)
            await self.assert_reads("x", content)
            if size:
                answer = await self.ask(
                    "GET", "/objects/x", [("Range", f"bytes={size // 2}-{size - 1}")]
                )
                self.assertEqual(answer.status, 206)
                self.assertTrue(answer.body == content[size // 2 :])

    async def test_chunked(self) -> None:
        """A body of unknown length is stored as one with a length."""
        content = some_bytes((1 << 20) + 7)
        connection = await self.connected()
        connection.ask("PUT", "/objects/x", [("Transfer-Encoding", "chunked")])
        for at in range(0, len(content), 300_000):
            piece = content[at : at + 300_000]
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
        self.assertEqual((await connection.answer()).status, 200)
        await self.assert_reads("x", content)

    async def test_names(self) -> None:
        """Any text is a name, and none of them is another's pattern or path."""
        names = (
            "a b", "a/b", "ab", "a", "*", "ab*", "a:b", "../../x", "%2F", '"', "ü/é",
            "a\\b", "?", "#", "n" * 1024, ".", "a//b", "/a",
        )  # fmt: skip
        for name in names:
            await self.put(name, name.encode())
        for name in names:
            await self.assert_reads(name, name.encode())
            self.assertEqual(await self.numbers(name), [1], name)
        listed = (await self.ask("GET", "/objects/")).json()["items"]
        self.assertEqual(
            [each["name"] for each in listed], sorted(names, key=str.encode)
        )

    async def test_restart(self) -> None:
        """Everything is there after a stop and a start."""
        small, large = b"small", some_bytes((2 << 20) + 1)
        await self.put("small", small)
        await self.put("large", large)
        await self.fall()
        await self.rise()
        await self.assert_reads("small", small)
        await self.assert_reads("large", large)
        self.assertEqual((await self.put("small", b"2"))["version"], 2)


class RequireDigestTests(StandaloneCase):
    """With require-digest every write has to bear one."""

    options: ClassVar = {"require-digest": "on"}

    async def test_refused(self) -> None:
        """A PUT or POST without Digest is a 400 and makes no version."""
        for method in ("PUT", "POST"):
            answer = await self.ask(method, "/objects/test3", (), FIRST)
            self.assert_problem(answer, 400)
        self.assertEqual(await self.versions(), [])
        self.assertEqual(self.objects(), [])

    async def test_accepted(self) -> None:
        """With it, the write goes through; RFC 9530's form counts as well."""
        await self.put("test3", FIRST, said(FIRST_DIGEST))
        raw = b64encode(bytes.fromhex(sha256(SECOND))).decode()
        await self.put("test3", SECOND, [("Content-Digest", f"sha-256=:{raw}:")])
        await self.assert_reads("test3", SECOND)
