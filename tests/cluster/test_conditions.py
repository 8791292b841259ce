"""Conditional requests on the whole system: who wins, and what the others are told."""

from __future__ import annotations

from collections.abc import Sequence

from ostore.streaming.tasks import gather
from tests.support.http import Answer, Headers
from tests.support.standalone import StandaloneCase, sha256, some_bytes

RACERS = 16


class RaceTests(StandaloneCase):
    """16 at once, decided in the one step that writes."""

    async def race(
        self, method: str, headers: Headers, bodies: Sequence[bytes | None]
    ) -> list[Answer]:
        """The answers to the same request with these bodies, on connections that stand."""
        connections = [await self.connected() for _ in bodies]
        for connection, body in zip(connections, bodies, strict=True):
            length = [] if body is None else [("Content-Length", str(len(body)))]
            connection.ask(method, "/objects/x", (*headers, *length))
            connection.send(body or b"")
        answers = []
        for each in await gather(connection.answer() for connection in connections):
            if isinstance(each, Exception):
                raise each
            answers.append(each)
        return answers

    async def assert_one_won(
        self, answers: list[Answer], bodies: Sequence[bytes], won: int, lost: int
    ) -> None:
        """One got `won`, all others `lost`; its content is there and no other."""
        statuses = [each.status for each in answers]
        self.assertEqual(sorted(statuses), sorted([won] + (RACERS - 1) * [lost]))
        winner = statuses.index(won)
        await self.assert_reads("x", bodies[winner])
        for answer in answers:
            if answer.status == lost:
                self.assert_problem(answer, lost)
        await self.until(lambda: not self.temporaries(), "temp/ is empty")

    async def test_creators(self) -> None:
        """If-None-Match: * with PUT, and POST: one creates, small contents or large."""
        for method, headers, won, lost in (
            ("PUT", (("If-None-Match", "*"),), 200, 412),
            ("POST", (), 201, 409),
        ):
            for size in (10, 1_200_000):
                bodies = [some_bytes(size, i) for i in range(RACERS)]
                before = len(await self.numbers("x"))
                answers = await self.race(method, headers, bodies)
                await self.assert_one_won(answers, bodies, won, lost)
                self.assertEqual(len(await self.numbers("x")), before + 1)
                self.assertEqual((await self.ask("DELETE", "/objects/x")).status, 200)

    async def test_creators_of_the_same(self) -> None:
        """The same content makes no difference: one creates."""
        bodies = [b"the same"] * RACERS
        answers = await self.race("POST", (), bodies)
        await self.assert_one_won(answers, bodies, 201, 409)
        self.assertEqual(await self.numbers("x"), [1])

    async def test_replacers(self) -> None:
        """If-Match on one tag: one replaces, in each of several rounds."""
        current = b"first"
        await self.put("x", current)
        for turn in range(1, 4):
            bodies = [b"%d of turn %d" % (i, turn) for i in range(RACERS)]
            headers = (("If-Match", f'"{sha256(current)}"'),)
            answers = await self.race("PUT", headers, bodies)
            await self.assert_one_won(answers, bodies, 200, 412)
            self.assertEqual(await self.numbers("x"), list(range(1, turn + 2)))
            current = (await self.get("x")).body

    async def test_deleters(self) -> None:
        """If-Match with DELETE: one marker, and 404 for what came too late."""
        await self.put("x", b"first")
        headers = (("If-Match", f'"{sha256(b"first")}"'),)
        answers = await self.race("DELETE", headers, [None] * RACERS)
        statuses = sorted(each.status for each in answers)
        self.assertEqual(statuses, [200] + (RACERS - 1) * [404])
        self.assertEqual(await self.numbers("x"), [1, 2])

    async def test_mixed(self) -> None:
        """Replacers and deleters on one tag: together one of them gets its way."""
        await self.put("x", b"first")
        headers = (("If-Match", f'"{sha256(b"first")}"'),)
        works = [
            self.ask("PUT", "/objects/x", headers, b"%d" % i)
            if i % 2
            else self.ask("DELETE", "/objects/x", headers)
            for i in range(RACERS)
        ]
        found = await gather(works)
        statuses = [each.status for each in found if isinstance(each, Answer)]
        self.assertEqual(len(statuses), RACERS)
        self.assertEqual(statuses.count(200), 1)
        self.assertLessEqual(set(statuses), {200, 404, 412})
        self.assertEqual(await self.numbers("x"), [1, 2])


class ConditionTests(StandaloneCase):
    """One after the other."""

    async def test_unmodified_since(self) -> None:
        """Who read a version may write by its date; who read an older one may not."""
        await self.put("x", b"first")
        date = (await self.get("x")).get("last-modified") or ""
        old = "Thu, 01 Jan 1970 00:00:00 GMT"
        for method, body in (("PUT", b"second"), ("DELETE", None)):
            refused = await self.ask(
                method, "/objects/x", (("If-Unmodified-Since", old),), body
            )
            self.assert_problem(refused, 412)
        await self.assert_reads("x", b"first")
        made = await self.ask(
            "PUT", "/objects/x", (("If-Unmodified-Since", date),), b"second"
        )
        # in the same second nothing can be told apart; later there is nothing newer
        self.assertEqual(made.status, 200)
        answer = await self.ask("GET", "/objects/x", (("If-Unmodified-Since", old),))
        self.assert_problem(answer, 412)

    async def test_a_refusal_leaves_nothing(self) -> None:
        """A condition that fails costs no version, no shard and no temporary."""
        await self.put("x", b"first")
        before = self.objects()
        for headers in (
            (("If-None-Match", "*"),),
            (("If-Match", '"0"'),),
            (("If-Match", f'"{sha256(b"first")}"'), ("If-None-Match", "*")),
        ):
            refused = await self.ask("PUT", "/objects/x", headers, some_bytes(2 << 20))
            self.assert_problem(refused, 412)
        await self.until(lambda: not self.temporaries(), "temp/ is empty")
        self.assertEqual(self.objects(), before)
        self.assertEqual(await self.numbers("x"), [1])
