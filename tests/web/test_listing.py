"""`/objects/` and `/versions/` as a client sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ostore.model.errors import MetadataUnavailable
from ostore.model.versions import Version
from ostore.web.api.versions import PAGE
from tests.support.http import Cut
from tests.web.serving import Served


def lines(body: bytes) -> list[Any]:
    """The JSON of each line; the last line has its end too."""
    assert not body or body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


class ListingTests(Served):
    """`GET /objects/`."""

    async def test_page(self) -> None:
        """Names come in byte order, deleted ones are left out."""
        for name in ("b", "a/2", "a/1", "é", "z", "gone"):
            self.store.fill(name, b"1", b"22")
        await self.ask("DELETE", "/objects/gone")
        answer = await self.ask("GET", "/objects/")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.get("content-type"), "application/json")
        page = answer.json()
        self.assertEqual(set(page), {"items", "prefixes", "next"})
        self.assertEqual(
            [item["name"] for item in page["items"]], ["a/1", "a/2", "b", "z", "é"]
        )
        self.assertEqual({item["version"] for item in page["items"]}, {2})
        self.assertEqual((page["prefixes"], page["next"]), ([], None))

    async def test_parameters(self) -> None:
        """prefix, delimiter, after and limit reach the store decoded."""
        for name in ("x y/é/1", "x y/é/2", "x y/b", "x y/c", "other"):
            self.store.fill(name, b"1")
        target = "/objects/?prefix=x+y%2F&delimiter=%2F&after=x%20y/b&limit=2"
        page = (await self.ask("GET", target)).json()
        self.assertEqual([item["name"] for item in page["items"]], ["x y/c"])
        self.assertEqual(page["prefixes"], ["x y/é/"])
        self.assertIsNone(page["next"])

    async def test_next(self) -> None:
        """Following `next` shows every name once."""
        for number in range(7):
            self.store.fill(f"n{number}", b"1")
        seen, after = [], ""
        while True:
            target = f"/objects/?limit=3&after={after}"
            page = (await self.ask("GET", target)).json()
            seen += [item["name"] for item in page["items"]]
            if page["next"] is None:
                break
            after = page["next"]
        self.assertEqual(seen, [f"n{number}" for number in range(7)])

    async def test_default_limit(self) -> None:
        """Without a limit a page has a thousand names."""
        for number in range(1001):
            self.store.fill(f"{number:04}", b"")
        page = (await self.ask("GET", "/objects/")).json()
        self.assertEqual((len(page["items"]), page["next"]), (1000, "0999"))

    async def test_bad_limit(self) -> None:
        """Limit is 1 to 1000, everywhere."""
        for value in ("0", "1001", "-1", "x", "", "1e3", "9" * 50):
            for target in ("/objects/", "/versions/", "/versions/a"):
                answer = await self.ask("GET", f"{target}?limit={value}")
                self.assertIn("1 to 1000", self.assert_problem(answer, 400))
                head = await self.ask("HEAD", f"{target}?limit={value}")
                self.assertEqual(head.status, 400)
        self.assertEqual((await self.ask("GET", "/objects/?limit=1000")).status, 200)

    async def test_not_utf8(self) -> None:
        """Parameters that are not UTF-8 are 400."""
        for name in ("prefix", "delimiter", "after"):
            answer = await self.ask("GET", f"/objects/?{name}=%ff")
            self.assert_problem(answer, 400)

    async def test_empty_name(self) -> None:
        """Writing to the listing is writing to an empty name: 400."""
        for method in ("PUT", "POST", "DELETE"):
            answer = await self.ask(method, "/objects/", body=b"x")
            self.assertIn("empty", self.assert_problem(answer, 400))


class VersionsTests(Served):
    """`GET /versions/` and `GET /versions/{name}`."""

    async def test_one_name(self) -> None:
        """One line a version, ascending, a marker with an empty hash."""
        self.store.fill("a b", b"1", b"22")
        self.store.fill("a c", b"3")
        await self.ask("DELETE", "/objects/a%20b")
        answer = await self.ask("GET", "/versions/a%20b")
        self.assertEqual(answer.get("content-type"), "application/x-ndjson")
        shown = lines(answer.body)
        self.assertEqual([line["version"] for line in shown], [1, 2, 3])
        self.assertEqual({line["name"] for line in shown}, {"a b"})
        self.assertEqual([line["deleted"] for line in shown], [False, False, True])
        self.assertEqual((shown[2]["hash"], shown[2]["size"]), ("", 0))
        keys = {"name", "version", "size", "hash", "created", "deleted"}
        self.assertEqual(set(shown[0]), keys)

    async def test_all_names(self) -> None:
        """By name, then number."""
        self.store.fill("b", b"1")
        self.store.fill("a", b"1", b"2")
        shown = lines((await self.ask("GET", "/versions/")).body)
        order = [(line["name"], line["version"]) for line in shown]
        self.assertEqual(order, [("a", 1), ("a", 2), ("b", 1)])

    async def test_after_and_limit(self) -> None:
        """`after` is a number for one name, a name for all."""
        self.store.fill("a", b"1", b"2", b"3")
        self.store.fill("b", b"1", b"2")
        cases: tuple[tuple[str, list[tuple[str, int]]], ...] = (
            ("/versions/a?after=1", [("a", 2), ("a", 3)]),
            ("/versions/a?after=1&limit=1", [("a", 2)]),
            ("/versions/a?after=99", []),
            (f"/versions/a?after={10**30}", []),
            ("/versions/?after=a", [("b", 1), ("b", 2)]),
            ("/versions/?limit=3", [("a", 1), ("a", 2), ("a", 3)]),
            ("/versions/?after=zz", []),
        )
        for target, expected in cases:
            shown = lines((await self.ask("GET", target)).body)
            order = [(line["name"], line["version"]) for line in shown]
            self.assertEqual(order, expected, target)

    async def test_bad_after(self) -> None:
        """For one name `after` must be a number."""
        for value in ("x", "-1", "1.5", ""):
            answer = await self.ask("GET", f"/versions/a?after={value}")
            self.assert_problem(answer, 400)

    async def test_unknown_name(self) -> None:
        """An unknown name has no versions: an empty 200."""
        answer = await self.ask("GET", "/versions/nobody")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.get("content-type"), "application/x-ndjson")

    async def test_bad_name(self) -> None:
        """A name that cannot be is 400."""
        self.assert_problem(await self.ask("GET", "/versions/%ff"), 400)

    async def test_head(self) -> None:
        """HEAD tells the type, reads no page and claims no length."""
        self.store.fill("a", b"1")
        for target in ("/versions/", "/versions/a"):
            head = await self.ask("HEAD", target)
            self.assertEqual(head.status, 200)
            self.assertEqual(head.get("content-type"), "application/x-ndjson")
            self.assertIsNone(head.get("content-length"))
        self.assertEqual(self.store.pages, [])

    async def test_pages(self) -> None:
        """However many versions there are, each is one line, once."""
        for count in (PAGE, PAGE + 1, 3 * PAGE - 1):
            self.store.fill("a", *[b""] * (count - len(self.store.names.get("a", []))))
            for target in ("/versions/", "/versions/a"):
                shown = lines((await self.ask("GET", target)).body)
                numbers = [line["version"] for line in shown]
                self.assertEqual(numbers, list(range(1, count + 1)))
            shown = lines((await self.ask("GET", f"/versions/a?limit={PAGE}")).body)
            self.assertEqual(len(shown), PAGE)

    async def test_limit_across_pages(self) -> None:
        """A limit above one page is kept to the line."""
        self.store.fill("a", *[b""] * (PAGE + 20))
        shown = lines((await self.ask("GET", f"/versions/a?limit={PAGE + 7}")).body)
        self.assertEqual(len(shown), PAGE + 7)

    async def test_pages_of_whole_names(self) -> None:
        """Whatever the limit, following pages by name gives every version once."""
        counts = {"a": 3, "b": 1, "c": PAGE, "d": 2 * PAGE + 1, "e": 2}
        for name, count in counts.items():
            self.store.fill(name, *[b""] * count)
        everything = [
            (n, i) for n, count in counts.items() for i in range(1, count + 1)
        ]
        for limit in (1, 2, 3, 4, 5, PAGE, PAGE + 1, 1000):
            seen: list[tuple[str, int]] = []
            while True:
                after = f"&after={seen[-1][0]}" if seen else ""
                target = f"/versions/?limit={limit}{after}"
                shown = lines((await self.ask("GET", target)).body)
                if not shown:
                    break
                seen += [(line["name"], line["version"]) for line in shown]
            self.assertEqual(seen, everything, limit)

    async def test_error_first(self) -> None:
        """An error before the first line is a clean 503."""
        self.store.list_error = MetadataUnavailable("no answer")
        for target in ("/versions/", "/versions/a"):
            self.assert_problem(await self.ask("GET", target), 503)

    async def test_error_later(self) -> None:
        """An error behind the first page cuts the connection: no end is claimed."""
        self.store.fill("a", *[b""] * (2 * PAGE))
        self.store.list_error = MetadataUnavailable("no answer")
        self.store.list_error_after = 1
        connection = await self.connected()
        connection.ask("GET", "/versions/")
        with self.assertRaises(Cut):
            await connection.answer()

    async def test_slow_reader(self) -> None:
        """A client that does not read holds the listing; all of it comes when it does."""
        pages = 60
        asked = []
        padding = {"x-ostore-meta-padding": "x" * 2000}

        async def page(after: tuple[str, int], limit: int) -> Sequence[Version]:
            asked.append(after)
            first = after[1] + 1
            stop = min(first + limit, pages * PAGE + 1)
            return [
                Version("a", number, "0" * 64, 0, 0, headers=padding)
                for number in range(first, stop)
            ]

        self.patch(self.store, "all_versions", page)
        connection = await self.connected()
        connection.ask("GET", "/versions/")
        connection.pause()
        await self.until(lambda: bool(asked))
        await self.turns(300)
        self.assertLess(len(asked), pages // 2)
        connection.resume()
        answer = await connection.answer()
        self.assertEqual(answer.body.count(b"\n"), pages * PAGE)
