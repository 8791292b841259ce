"""`POST` with `Size`, and `/temp/{token}`."""

from __future__ import annotations

import hashlib
from base64 import b64encode

from ostore.engine.resuming import Progress
from ostore.model.errors import ConditionFailed, DigestMismatch, NotFound
from ostore.model.resuming import Busy, Paused, TooMuch, WrongPart
from ostore.model.tokens import Forged
from ostore.model.versions import Version
from tests.web.serving import Served

HELLO = b"hello"
HASH = hashlib.sha256(HELLO).hexdigest()
DIGEST = b64encode(hashlib.sha256(HELLO).digest()).decode()
VERSION = Version("a", 3, HASH, 5, 1_700_000_000_000)


class BeginTests(Served):
    """`POST /objects/{name}` with `Size`."""

    async def test_begun(self) -> None:
        """201, the address of the upload, and the offset to begin at."""
        headers = {"Size": "1000", "X-Ostore-Meta-A": "b", "If-None-Match": "*"}
        answer = await self.ask("POST", "/objects/a", headers, b"")
        self.assertEqual((answer.status, answer.body), (201, b""))
        self.assertEqual(answer.get("location"), "/temp/TOKEN")
        self.assertEqual(answer.get("upload-offset"), "0")
        self.assertEqual(answer.get("upload-length"), "1000")
        ((request, size),) = self.store.begun
        self.assertEqual((request.name, size, request.size), ("a", 1000, 1000))
        self.assertEqual(request.headers, {"x-ostore-meta-a": "b"})
        self.assertTrue(request.condition.if_none_match)
        self.assertEqual(self.store.puts, [])

    async def test_several_versions(self) -> None:
        """An upload to a name that is there is a new version, not a 409."""
        self.store.fill("a", HELLO)
        answer = await self.ask("POST", "/objects/a", {"Size": "1000"}, b"")
        self.assertEqual(answer.status, 201)

    async def test_condition(self) -> None:
        """A condition that cannot hold is told before anything is sent."""
        self.store.fill("a", HELLO)
        headers = {"Size": "1000", "If-None-Match": "*"}
        answer = await self.ask("POST", "/objects/a", headers, b"")
        self.assert_problem(answer, 412)
        self.assertEqual(self.store.begun, [])

    async def test_nothing_to_send(self) -> None:
        """`Size: 0` makes the version at once."""
        answer = await self.ask("POST", "/objects/a", {"Size": "0"}, b"")
        self.assertEqual(answer.status, 200)
        self.assertEqual((answer.json()["version"], answer.json()["size"]), (1, 0))
        self.assertEqual(self.store.begun, [])

    async def test_known(self) -> None:
        """A digest that names a content of that very size makes the version at once."""
        self.store.fill("b", HELLO)
        headers = {"Size": "5", "Digest": f"SHA-256={DIGEST}"}
        answer = await self.ask("POST", "/objects/a", headers, b"")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json()["hash"], DIGEST)
        self.assertEqual(answer.get("x-ostore-version"), "1")
        other = {"Size": "6", "Digest": f"SHA-256={DIGEST}"}
        answer = await self.ask("POST", "/objects/a", other, b"")
        self.assertEqual(answer.status, 201)

    async def test_bad_sizes(self) -> None:
        """What is no number of bytes is 400, and so is a body that comes along."""
        for size in (
            "",
            "-1",
            "+1",
            "1.0",
            "0x10",
            "1 1",
            "\xb2",
            "9" * 30,
            str(2**63),
        ):
            answer = await self.ask("POST", "/objects/a", {"Size": size}, b"")
            self.assertIn("Size", self.assert_problem(answer, 400))
        answer = await self.ask("POST", "/objects/a", {"Size": "5"}, HELLO)
        self.assertIn("empty body", self.assert_problem(answer, 400))
        bad = {"Size": "5", "Digest": "SHA-256=AAAA"}
        self.assert_problem(await self.ask("POST", "/objects/a", bad, b""), 400)
        self.assertEqual((self.store.begun, self.store.puts), ([], []))


class NotInstantTests(Served):
    """With `instant-upload` off."""

    instant_upload = False

    async def test_known(self) -> None:
        """Who names a content that is there has to send it all the same."""
        self.store.fill("b", HELLO)
        headers = {"Size": "5", "Digest": f"SHA-256={DIGEST}"}
        answer = await self.ask("POST", "/objects/a", headers, b"")
        self.assertEqual(answer.status, 201)


class TokenTests(Served):
    """The verbs of an upload."""

    async def test_head(self) -> None:
        """HEAD says how much is held, and of how much."""
        self.store.uploads.outcome = Progress(7, 10)
        answer = await self.ask("HEAD", "/temp/TOKEN")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.get("content-length"), "7")
        self.assertEqual(answer.get("upload-offset"), "7")
        self.assertEqual(answer.get("upload-length"), "10")
        self.assertEqual(answer.get("cache-control"), "no-store")

    async def test_part(self) -> None:
        """A part that is not the last: 200 and the new offset."""
        self.store.uploads.outcome = Progress(7, 10)
        for value, first in ((None, 0), ("bytes=2-", 2), ("Bytes = 007-", 7)):
            headers = {} if value is None else {"Range": value}
            answer = await self.ask("PUT", "/temp/TOKEN", headers, HELLO)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.get("upload-offset"), "7")
            self.assertEqual(self.store.uploads.parts.pop(), ("TOKEN", first, HELLO, 5))

    async def test_last_part(self) -> None:
        """The last part is answered as a PUT of the whole."""
        self.store.uploads.outcome = Progress(10, 10, VERSION)
        answer = await self.ask("PUT", "/temp/TOKEN", {"Range": "bytes=5-"}, HELLO)
        self.assertEqual((answer.status, answer.json()), (200, VERSION.to_json()))
        self.assertEqual(answer.get("etag"), f'"{HASH}"')
        self.assertEqual(answer.get("digest"), f"SHA-256={DIGEST}")
        self.assertEqual(answer.get("x-ostore-version"), "3")
        self.assertEqual(answer.get("upload-offset"), "10")

    async def test_reading_back(self) -> None:
        """202 and a time to ask again, while all is read back."""
        self.store.uploads.outcome = Progress(10, 10, finishing=True)
        answer = await self.ask("PUT", "/temp/TOKEN", {"Range": "bytes=10-"}, b"")
        self.assertEqual((answer.status, answer.body), (202, b""))
        self.assertEqual(answer.get("retry-after"), "1")

    async def test_bad_ranges(self) -> None:
        """A part has one first byte, and nothing else."""
        for value in ("", "bytes=-5", "bytes=0-4", "bytes=0-,9-", "items=0-", "0-"):
            answer = await self.ask("PUT", "/temp/TOKEN", {"Range": value}, HELLO)
            self.assertIn("first", self.assert_problem(answer, 400))
        self.assertEqual(self.store.uploads.parts, [])

    async def test_errors(self) -> None:
        """Each error has its status, and says what is held where that is known."""
        for error, status, held in (
            (Forged("no"), 403, None),
            (NotFound("no"), 404, None),
            (Busy("no"), 409, None),
            (Busy("no", 7), 409, "7"),
            (WrongPart(7), 416, "7"),
            (TooMuch("no"), 413, None),
            (DigestMismatch("no"), 400, None),
            (Paused("no"), 503, None),
            (Paused("no", 7), 503, "7"),
        ):
            self.store.uploads.outcome = error
            answer = await self.ask("PUT", "/temp/TOKEN", {}, HELLO)
            self.assert_problem(answer, status)
            self.assertEqual(answer.get("upload-offset"), held)
            self.assertEqual(answer.get("retry-after"), "1" if status == 503 else None)
            answer = await self.ask("HEAD", "/temp/TOKEN")
            self.assertEqual((answer.status, answer.body), (status, b""))

    async def test_condition(self) -> None:
        """A condition that does not hold at the end is 412, as with a PUT."""
        self.store.uploads.outcome = ConditionFailed("no")
        answer = await self.ask("PUT", "/temp/TOKEN", {}, HELLO)
        self.assert_problem(answer, 412)

    async def test_give_up(self) -> None:
        """DELETE is 204."""
        answer = await self.ask("DELETE", "/temp/TOKEN")
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(self.store.uploads.given_up, ["TOKEN"])
