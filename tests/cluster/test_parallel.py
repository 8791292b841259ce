"""Many at once: one name, one content, and who sees what when."""

from __future__ import annotations

from collections.abc import Awaitable

from ostore.streaming.tasks import gather
from tests.support.http import Answer
from tests.support.standalone import StandaloneCase, some_bytes

LARGE = some_bytes((2 << 20) + 5)


class ParallelTests(StandaloneCase):
    """What is promised of one writer holds for many."""

    async def all(self, *works: Awaitable[Answer]) -> list[Answer]:
        """The answers, none of which may be an error."""
        answers = []
        for each in await gather(works):
            if isinstance(each, Exception):
                raise each
            answers.append(each)
        return answers

    async def test_one_name(self) -> None:
        """32 parallel PUTs of one name make the versions 1 to 32, each its content."""
        contents = [f"content {i}".encode() for i in range(32)]
        answers = await self.all(
            *(self.ask("PUT", "/objects/x", (), content) for content in contents)
        )
        self.assertEqual({each.status for each in answers}, {200})
        numbers = [each.json()["version"] for each in answers]
        self.assertEqual(sorted(numbers), list(range(1, 33)))
        self.assertEqual(await self.numbers("x"), list(range(1, 33)))
        for number, content in zip(numbers, contents, strict=True):
            await self.assert_reads("x", content, number)
        await self.assert_reads("x", contents[numbers.index(32)])

    async def one_content(self, content: bytes) -> None:
        """16 names for a content at once."""
        answers = await self.all(
            *(self.ask("PUT", f"/objects/{i}", (), content) for i in range(16))
        )
        self.assertEqual({each.status for each in answers}, {200})
        self.assertEqual(set(self.shards(content)), set(range(6)))
        self.assertEqual(len(self.objects()), 6)
        await self.until(lambda: not self.temporaries(), "temp/ empty")
        for i in range(16):
            await self.assert_reads(str(i), content)

    async def test_one_content(self) -> None:
        """16 parallel PUTs of one small content make six shard files."""
        await self.one_content(b"the same")

    async def test_one_large_content(self) -> None:
        """So do 16 of a large one."""
        await self.one_content(LARGE)

    async def test_deletes(self) -> None:
        """Of racing DELETEs one gets 200 and the others 404: one marker."""
        await self.put("x", b"1")
        answers = await self.all(*(self.ask("DELETE", "/objects/x") for _ in range(8)))
        self.assertEqual(sorted(each.status for each in answers), [200] + 7 * [404])
        self.assertEqual(await self.numbers("x"), [1, 2])

    async def test_create_only(self) -> None:
        """Of racing POSTs one creates, and its content is what is read."""
        answers = await self.all(
            *(self.ask("POST", "/objects/x", (), b"%d" % i) for i in range(8))
        )
        statuses = [each.status for each in answers]
        self.assertEqual(sorted(statuses), [201] + 7 * [409])
        await self.assert_reads("x", b"%d" % statuses.index(201))
        self.assertEqual(await self.numbers("x"), [1])

    async def test_own_writes(self) -> None:
        """Right after the 200 every answer knows of it."""
        for turn in range(1, 11):
            content = f"turn {turn}".encode()
            await self.put("x", content)
            await self.assert_reads("x", content)
            self.assertEqual((await self.numbers("x"))[-1], 2 * turn - 1)
            listed = (await self.ask("GET", "/objects/")).json()["items"]
            self.assertEqual([(v["version"]) for v in listed], [2 * turn - 1])
            self.assertEqual((await self.ask("DELETE", "/objects/x")).status, 200)
            self.assert_problem(await self.get("x"), 404)
            self.assertEqual((await self.ask("GET", "/objects/")).json()["items"], [])

    async def test_readers_and_writers(self) -> None:
        """A reader among writers gets one version whole, never a mixture."""
        contents = {LARGE, LARGE[::-1], LARGE[1:] + b"x"}
        await self.put("x", LARGE)
        works = [self.ask("PUT", "/objects/x", (), each) for each in contents]
        reads = [self.ask("GET", "/objects/x") for _ in range(6)]
        answers = await self.all(*reads, *works)
        for each in answers[:6]:
            self.assertEqual(each.status, 200)
            self.assertIn(each.body, contents)
