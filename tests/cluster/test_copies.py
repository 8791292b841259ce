"""Copies between names, and reads of parts and codings, on the whole system."""

from __future__ import annotations

import gzip
import shutil

from tests.support.standalone import StandaloneCase, files_below, sha256, some_bytes

TEXT = b"a text of lines that repeat themselves\n" * 100_000
FROM = "X-Ostore-Copy-From"


class CopyTests(StandaloneCase):
    """`X-Ostore-Copy-From`."""

    def shard_files(self) -> int:
        """Files below objects/ of all nodes."""
        return sum(
            len(files_below(node / "objects"))
            for node in (self.root / "nodes").iterdir()
        )

    async def test_copy(self) -> None:
        """A copy has the content and the kept headers, and no shard of its own."""
        content = some_bytes(3_000_000, 1)
        kept = (("Content-Type", "text/x-test"), ("X-Ostore-Meta-A", "1"))
        await self.put("a b/c", content, kept)
        before = self.shard_files()
        lines = ((FROM, "a%20b/c"), ("X-Ostore-Meta-A", "2"))
        made = await self.ask("PUT", "/objects/copy", lines)
        self.assertEqual(made.status, 200, made.body)
        self.assertEqual(made.json()["size"], len(content))
        self.assertEqual(self.shard_files(), before)
        got = await self.get("copy")
        self.assertTrue(got.body == content)
        self.assertEqual(got.get("content-type"), "text/x-test")
        self.assertEqual(got.get("x-ostore-meta-a"), "2")

    async def test_versions(self) -> None:
        """A copy can be made of an older version, onto its own name too."""
        await self.put("a", b"one")
        await self.put("a", b"two")
        made = await self.ask("PUT", "/objects/a", ((FROM, "a?version=1"),))
        self.assertEqual((made.status, made.json()["version"]), (200, 3))
        self.assertEqual((await self.get("a")).body, b"one")

    async def test_refused(self) -> None:
        """Nothing to copy is 404, a wrong digest or a body 400: nothing is made."""
        await self.put("a", b"one")
        await self.put("gone", b"two")
        await self.ask("DELETE", "/objects/gone")
        other = ("Digest", "SHA-256=" + "A" * 43 + "=")
        for status, lines, body in (
            (404, ((FROM, "missing"),), None),
            (404, ((FROM, "a?version=2"),), None),
            (404, ((FROM, "gone"),), None),
            (400, ((FROM, "a"), other), None),
            (400, ((FROM, "a"),), b"body"),
            (400, ((FROM, "a?version=0"),), None),
            (400, ((FROM, "a?v=1"),), None),
            (400, ((FROM, "%ff"),), None),
            (412, ((FROM, "a"), ("If-Match", '"00"')), None),
        ):
            answer = await self.ask("PUT", "/objects/new", lines, body)
            self.assert_problem(answer, status)
        self.assert_problem(await self.get("new"), 404)

    async def test_headers_of_both(self) -> None:
        """What is kept of both may take no more than what one write may keep."""
        half = "x" * 5000
        await self.put("a", b"one", (("X-Ostore-Meta-A", half),))
        lines = ((FROM, "a"), ("X-Ostore-Meta-B", half))
        answer = await self.ask("PUT", "/objects/b", lines)
        self.assert_problem(answer, 431)
        self.assert_problem(await self.get("b"), 404)
        made = await self.ask(
            "PUT", "/objects/b", ((FROM, "a"), ("X-Ostore-Meta-A", "y" * 5000))
        )
        self.assertEqual(made.status, 200)
        self.assertEqual((await self.get("b")).get("x-ostore-meta-a"), "y" * 5000)

    async def test_when_too_few_shards_are_there(self) -> None:
        """A content that a read can still put together is stored anew for the copy."""
        content = some_bytes(3_000_000, 2)
        await self.put("a", content)
        located = await self.ask("GET", f"/locate/{sha256(content)}")
        for place in sorted(located.json().values())[:2]:
            shutil.rmtree(self.root / place / "objects")
            (self.root / place / "objects").mkdir()
        made = await self.ask("PUT", "/objects/b", ((FROM, "a"),))
        self.assertEqual(made.status, 200, made.body)
        self.assertTrue((await self.get("b")).body == content)


class PartTests(StandaloneCase):
    """Reads through the whole system."""

    async def test_parts(self) -> None:
        """Several ranges of a content of many stripes come exact."""
        content = some_bytes(5_000_000, 3)
        await self.put("a", content)
        asked = "0-9,1048570-1048585,-7,3000000-4200000"
        got = await self.ask("GET", "/objects/a", (("Range", f"bytes={asked}"),))
        self.assertEqual(got.status, 206)
        for part in (
            content[:10],
            content[1048570:1048586],
            content[-7:],
            content[3000000:4200001],
        ):
            self.assertIn(b"\r\n\r\n" + part + b"\r\n--", got.body)

    async def test_coded(self) -> None:
        """A text comes in gzip, whole and smaller."""
        await self.put("a", TEXT, (("Content-Type", "text/plain"),))
        got = await self.ask("GET", "/objects/a", (("Accept-Encoding", "gzip"),))
        self.assertEqual(got.get("content-encoding"), "gzip")
        self.assertTrue(gzip.decompress(got.body) == TEXT)
        self.assertLess(len(got.body), len(TEXT) // 20)
