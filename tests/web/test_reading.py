"""GET and HEAD of an object as a client sees them."""

from __future__ import annotations

import hashlib
from base64 import b64encode

from ostore.model.errors import MetadataUnavailable, NodeUnreachable, TooFewShards
from tests.support.http import Answer, Cut
from tests.web.serving import Served

CONTENT = bytes(range(256)) * 4
HASH = hashlib.sha256(CONTENT).hexdigest()
BASE64 = b64encode(bytes.fromhex(HASH)).decode()
MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = "Tue, 14 Nov 2023 22:13:19 GMT"
VOLATILE = ("date", "x-request-id")


def lasting(answer: Answer) -> dict[str, str]:
    """The headers that do not differ from one request to the next."""
    return {key: value for key, value in answer.headers if key not in VOLATILE}


class WholeTests(Served):
    """Reads of the whole object."""

    async def test_headers(self) -> None:
        """A GET bears everything that names and describes the version."""
        self.store.fill("a", CONTENT)
        answer = await self.ask("GET", "/objects/a")
        self.assertEqual((answer.status, answer.body), (200, CONTENT))
        self.assertEqual(
            lasting(answer),
            {
                "server": "ostore",
                "content-type": "application/octet-stream",
                "content-length": "1024",
                "etag": f'"{HASH}"',
                "digest": f"SHA-256={BASE64}",
                "repr-digest": f"sha-256=:{BASE64}:",
                "x-ostore-version": "1",
                "last-modified": MODIFIED,
                "accept-ranges": "bytes",
                "vary": "Accept-Encoding",
            },
        )
        self.assertRegex(answer.get("x-request-id") or "", "^[0-9a-f]{32}$")
        self.assertTrue(answer.get("date"))

    async def test_head(self) -> None:
        """HEAD has GET's headers and no body; Range does not count there."""
        self.store.fill("a", CONTENT)
        self.store.fill("empty", b"")
        for name in ("a", "empty", "missing", "a?version=9"):
            got = await self.ask("GET", f"/objects/{name}")
            head = await self.ask("HEAD", f"/objects/{name}", {"Range": "bytes=0-3"})
            self.assertEqual(head.status, got.status)
            self.assertEqual(lasting(head), lasting(got))
            self.assertEqual(head.body, b"")

    async def test_head_reads_nothing(self) -> None:
        """HEAD asks for no byte of the content."""
        self.store.fill("a", CONTENT)
        self.assertEqual((await self.ask("HEAD", "/objects/a")).status, 200)
        self.assertEqual(self.store.streams, [])

    async def test_head_leaves_the_connection_in_step(self) -> None:
        """Behind a HEAD the next answer on the connection is the next one's."""
        self.store.fill("a", CONTENT)
        connection = await self.connected()
        for _ in range(2):
            connection.ask("HEAD", "/objects/a")
            await connection.answer("HEAD")
            connection.ask("GET", "/objects/a")
            self.assertEqual((await connection.answer()).body, CONTENT)

    async def test_empty(self) -> None:
        """An empty object is 200 with Content-Length 0; no part of it can be had."""
        self.store.fill("a", b"")
        answer = await self.ask("GET", "/objects/a")
        self.assertEqual((answer.status, answer.get("content-length")), (200, "0"))
        answer = await self.ask("GET", "/objects/a", {"Range": "bytes=0-"})
        self.assert_problem(answer, 416)
        self.assertEqual(answer.get("content-range"), "bytes */0")

    async def test_versions(self) -> None:
        """Each version is read by its number, the newest without."""
        self.store.fill("a", b"one", b"two")
        for query, body, number in (("?version=1", b"one", "1"), ("", b"two", "2")):
            answer = await self.ask("GET", f"/objects/a{query}")
            self.assertEqual(answer.body, body)
            self.assertEqual(answer.get("x-ostore-version"), number)
        for number in ("3", str(2**63), "9" * 40):
            answer = await self.ask("GET", f"/objects/a?version={number}")
            self.assert_problem(answer, 404)

    async def test_bad_version(self) -> None:
        """Whatever is not a number from 1 is 400, also of an unknown object."""
        for value in ("0", "00", "-1", "x", "", "1.5", "%2B1", "%D9%A1", "9" * 41):
            for method in ("GET", "HEAD"):
                answer = await self.ask(method, f"/objects/a?version={value}")
                self.assertEqual(answer.status, 400, value)
        answer = await self.ask("GET", "/objects/a?version=1&version=2")
        self.assertIn("once", self.assert_problem(answer, 400))
        answer = await self.ask("GET", "/objects/a?version=%ff")
        self.assert_problem(answer, 400)

    async def test_missing(self) -> None:
        """An unknown object is a plain 404."""
        answer = await self.ask("GET", "/objects/a")
        self.assert_problem(answer, 404)
        self.assertIsNone(answer.get("x-ostore-delete-marker"))

    async def test_deleted(self) -> None:
        """A delete marker is 404 and says so; older versions stay readable."""
        self.store.fill("a", CONTENT)
        await self.ask("DELETE", "/objects/a")
        for target in ("/objects/a", "/objects/a?version=2"):
            answer = await self.ask("GET", target)
            self.assert_problem(answer, 404)
            self.assertEqual(answer.get("x-ostore-delete-marker"), "true")
            head = await self.ask("HEAD", target)
            self.assertEqual(head.get("x-ostore-delete-marker"), "true")
        answer = await self.ask("GET", "/objects/a?version=1")
        self.assertEqual(answer.body, CONTENT)

    async def test_kept_headers(self) -> None:
        """What came with the PUT goes out with the GET, octet for octet."""
        sent: dict[str, str | bytes] = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Encoding": "gzip",
            "Content-Disposition": b'attachment; filename="caf\xe9.txt"',
            "Content-Language": "de",
            "Cache-Control": "max-age=60",
            "X-Ostore-Meta-Author": "José".encode(),
            "X-Ostore-Meta-Place": b"Orl\xe9ans",
            "x-ostore-meta-EMPTY": "",
        }
        forgotten = {"X-Other": "y", "Authorization": "Basic abc", "Cookie": "c=d"}
        put = await self.ask("PUT", "/objects/a", {**sent, **forgotten}, CONTENT)
        self.assertEqual(put.json()["content_type"], "text/plain; charset=utf-8")
        self.assertEqual(
            put.json()["metadata"],
            {"author": "José", "place": "Orléans", "empty": ""},
        )
        for method in ("GET", "HEAD"):
            answer = await self.ask(method, "/objects/a")
            for name, value in sent.items():
                octets = value if isinstance(value, bytes) else value.encode("latin-1")
                got = answer.get(name)
                assert got is not None, name
                self.assertEqual(got.encode("latin-1"), octets)
            for name in forgotten:
                self.assertIsNone(answer.get(name))

    async def test_kept_limit(self) -> None:
        """8192 bytes of kept names and values are taken, one more is 431."""
        name = "X-Ostore-Meta-A"
        most = "x" * (8192 - len(name))
        answer = await self.ask("PUT", "/objects/a", {name: most}, b"")
        self.assertEqual(answer.status, 200)
        self.assertEqual((await self.ask("GET", "/objects/a")).get(name), most)
        answer = await self.ask("PUT", "/objects/a", {name: most + "x"}, b"")
        self.assert_problem(answer, 431)


class RangeTests(Served):
    """Reads of a part."""

    async def test_single_ranges(self) -> None:
        """One range is 206 with exactly its bytes."""
        self.store.fill("a", CONTENT)
        for asked, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=10-19", 10, 19),
            ("bytes=1000-", 1000, 1023),
            ("bytes=-24", 1000, 1023),
            ("bytes=-5000", 0, 1023),
            ("bytes=1000-9999", 1000, 1023),
            ("bytes=0-1,5000-", 0, 1),
        ):
            answer = await self.ask("GET", "/objects/a", {"Range": asked})
            self.assertEqual(answer.status, 206, asked)
            self.assertEqual(answer.body, CONTENT[first : last + 1])
            self.assertEqual(
                answer.get("content-range"), f"bytes {first}-{last}/{len(CONTENT)}"
            )
            self.assertEqual(answer.get("content-length"), str(last - first + 1))
            self.assertEqual(answer.get("etag"), f'"{HASH}"')
            self.assertEqual(answer.get("digest"), f"SHA-256={BASE64}")

    async def test_ignored_ranges(self) -> None:
        """Other units, broken ones and more than the whole give the whole, 200."""
        self.store.fill("a", CONTENT)
        for asked in (
            "bytes=0-,1-",
            "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 1000, 10)),
            "lines=0-1",
            "bytes=5-1",
            "bytes=a-b",
            "0-1",
        ):
            answer = await self.ask("GET", "/objects/a", {"Range": asked})
            self.assertEqual((answer.status, answer.body), (200, CONTENT), asked)
            self.assertIsNone(answer.get("content-range"))

    async def test_out_of_reach(self) -> None:
        """A range with no byte in it is 416 with the size."""
        self.store.fill("a", CONTENT)
        for asked in ("bytes=1024-", "bytes=-0", f"bytes={10**30}-"):
            answer = await self.ask("GET", "/objects/a", {"Range": asked})
            self.assert_problem(answer, 416)
            self.assertEqual(answer.get("content-range"), "bytes */1024")

    async def test_if_range(self) -> None:
        """If-Range makes Range count only for the very version it names."""
        self.store.fill("a", CONTENT)
        for value, status in (
            (f'"{HASH}"', 206),
            (MODIFIED, 206),
            ('"00"', 200),
            (f'W/"{HASH}"', 200),
            (f'"{HASH}-gzip"', 200),
            (BEFORE, 200),
            ("nonsense", 200),
        ):
            lines = {"Range": "bytes=0-3", "If-Range": value}
            answer = await self.ask("GET", "/objects/a", lines)
            self.assertEqual(answer.status, status, value)
            self.assertEqual(len(answer.body), 4 if status == 206 else 1024)

    async def test_if_range_within_a_second(self) -> None:
        """A date proves nothing when the version below has it too, or is not known."""
        lines = {"Range": "bytes=0-3", "If-Range": MODIFIED}
        self.store.fill("a", CONTENT[::-1])
        self.store.moments = 0
        self.store.fill("a", CONTENT)
        answer = await self.ask("GET", "/objects/a", lines)
        self.assertEqual((answer.status, answer.body), (200, CONTENT))
        pinned = await self.ask("GET", "/objects/a?version=2", lines)
        self.assertEqual((pinned.status, pinned.body), (206, CONTENT[:4]))
        del self.store.names["a"][0]
        answer = await self.ask("GET", "/objects/a", lines)
        self.assertEqual((answer.status, answer.body), (200, CONTENT))
        self.store.moments = -1
        self.store.fill("b", CONTENT[::-1], CONTENT)
        answer = await self.ask("GET", "/objects/b", lines)
        self.assertEqual((answer.status, answer.body), (206, CONTENT[:4]))

    async def test_only_the_part_is_read(self) -> None:
        """A range asks the store for its bytes alone."""
        self.store.fill("a", CONTENT)
        await self.ask("GET", "/objects/a", {"Range": "bytes=8-15"})
        self.assertEqual(self.store.streams[-1].content, CONTENT[8:16])


class ConditionTests(Served):
    """Conditional reads."""

    async def test_not_modified(self) -> None:
        """304 repeats what caches need, without a body or its length."""
        await self.ask("PUT", "/objects/a", {"Cache-Control": "max-age=60"}, CONTENT)
        for method in ("GET", "HEAD"):
            for lines in (
                {"If-None-Match": f'"{HASH}"'},
                {"If-None-Match": "*"},
                {"If-None-Match": f'"x", W/"{HASH}"'},
                {"If-Modified-Since": MODIFIED},
                {"If-None-Match": f'"{HASH}"', "Range": "bytes=9999-"},
            ):
                answer = await self.ask(method, "/objects/a", lines)
                self.assertEqual((answer.status, answer.body), (304, b""), lines)
                self.assertEqual(answer.get("etag"), f'"{HASH}"')
                self.assertEqual(answer.get("last-modified"), MODIFIED)
                self.assertEqual(answer.get("cache-control"), "max-age=60")
                self.assertIsNone(answer.get("content-length"))

    async def test_modified(self) -> None:
        """What has changed is sent."""
        self.store.fill("a", CONTENT)
        for lines in (
            {"If-None-Match": '"00"'},
            {"If-Modified-Since": BEFORE},
            {"If-None-Match": '"00"', "If-Modified-Since": MODIFIED},
            {"If-Modified-Since": "yesterday"},
            {"If-Match": f'"{HASH}"'},
            {"If-Unmodified-Since": MODIFIED},
        ):
            answer = await self.ask("GET", "/objects/a", lines)
            self.assertEqual((answer.status, answer.body), (200, CONTENT), lines)

    async def test_failed(self) -> None:
        """412 when the version is not the one that was meant."""
        self.store.fill("a", CONTENT)
        for lines in (
            {"If-Match": '"00"'},
            {"If-Match": f'W/"{HASH}"'},
            {"If-Unmodified-Since": BEFORE},
        ):
            self.assert_problem(await self.ask("GET", "/objects/a", lines), 412)
            head = await self.ask("HEAD", "/objects/a", lines)
            self.assertEqual(head.status, 412)

    async def test_missing_first(self) -> None:
        """What is not there is 404 whatever the condition."""
        answer = await self.ask("GET", "/objects/a", {"If-Match": "*"})
        self.assert_problem(answer, 404)

    async def test_malformed(self) -> None:
        """Tags without quotes are 400."""
        self.store.fill("a", CONTENT)
        for name in ("If-Match", "If-None-Match"):
            answer = await self.ask("GET", "/objects/a", {name: HASH})
            self.assert_problem(answer, 400)


class StreamTests(Served):
    """Bytes on their way."""

    async def test_too_few_shards(self) -> None:
        """Fewer than k shards are 503 before any byte, with nothing of the object."""
        self.store.fill("a", CONTENT)
        self.store.read_error = TooFewShards("too few shards are within reach")
        answer = await self.ask("GET", "/objects/a")
        self.assert_problem(answer, 503)
        head = await self.ask("HEAD", "/objects/a")
        self.assertEqual(head.status, 503)
        for each in (answer, head):
            self.assertEqual(each.get("retry-after"), "5")
            for name in ("etag", "digest", "x-ostore-version", "last-modified"):
                self.assertIsNone(each.get(name))

    async def test_without_shards(self) -> None:
        """An empty object, a 304, a 412, a 404 and a 416 need no shards."""
        self.store.fill("a", CONTENT)
        self.store.fill("empty", b"")
        self.store.read_error = TooFewShards("too few shards are within reach")
        tag = f'"{HASH}"'
        for method in ("GET", "HEAD"):
            for name, headers, status in (
                ("empty", {}, 200),
                ("missing", {}, 404),
                ("a", {"If-None-Match": tag}, 304),
                ("a", {"If-Match": '"other"'}, 412),
            ):
                answer = await self.ask(method, f"/objects/{name}", headers)
                self.assertEqual(answer.status, status, (method, name))
        answer = await self.ask("GET", "/objects/a", {"Range": "bytes=900000-"})
        self.assertEqual(answer.status, 416)

    async def test_error_before_the_first_byte(self) -> None:
        """A stream that breaks at once still gives a clean error."""
        self.store.fill("a", CONTENT)
        self.store.fail_after, self.store.stream_error = 0, TooFewShards("too few")
        self.assert_problem(await self.ask("GET", "/objects/a"), 503)
        self.assertTrue(self.store.streams[-1].closed)

    async def test_metadata_away(self) -> None:
        """A metadata store that does not answer is 503."""
        self.store.open_error = MetadataUnavailable("no answer")
        self.assert_problem(await self.ask("GET", "/objects/a"), 503)

    async def test_cut_in_the_middle(self) -> None:
        """A stream that breaks off ends in a cut connection, never a whole answer."""
        content = bytes(300_000)
        self.store.fill("a", content)
        self.store.piece, self.store.fail_after = 1000, 200_000
        errors = [TooFewShards("too few"), NodeUnreachable("gone"), RuntimeError("x")]
        for error in errors:
            self.store.stream_error = error
            connection = await self.connected()
            connection.ask("GET", "/objects/a")
            with self.assertRaises(Cut):
                await connection.answer()
            self.assertTrue(self.store.streams[-1].closed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_short_stream(self) -> None:
        """A stream that ends early is a cut connection too."""
        self.store.fill("a", CONTENT)
        self.store.contents[HASH] = CONTENT[:-1]
        connection = await self.connected()
        connection.ask("GET", "/objects/a")
        with self.assertRaises(Cut):
            await connection.answer()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_slow_reader(self) -> None:
        """A client that does not read holds the stream, and gets all when it does."""
        content = bytes(64 * 1024 * 1024)
        self.store.fill("a", content)
        connection = await self.connected()
        connection.ask("GET", "/objects/a")
        connection.pause()
        await self.until(lambda: bool(self.store.streams))
        await self.turns(300)
        given = self.store.streams[0].given
        self.assertLess(given, len(content) // 2)
        connection.resume()
        answer = await connection.answer()
        self.assertEqual(len(answer.body), len(content))
        await self.until(lambda: self.store.streams[0].closed)

    async def test_vanished_reader(self) -> None:
        """A client that goes away has its stream closed."""
        self.store.fill("a", bytes(64 * 1024 * 1024))
        connection = await self.connected()
        connection.ask("GET", "/objects/a")
        connection.pause()
        await self.until(lambda: bool(self.store.streams))
        await connection.close()
        await self.until(lambda: self.store.streams[0].closed)
        await self.until(lambda: bool(self.lines))
        self.assertFalse(self.lines[0]["complete"])
