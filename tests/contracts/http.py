"""What HTTP clients rely on, whichever metadata store stands behind the api."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs

from tests.live.client import Answer, Headers
from tests.support.standalone import sha256

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase
else:
    TestCase = object

RACERS = 16
TEXT = (b'{"level":"info","message":"something happened","number":%d}\n' * 200) % (
    *range(200),
)


@attrs.frozen
class Request:
    """One request; `api` is the number of the service that gets it."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes | None = None
    api: int = 0


class HttpContract(TestCase):
    """Stories of users; a subclass says how to ask, and how many apis there are."""

    apis = 1

    async def send(self, request: Request) -> Answer:
        """The whole answer."""
        raise NotImplementedError

    async def race(self, requests: Sequence[Request]) -> list[Answer]:
        """All answers, in their order; the requests go out at once."""
        raise NotImplementedError

    def name(self, label: str = "x") -> str:
        """A name that no other test uses."""
        raise NotImplementedError

    async def until_there(
        self, holds: Callable[[], Awaitable[bool]], what: str
    ) -> None:
        """Wait until it holds; listings may be late."""
        raise NotImplementedError

    # Asking

    async def asked(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        query: str = "",
    ) -> Answer:
        """One request about an object, to each api in turn."""
        self._turn = getattr(self, "_turn", 0) + 1
        lines = [*(headers or {}).items()]
        target = f"/objects/{quote(name)}{query}"
        return await self.send(
            Request(method, target, lines, body, self._turn % self.apis)
        )

    async def stored(
        self, name: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Store it; the version's JSON."""
        answer = await self.asked("PUT", name, headers, body)
        self.assertEqual(answer.status, 200, answer.body)
        return dict(answer.json())

    async def numbers(self, name: str) -> list[int]:
        """Numbers of all versions of a name."""
        target = f"/versions/{quote(name, safe='')}"
        answer = await self.send(Request("GET", target))
        self.assertEqual(answer.status, 200)
        return [
            Answer(200, {}, line).json()["version"] for line in answer.body.splitlines()
        ]

    def racers(
        self, method: str, name: str, headers: Headers, bodies: Sequence[bytes | None]
    ) -> list[Request]:
        """The same request with each of these bodies, spread over the apis."""
        target = f"/objects/{quote(name)}"
        return [
            Request(method, target, headers, body, number % self.apis)
            for number, body in enumerate(bodies)
        ]

    async def assert_one(
        self, answers: Sequence[Answer], won: int, lost: int
    ) -> Answer:
        """One got `won`, the others problems with the status `lost`; gives that one."""
        statuses = [answer.status for answer in answers]
        self.assertEqual(sorted(statuses), sorted([won, *[lost] * (RACERS - 1)]))
        for answer in answers:
            if answer.status == lost:
                self.assertEqual(
                    answer.headers["content-type"], "application/problem+json"
                )
        return answers[statuses.index(won)]

    # Conditions

    async def test_racing_creators(self) -> None:
        """Of 16 with If-None-Match: *, and of 16 POSTs, one creates."""
        for label, method, headers, won, lost in (
            ("put", "PUT", (("If-None-Match", "*"),), 200, 412),
            ("post", "POST", (), 201, 409),
        ):
            name = self.name(label)
            bodies = [b"%s %d" % (name.encode(), i) for i in range(RACERS)]
            answers = await self.race(self.racers(method, name, headers, bodies))
            winner = await self.assert_one(answers, won, lost)
            kept = await self.asked("GET", name)
            self.assertEqual(kept.body, bodies[answers.index(winner)])
            self.assertEqual(await self.numbers(name), [1])
            # deleted, it may be created again: by one of them
            self.assertEqual((await self.asked("DELETE", name)).status, 200)
            answers = await self.race(self.racers(method, name, headers, bodies))
            await self.assert_one(answers, won, lost)
            self.assertEqual(await self.numbers(name), [1, 2, 3])

    async def test_racing_replacers(self) -> None:
        """Of 16 with If-Match on one tag one replaces, and one of 16 deletes."""
        name = self.name()
        etag = f'"{(await self.hash_of(name, b"first"))}"'
        bodies = [b"%s %d" % (name.encode(), i) for i in range(RACERS)]
        headers = (("If-Match", etag),)
        answers = await self.race(self.racers("PUT", name, headers, bodies))
        winner = await self.assert_one(answers, 200, 412)
        self.assertEqual(winner.json()["version"], 2)
        headers = (("If-Match", winner.headers["etag"]),)
        nothing: list[bytes | None] = [None] * RACERS
        answers = await self.race(self.racers("DELETE", name, headers, nothing))
        await self.assert_one(answers, 200, 404)
        self.assertEqual(await self.numbers(name), [1, 2, 3])

    async def hash_of(self, name: str, body: bytes) -> str:
        """Store it, and give its hash."""
        await self.stored(name, body)
        return sha256(body)

    async def test_conditional_writes(self) -> None:
        """Tags and dates are held against the newest version, wherever it was written."""
        name, old = self.name(), "Thu, 01 Jan 1970 00:00:00 GMT"
        first = await self.hash_of(name, b"first")
        for headers in (
            {"If-None-Match": "*"},
            {"If-None-Match": f'W/"{first}"'},
            {"If-Match": '"0"'},
            {"If-Match": f'W/"{first}"'},
            {"If-Unmodified-Since": old},
        ):
            for method, body in (("PUT", b"second"), ("DELETE", None)):
                answer = await self.asked(method, name, headers, body)
                self.assertEqual(answer.status, 412, (method, headers))
        self.assertEqual(await self.numbers(name), [1])
        allowed = {"If-Match": f'"0", "{first}-gzip"', "If-Unmodified-Since": old}
        await self.stored(name, b"second", allowed)
        deleted = await self.asked("DELETE", name, {"If-Match": "*"})
        self.assertEqual(deleted.status, 200)
        gone = await self.asked("PUT", name, {"If-Match": "*"}, b"x")
        self.assertEqual(gone.status, 412)
        await self.stored(name, b"again", {"If-None-Match": "*"})

    async def test_conditional_reads(self) -> None:
        """304 and 412 by tag and date, with the headers that a cache needs."""
        name = self.name()
        await self.stored(name, TEXT, {"Cache-Control": "max-age=60"})
        whole = await self.asked("GET", name)
        etag, date = whole.headers["etag"], whole.headers["last-modified"]
        for headers in (
            {"If-None-Match": etag},
            {"If-None-Match": f'"0", W/{etag}'},
            {"If-None-Match": "*", "If-Modified-Since": "nonsense"},
            {"If-Modified-Since": date},
        ):
            for method in ("GET", "HEAD"):
                answer = await self.asked(method, name, headers)
                self.assertEqual((answer.status, answer.body), (304, b""))
                told = {key: answer.headers[key] for key in ("etag", "cache-control")}
                self.assertEqual(told, {"etag": etag, "cache-control": "max-age=60"})
        for headers in (
            {"If-Match": '"0"'},
            {"If-Match": f"W/{etag}"},
            {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        ):
            answer = await self.asked("GET", name, headers)
            self.assertEqual(answer.status, 412, headers)
        answer = await self.asked("GET", name, {"If-None-Match": '"0"'})
        self.assertEqual((answer.status, answer.body), (200, TEXT))

    # Bodies

    async def test_ranges(self) -> None:
        """Single ranges of a large content at many places, and If-Range."""
        name, content = self.name(), Random(self.id()).randbytes((5 << 20) + 77)
        await self.stored(name, content)
        size = len(content)
        for first, last in (
            (0, 0), (0, 4095), ((1 << 20) - 1, 1 << 20), (3 << 20, (4 << 20) - 1),
            (size - 1, size - 1), (size - 77, size - 1), (123, 3_000_000),
        ):  # fmt: skip
            answer = await self.asked("GET", name, {"Range": f"bytes={first}-{last}"})
            self.assertEqual(answer.status, 206)
            self.assertTrue(answer.body == content[first : last + 1])
            told = f"bytes {first}-{last}/{size}"
            self.assertEqual(answer.headers["content-range"], told)
        answer = await self.asked("GET", name, {"Range": "bytes=-100"})
        self.assertEqual(answer.body, content[-100:])
        answer = await self.asked("GET", name, {"Range": f"bytes={size}-"})
        self.assertEqual(
            (answer.status, answer.headers["content-range"]), (416, f"bytes */{size}")
        )
        for tag, status in ((sha256(content), 206), (sha256(b""), 200)):
            headers = {"Range": "bytes=5-9", "If-Range": f'"{tag}"'}
            self.assertEqual((await self.asked("GET", name, headers)).status, status)
        headers = {"Range": "bytes=0-4,2000000-2000009,-5"}
        answer = await self.asked("GET", name, headers)
        self.assertEqual(answer.status, 206)
        kind = answer.headers["content-type"]
        self.assertTrue(kind.startswith("multipart/byteranges; boundary="))
        for part in (content[:5], content[2_000_000:2_000_010], content[-5:]):
            self.assertIn(b"\r\n\r\n" + part + b"\r\n--", answer.body)

    async def test_codings(self) -> None:
        """A body comes coded to who asks for it, under a tag of its own."""
        name = self.name()
        await self.stored(name, TEXT, {"Content-Type": "application/json"})
        answer = await self.asked("GET", name, {"Accept-Encoding": "gzip"})
        self.assertEqual(answer.headers["etag"], f'"{sha256(TEXT)}-gzip"')
        self.assertEqual(answer.headers["vary"], "Accept-Encoding")
        self.assertEqual(zlib.decompress(answer.body, 47), TEXT)
        self.assertLess(len(answer.body), len(TEXT) // 2)
        answer = await self.asked("GET", name, {"Accept-Encoding": "gzip;q=0"})
        self.assertEqual(answer.body, TEXT)
        headers = {"Accept-Encoding": "gzip", "Range": "bytes=10-19"}
        answer = await self.asked("GET", name, headers)
        self.assertEqual((answer.status, answer.body), (206, TEXT[10:20]))
        plain = self.name("coded")
        await self.stored(plain, TEXT, {"Content-Encoding": "x-mine"})
        answer = await self.asked("GET", plain, {"Accept-Encoding": "gzip"})
        self.assertEqual(answer.headers["content-encoding"], "x-mine")
        self.assertEqual(answer.body, TEXT)

    async def test_kept_headers(self) -> None:
        """What was sent with a version comes back with it, from any api."""
        name = self.name()
        kept = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Disposition": 'attachment; filename="a b.txt"',
            "Content-Language": "de, en",
            "Cache-Control": "no-cache",
            "X-Ostore-Meta-Author": "Zo\u00eb",
            "X-Ostore-Meta-Empty": "",
        }
        await self.stored(name, b"first", kept)
        await self.stored(name, b"second")
        for method in ("GET", "HEAD"):
            answer = await self.asked(method, name, query="?version=1")
            for key, value in kept.items():
                self.assertEqual(answer.headers[key.lower()], value, key)
            answer = await self.asked(method, name)
            self.assertNotIn("content-language", answer.headers)
            self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        copied = {"X-Ostore-Copy-From": f"{quote(name)}?version=1"}
        copy = self.name("copy")
        answer = await self.asked("PUT", copy, copied, b"")
        self.assertEqual(answer.status, 200, answer.body)
        answer = await self.asked("GET", copy)
        self.assertEqual(answer.body, b"first")
        self.assertEqual(answer.headers["x-ostore-meta-author"], "Zo\u00eb")
        large = {f"X-Ostore-Meta-{i}": "y" * 1000 for i in range(9)}
        answer = await self.asked("PUT", name, large, b"third")
        self.assertEqual(answer.status, 431)
        self.assertEqual(await self.numbers(name), [1, 2])

    async def test_idempotency(self) -> None:
        """The same key and name give the same version, however often and wherever."""
        name = self.name()
        headers = (("Idempotency-Key", "the key"),)
        answers = await self.race(self.racers("PUT", name, headers, [b"body"] * RACERS))
        self.assertEqual({(a.status, a.json()["version"]) for a in answers}, {(200, 1)})
        await self.stored(name, b"other")
        again = await self.asked("PUT", name, {"Idempotency-Key": "the key"}, b"body")
        self.assertEqual((again.status, again.json()["version"]), (200, 1))
        self.assertEqual(await self.numbers(name), [1, 2])

    # Listing

    async def test_listing(self) -> None:
        """Folders and names in order, deleted ones left out, page by page."""
        top = self.name("")
        names = [
            *(f"{top}{folder}/{i}" for folder in ("a", "b/c", "ä") for i in range(5)),
            *(f"{top}{i:02}" for i in range(7)),
        ]
        await self.race(
            [
                Request(
                    "PUT", f"/objects/{quote(name)}", (), name.encode(), i % self.apis
                )
                for i, name in enumerate(names)
            ]
        )
        await self.asked("DELETE", f"{top}03")
        shown = [f"{top}{each}" for each in ("a/", "b/", "ä/")]
        items = [f"{top}{i:02}" for i in range(7) if i != 3]

        async def all_there() -> bool:
            found = await self.page(top, limit=1000)
            return found == (items, shown)

        await self.until_there(all_there, "the listing")
        for limit in (1, 2, 4, 100):
            self.assertEqual(await self.page(top, limit=limit), (items, shown))
        self.assertEqual(await self.page(f"{top}b/", limit=3), ([], [f"{top}b/c/"]))

    async def page(self, prefix: str, limit: int) -> tuple[list[str], list[str]]:
        """Names and prefixes of all pages."""
        names: list[str] = []
        prefixes: list[str] = []
        after = ""
        while True:
            query = f"prefix={quote(prefix, safe='')}&delimiter=/&limit={limit}"
            query += f"&after={quote(after, safe='')}" if after else ""
            answer = await self.send(Request("GET", f"/objects/?{query}"))
            self.assertEqual(answer.status, 200, answer.body)
            found = answer.json()
            self.assertLessEqual(len(found["items"]) + len(found["prefixes"]), limit)
            names += [each["name"] for each in found["items"]]
            prefixes += found["prefixes"]
            after = found["next"]
            if after is None:
                return names, prefixes

    async def test_listings_under_writers(self) -> None:
        """Pages while others write: what stood before is there once, nothing twice."""
        top = self.name("")
        standing = [f"{top}s{i:03}" for i in range(0, 120, 2)]
        await self.race(
            [
                Request("PUT", f"/objects/{quote(name)}", (), b"x", i % self.apis)
                for i, name in enumerate(standing)
            ]
        )

        async def all_there() -> bool:
            return (await self.page(top, limit=1000))[0] == standing

        await self.until_there(all_there, "the listing")
        seen: list[str] = []
        after = ""
        for turn in range(100):
            query = (
                f"prefix={quote(top, safe='')}&limit=7&after={quote(after, safe='')}"
            )
            page, *_ = await self.race(
                [
                    Request("GET", f"/objects/?{query}"),
                    *self.racers("PUT", f"{top}s{turn % 120:03}", (), [b"y%d" % turn]),
                ]
            )
            seen += [each["name"] for each in page.json()["items"]]
            after = page.json()["next"]
            if after is None:
                break
        self.assertEqual(seen, sorted(set(seen)))
        self.assertLessEqual(set(standing), set(seen))

    async def test_lines(self) -> None:
        """`/versions/` from a name on: each version once, by name and number."""
        top = self.name("")
        written = []
        for label in ("a", "b", "b/c"):
            for number in (1, 2, 3):
                made = await self.stored(f"{top}{label}", b"%d" % number)
                written.append((made["name"], made["version"], made["size"]))
        await self.asked("DELETE", f"{top}b")
        written.insert(6, (f"{top}b", 4, 0))
        last = top[:-1] + chr(ord(top[-1]) + 1)

        async def lines() -> list[tuple[str, int, int]]:
            after = quote(top, safe="")
            answer = await self.send(Request("GET", f"/versions/?after={after}"))
            self.assertEqual(answer.headers["content-type"], "application/x-ndjson")
            found = [Answer(200, {}, each).json() for each in answer.body.splitlines()]
            return [
                (each["name"], each["version"], each["size"])
                for each in found
                if each["name"] < last
            ]

        async def all_there() -> bool:
            return await lines() == written

        await self.until_there(all_there, "all versions")
