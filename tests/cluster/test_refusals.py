"""A write that fails leaves nothing: no file, no row."""

from __future__ import annotations

from tests.support.http import Cut
from tests.support.standalone import StandaloneCase, clock, digest, some_bytes

LARGE = some_bytes(5 * 2**20 + 3)


class RefusalTests(StandaloneCase):
    """Everything or nothing."""

    async def assert_nothing(self) -> None:
        """No shard, no temporary, no version; and the next PUT works."""
        await self.until(lambda: not self.temporaries(), "temp/ empty")
        self.assertEqual(self.objects(), [])
        self.assertEqual(await self.versions(), [])
        self.assertEqual((await self.put("x", b"fine"))["version"], 1)

    async def test_malformed_digest(self) -> None:
        """A digest that is none is refused before the body."""
        answer = await self.ask(
            "PUT", "/objects/x", [("Digest", "SHA-256=incorrecthash")], b"anything"
        )
        self.assert_problem(answer, 400)
        await self.assert_nothing()

    async def test_wrong_digest_small(self) -> None:
        """A small body that differs from its digest stores nothing."""
        answer = await self.ask("PUT", "/objects/x", [digest(b"other")], b"body")
        self.assert_problem(answer, 400)
        await self.assert_nothing()

    async def test_wrong_digest_large(self) -> None:
        """Nor does a large one, whose shards lay in temporaries already."""
        answer = await self.ask("PUT", "/objects/x", [digest(b"other")], LARGE)
        self.assert_problem(answer, 400)
        await self.assert_nothing()

    async def test_wrong_digest_known(self) -> None:
        """A known content under a wrong digest is refused too, and stays."""
        await self.put("y", LARGE)
        before = self.objects()
        answer = await self.ask("PUT", "/objects/x", [digest(b"other")], LARGE)
        self.assert_problem(answer, 400)
        self.assertEqual(self.objects(), before)
        self.assertEqual(await self.numbers("x"), [])
        await self.assert_reads("y", LARGE)

    async def test_client_gone(self) -> None:
        """A client that vanishes in the midst of a body leaves nothing."""
        connection = await self.connected()
        connection.ask("PUT", "/objects/x", [("Content-Length", str(len(LARGE)))])
        connection.send(LARGE[: 4 << 20])
        await self.until(lambda: len(self.temporaries()) == 6, "six temporaries")
        await connection.close()
        await self.assert_nothing()

    async def test_client_gone_small(self) -> None:
        """So does one whose body is shorter than its Content-Length."""
        connection = await self.connected()
        connection.ask("PUT", "/objects/x", [("Content-Length", "100")])
        connection.send(b"fifty")
        await clock.sleep(0)
        await connection.close()
        await self.assert_nothing()

    async def test_cut_chunked(self) -> None:
        """A chunked body without its end is no body."""
        connection = await self.connected()
        connection.ask("PUT", "/objects/x", [("Transfer-Encoding", "chunked")])
        connection.send(b"5\r\nhello\r\n")
        await clock.sleep(0)
        await connection.close()
        await self.assert_nothing()

    async def test_longer_than_said(self) -> None:
        """Bytes beyond Content-Length are no part of the body; the digest tells."""
        body = b"0123456789 and more\r\n\r\n"
        connection = await self.connected()
        headers = [("Content-Length", "10"), digest(body)]
        connection.ask("PUT", "/objects/x", headers)
        connection.send(body)
        self.assert_problem(await connection.answer(), 400)
        self.assertEqual((await connection.head()).status, 400)
        await connection.ended()
        await self.assert_nothing()

    async def test_condition(self) -> None:
        """A condition that does not hold is told, and changes nothing."""
        await self.put("x", b"1")
        answer = await self.ask("PUT", "/objects/x", [("If-None-Match", "*")], b"2")
        self.assert_problem(answer, 412)
        answer = await self.ask("PUT", "/objects/x", [("If-Match", '"00"')], b"2")
        self.assert_problem(answer, 412)
        self.assert_problem(await self.ask("POST", "/objects/x", (), b"2"), 409)
        self.assertEqual(await self.numbers("x"), [1])
        self.assertEqual(len(self.objects()), 6)

    async def test_empty_name(self) -> None:
        """An empty name and one over 1024 bytes are refused."""
        for name in ("", "n" * 1025, "a%00b", "%ff"):
            answer = await self.ask("PUT", f"/objects/{name}", (), b"x")
            self.assertIn(answer.status, (400, 405), name)
        await self.assert_nothing()

    async def test_reader_gone(self) -> None:
        """A reader that vanishes harms nobody, and no file stays open for it."""
        await self.put("x", LARGE)
        connection = await self.connected()
        connection.ask("GET", "/objects/x")
        await connection.head()
        await connection.take(1000)
        await connection.close()
        with self.assertRaises(Cut):
            await connection.take(len(LARGE))
        await self.assert_reads("x", LARGE)
