"""Resumable uploads of a standalone, as its clients see them."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from random import Random
from typing import Any, ClassVar, cast
from urllib.parse import quote

from twisted.internet import reactor as installed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTCP

from tests.cluster.test_kill import ChildCase
from tests.support.http import Answer, Connection, Cut, exchange
from tests.support.standalone import StandaloneCase, clock, digest, some_bytes

reactor = cast("IReactorTCP", installed)

MIB = 1 << 20
CONTENT = some_bytes(5 * MIB + 77)
ROUNDS = 4


def with_digest(pattern: str, size: int, seed: int) -> bytes:
    """A content whose SHA-256 in base64 holds the pattern."""
    while True:
        content = some_bytes(size, seed)
        if pattern in b64encode(sha256(content).digest()).decode():
            return content
        seed += 1


class UploadCase(StandaloneCase):
    """Sends parts."""

    timeout = 120

    async def start_upload(
        self, content: bytes = CONTENT, name: str = "name", *headers: tuple[str, str]
    ) -> str:
        """Begin one; gives the target of its parts."""
        size = ("Size", str(len(content)))
        answer = await self.ask("POST", f"/objects/{name}", [size, *headers], b"")
        self.assertEqual(answer.status, 201, answer.body)
        target = answer.get("location")
        assert target is not None
        return target

    async def part(self, target: str, first: int, content: bytes) -> Answer:
        """Send one part."""
        headers = [("Range", f"bytes={first}-")]
        return await self.ask("PUT", target, headers, content)

    async def held(self, target: str) -> int:
        """How much is held."""
        answer = await self.ask("HEAD", target)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.get("content-length"), answer.get("upload-offset"))
        return int(answer.get("upload-offset") or "")

    async def stuck(self, target: str, content: bytes) -> Connection:
        """A part whose client falls silent."""
        connection = await self.connected()
        length = [("Content-Length", str(len(CONTENT)))]
        connection.ask("PUT", target, length)
        connection.send(content)
        return connection

    def records_alone(self) -> None:
        """Nothing but records lies in temp/."""
        others = [p.name for p in self.temporaries() if p.suffix != ".upload"]
        self.assertEqual(others, [])


class StoryTests(UploadCase):
    """What clients do."""

    async def test_digests(self) -> None:
        """Parts cut in different places, and hashes with `/`, `//` and `+`."""
        for number, pattern in enumerate(("/", "//", "+")):
            content = with_digest(pattern, 100_000, number * 10_000)
            quoted = quote(f"of {pattern}", safe="")
            target = await self.start_upload(content, quoted, digest(content))
            self.assertEqual(await self.held(target), 0)
            answer = await self.part(target, 0, content[:50_000])
            self.assertEqual(answer.status, 200, answer.body)
            held = await self.held(target)
            self.assertEqual(held, 50_000)
            answer = await self.part(target, held, content[held:])
            self.assertEqual(answer.json()["size"], 100_000)
            self.assertEqual((await self.ask("HEAD", target)).status, 404)
            self.assert_problem(await self.part(target, 96_000, content[96_000:]), 404)
            again = await self.part(target, 100_000, b"")
            self.assertEqual(again.json(), answer.json())
            part = [("Range", "bytes=32000-")]
            read = await self.ask("GET", f"/objects/{quoted}", part)
            self.assertEqual((read.status, read.body), (206, content[32_000:]))
            self.assertEqual(read.get("content-range"), "bytes 32000-99999/100000")
        self.records_alone()

    async def test_restarts(self) -> None:
        """The service is ended and started between any two parts."""
        target, at = await self.start_upload(), 0
        for size in (1, MIB, 1_500_000, 2 * MIB, len(CONTENT)):
            answer = await self.part(target, at, CONTENT[at : at + size])
            self.assertEqual(answer.status, 200, answer.body)
            at = min(len(CONTENT), at + size)
            await self.fall()
            await self.rise()
            if at < len(CONTENT):
                self.assertEqual(await self.held(target), at)
        await self.assert_reads("name", CONTENT)
        answer = await self.part(target, len(CONTENT), b"")
        self.assertEqual(answer.json()["version"], 1)
        self.records_alone()

    async def test_forged(self) -> None:
        """A token with another character is 403 for every method."""
        target = await self.start_upload()
        forged = target[:-5] + ("A" if target[-5] != "A" else "B") + target[-4:]
        for other in (forged, "/temp/x", "/temp/" + "A" * 108):
            for method in ("HEAD", "PUT", "DELETE"):
                answer = await self.ask(method, other, (), b"")
                self.assertEqual(answer.status, 403)
        self.assertEqual((await self.ask("PUT", "/temp/")).status, 403)

    async def test_two_at_once(self) -> None:
        """Of two parts at once the second is 409, and the first goes on."""
        target = await self.start_upload()
        first = await self.stuck(target, CONTENT[: 2 * MIB])
        await self.until(self.temporaries, "temporaries")
        answer = await self.part(target, 0, CONTENT)
        while answer.status != 409:  # the first had not come yet
            self.assertEqual(answer.status, 416)
            answer = await self.part(target, 0, CONTENT)
        self.assert_problem(answer, 409)
        first.send(CONTENT[2 * MIB :])
        self.assertEqual((await first.answer("PUT")).json()["size"], len(CONTENT))
        await self.assert_reads("name", CONTENT)

    async def test_cut(self) -> None:
        """A connection is cut: all that arrived is held, at most 1 MiB less."""
        target = await self.start_upload()
        connection = await self.stuck(target, CONTENT[: 3 * MIB + 5])
        await clock.sleep(0.2)
        await connection.close()
        await self.until_not_busy(target)
        held = await self.held(target)
        self.assertLessEqual(held, 3 * MIB + 5)
        answer = await self.part(target, held, CONTENT[held:])
        self.assertEqual(answer.json()["size"], len(CONTENT))
        await self.assert_reads("name", CONTENT)

    async def until_not_busy(self, target: str) -> None:
        """Wait until no part is being written."""
        for _ in range(1000):
            answer = await self.part(target, await self.held(target), b"")
            if answer.status == 200:
                return
            await clock.sleep(0.01)
        self.fail("busy for ever")

    async def test_lost_nodes(self) -> None:
        """The folders of two nodes are deleted in the middle: it goes on, exact."""
        target = await self.start_upload()
        await self.part(target, 0, CONTENT[: 2 * MIB + 9])
        self.lose(2, 5)
        await self.until(
            lambda: all((self.node(n) / "node.json").exists() for n in (2, 5)),
            "the roots",
        )
        held = await self.held(target)
        self.assertEqual(held, 2 * MIB + 9)
        for _ in range(200):
            answer = await self.part(target, held, CONTENT[held:])
            if answer.status == 200:
                break
            self.assertIn(answer.status, (503, 416))
            await clock.sleep(0.1)
            held = await self.held(target)
            self.assertGreaterEqual(held, 2 * MIB + 9)
        await self.assert_reads("name", CONTENT)

    async def test_given_up(self) -> None:
        """DELETE leaves nothing."""
        target = await self.start_upload()
        await self.part(target, 0, CONTENT[: MIB + 9])
        self.assertEqual((await self.ask("DELETE", target)).status, 204)
        self.assertEqual(self.temporaries(), [])
        self.assert_problem(await self.part(target, 0, CONTENT), 404)
        self.assertEqual((await self.ask("HEAD", target)).status, 404)
        self.assertEqual((await self.ask("DELETE", target)).status, 404)

    async def test_refused(self) -> None:
        """Too much, another digest, another beginning."""
        target = await self.start_upload(CONTENT[:100])
        answer = await self.part(target, 1, b"x")
        self.assert_problem(answer, 416)
        self.assertEqual(answer.get("upload-offset"), "0")
        self.assert_problem(await self.part(target, 0, CONTENT[:101]), 413)
        self.assertEqual((await self.ask("HEAD", target)).status, 404)
        target = await self.start_upload(CONTENT[:100], "name", digest(b"other"))
        self.assert_problem(await self.part(target, 0, CONTENT[:100]), 400)
        self.assertEqual((await self.ask("HEAD", target)).status, 404)
        self.assertEqual((self.temporaries(), self.objects()), ([], []))

    async def test_instant(self) -> None:
        """A known content needs no bytes; the same size with another hash does."""
        await self.put("first", CONTENT)
        size = ("Size", str(len(CONTENT)))
        headers = [size, digest(CONTENT)]
        answer = await self.ask("POST", "/objects/second", headers, b"")
        self.assertEqual((answer.status, answer.json()["version"]), (200, 1))
        await self.assert_reads("second", CONTENT)
        other = [size, digest(b"other")]
        answer = await self.ask("POST", "/objects/third", other, b"")
        self.assertEqual(answer.status, 201)

    async def test_condition(self) -> None:
        """Create only: decided when the last byte has come."""
        target = await self.start_upload(CONTENT, "name", ("If-None-Match", "*"))
        await self.put("name", b"faster")
        self.assert_problem(await self.part(target, 0, CONTENT), 412)
        self.assertEqual(self.temporaries(), [])
        self.assertEqual(await self.numbers("name"), [1])

    async def test_no_secrets_in_the_log(self) -> None:
        """No token gets into the access log."""
        target = await self.start_upload()
        await self.part(target, 0, CONTENT)
        await self.fall()
        log = (self.root / "access.log").read_text()
        self.assertIn("/temp/", log)
        self.assertNotIn(target.removeprefix("/temp/")[:40], log)


class NotInstantTests(UploadCase):
    """With instant uploads switched off."""

    options: ClassVar = {"instant-upload": "off"}

    async def test_known(self) -> None:
        """Who cannot send the bytes does not get the version."""
        await self.put("first", CONTENT)
        target = await self.start_upload(CONTENT, "second", digest(CONTENT))
        answer = await self.part(target, 0, CONTENT)
        self.assertEqual(answer.json()["size"], len(CONTENT))
        await self.assert_reads("second", CONTENT)


class KillTests(ChildCase):
    """`kill -9` in the middle of an upload."""

    timeout = 600

    async def test_rounds(self) -> None:
        """At whatever moment it dies: nothing acknowledged is lost, the end is exact."""
        rng = Random(7)
        child = self.rise()
        for number in range(ROUNDS):
            content = some_bytes(6 * MIB + number, number)
            headers = [("Size", str(len(content)))]
            answer = await self.send("POST", f"/objects/{number}", headers)
            target, at = answer.get("location") or "", 0
            for _ in range(2):
                clock.call_later(rng.uniform(0.0, 0.4), child.kill)
                try:
                    while True:
                        size = rng.choice([1000, 300_000, 3 * MIB])
                        at = await self.progress(target, at, content, size)
                except (Cut, ConnectError):
                    child = self.rise()
                answer = await self.send("HEAD", target)
                if answer.status == 404:
                    break
                held = int(answer.get("upload-offset") or "")
                self.assertGreaterEqual(held, at)
                at = held
            answer = await self.send("HEAD", target)
            if answer.status == 200:
                at = int(answer.get("upload-offset") or "")
                while await self.progress(target, at, content, MIB) < len(content):
                    at += MIB
            last = [("Range", f"bytes={len(content)}-")]
            answer = await self.send("PUT", target, last)
            self.assertEqual((answer.status, answer.json()["version"]), (200, 1))
            answer = await self.send("GET", f"/objects/{number}")
            self.assertTrue(answer.body == content)
        child.kill()

    async def progress(self, target: str, at: int, content: bytes, size: int) -> int:
        """Send a part, or when all was sent ask on and on; the offset then."""
        part = content[at : at + size]
        answer = await self.send("PUT", target, [("Range", f"bytes={at}-")], part)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.get("upload-offset"), str(at + len(part)))
        return at + len(part)

    async def send(
        self, method: str, target: str, headers: Any = (), body: bytes = b""
    ) -> Answer:
        """One request."""
        return await exchange(reactor, self.port, method, target, headers, body)
