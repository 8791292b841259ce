"""PUT, POST and DELETE as a client sees them."""

from __future__ import annotations

import hashlib
from base64 import b64encode

from ostore.model.conditions import EntityTags, WriteCondition
from ostore.model.errors import (
    ClientGone,
    MetadataUnavailable,
    NoSpace,
    OutcomeUnknown,
    TooFewNodes,
)
from tests.web.serving import Served

HELLO = b"hello"
HASH = hashlib.sha256(HELLO).hexdigest()
BASE64 = b64encode(bytes.fromhex(HASH)).decode()
OTHER = b64encode(hashlib.sha256(b"other").digest()).decode()


class PutTests(Served):
    """`PUT /objects/{name}`."""

    async def test_answer(self) -> None:
        """A PUT is answered 200 with the version as JSON and its naming headers."""
        answer = await self.ask("PUT", "/objects/a", body=HELLO)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.get("content-type"), "application/json")
        self.assertEqual(answer.get("etag"), f'"{HASH}"')
        self.assertEqual(answer.get("digest"), f"SHA-256={BASE64}")
        self.assertEqual(answer.get("x-ostore-version"), "1")
        self.assertEqual(
            answer.json(),
            {
                "name": "a",
                "version": 1,
                "size": 5,
                "hash": BASE64,
                "created": "2023-11-14T22:13:20.123Z",
                "deleted": False,
            },
        )

    async def test_size_is_told(self) -> None:
        """The store learns Content-Length, and None of a chunked body."""
        await self.ask("PUT", "/objects/a", body=HELLO)
        connection = await self.connected()
        connection.ask("PUT", "/objects/b", [("Transfer-Encoding", "chunked")])
        connection.send(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
        answer = await connection.answer()
        self.assertEqual((answer.status, answer.json()["size"]), (200, 5))
        self.assertEqual([put.size for put in self.store.puts], [5, None])

    async def test_no_body(self) -> None:
        """A PUT with neither length nor chunks stores an empty object."""
        answer = await self.ask("PUT", "/objects/empty")
        self.assertEqual((answer.status, answer.json()["size"]), (200, 0))

    async def test_digest_spellings(self) -> None:
        """Every way to promise the SHA-256 reaches the store as the same hex."""
        spellings = (
            ("Digest", f"SHA-256={BASE64}"),
            ("Digest", f"md5=AAAA, sha-256={BASE64}"),
            ("Content-Digest", f"sha-256=:{BASE64}:"),
            ("Repr-Digest", f"sha-512=:AAAA:, sha-256=:{BASE64}:"),
        )
        for name, value in spellings:
            answer = await self.ask("PUT", "/objects/a", {name: value}, HELLO)
            self.assertEqual(answer.status, 200, value)
            self.assertEqual(self.store.puts[-1].digest, HASH)

    async def test_unknown_digest(self) -> None:
        """A digest of algorithms that are not known is ignored."""
        answer = await self.ask("PUT", "/objects/a", {"Digest": "md5=AAAA"}, HELLO)
        self.assertEqual(answer.status, 200)
        self.assertIsNone(self.store.puts[-1].digest)

    async def test_wrong_digest(self) -> None:
        """A body that differs from its digest is 400 and stores nothing."""
        answer = await self.ask(
            "PUT", "/objects/a", {"Digest": f"SHA-256={OTHER}"}, HELLO
        )
        self.assert_problem(answer, 400)
        self.assertEqual(answer.json()["type"], "urn:ostore:problem:digest-mismatch")
        self.assertEqual(self.store.names, {})

    async def test_refused_by_the_head(self) -> None:
        """What the head gets wrong is refused before the store hears of it."""
        tag = f"SHA-256={BASE64}"
        cases: list[tuple[int, str, dict[str, str | bytes]]] = [
            (400, "a", {"Digest": "SHA-256=short"}),
            (400, "a", {"Digest": "SHA-256"}),
            (400, "a", {"Digest": ""}),
            (400, "a", {"Digest": f"{tag}, SHA-256={OTHER}"}),
            (400, "a", {"Content-Digest": f"sha-256={BASE64}"}),
            (400, "a", {"Digest": tag, "Repr-Digest": f"sha-256=:{OTHER}:"}),
            (400, "", {}),
            (400, "a" * 1025, {}),
            (400, "%C3%A9" * 513, {}),
            (400, "%", {}),
            (400, "%2", {}),
            (400, "%zz", {}),
            (400, "%ff", {}),
            (400, "a%00b", {}),
            (400, "a", {"If-Match": "abc"}),
            (400, "a", {"If-None-Match": '"abc'}),
            (400, "a", {"Idempotency-Key": ""}),
            (400, "a", {"Idempotency-Key": "k" * 256}),
            (400, "a", {"Idempotency-Key": "schlüssel"}),
            (400, "a", {"X-Ostore-Copy-From": "b"}),
            (400, "a", {"Content-Range": "bytes 0-4/10"}),
            (400, "a", {"X-Ostore-Meta-": "nameless"}),
            (400, "a", {"Content-Type": b"text/\x01plain"}),
            (431, "a", {"X-Ostore-Meta-A": "x" * 8192}),
        ]
        for status, name, headers in cases:
            for method in ("PUT", "POST"):
                answer = await self.ask(method, f"/objects/{name}", headers, HELLO)
                detail = self.assert_problem(answer, status)
                self.assertGreater(len(detail), 10, (name, headers))
        self.assertEqual(self.store.puts, [])

    async def test_double_content_type(self) -> None:
        """Two Content-Type lines are refused: one of them would be lost."""
        lines = [("Content-Type", "a/b"), ("Content-Type", "c/d")]
        self.assert_problem(await self.ask("PUT", "/objects/a", lines, HELLO), 400)

    async def test_absurd_length(self) -> None:
        """A Content-Length beyond all storage is 400, with no byte of the body sent."""
        connection = await self.connected()
        connection.ask("PUT", "/objects/a", [("Content-Length", str(2**63))])
        self.assertEqual((await connection.answer()).status, 400)
        self.assertEqual(self.store.puts, [])

    async def test_no_continue_when_refused(self) -> None:
        """An early refusal is sent without `100 Continue`."""
        connection = await self.connected()
        lines = [("Expect", "100-continue"), ("Content-Length", "99"), ("Digest", "x")]
        connection.ask("PUT", "/objects/a", lines)
        self.assert_problem(await connection.answer(), 400)

    async def test_continue(self) -> None:
        """A good head gets `100 Continue`, then the answer to its body."""
        connection = await self.connected()
        lines = [("Expect", "100-continue"), ("Content-Length", "5")]
        connection.ask("PUT", "/objects/a", lines)
        self.assertEqual((await connection.head()).status, 100)
        connection.send(HELLO)
        self.assertEqual((await connection.answer()).status, 200)

    async def test_client_gone(self) -> None:
        """A body that ends before its Content-Length stores nothing."""
        connection = await self.connected()
        connection.ask("PUT", "/objects/a", [("Content-Length", "10")])
        connection.send(HELLO)
        await self.until(lambda: len(self.store.puts) == 1)
        await connection.close()
        await self.until(lambda: bool(self.store.failed_bodies))
        self.assertIsInstance(self.store.failed_bodies[0], ClientGone)
        self.assertEqual(self.store.names, {})

    async def test_store_refuses(self) -> None:
        """Errors of the store have their status, and Retry-After when it may pass."""
        cases: list[tuple[Exception, int, str, str | None]] = [
            (TooFewNodes("too few nodes"), 503, "unavailable", "5"),
            (MetadataUnavailable("no metadata"), 503, "unavailable", "1"),
            (OutcomeUnknown("unknown"), 503, "outcome-unknown", "1"),
            (NoSpace("full"), 507, "no-space", None),
        ]
        for error, status, slug, retry in cases:
            self.store.put_error = error
            answer = await self.ask("PUT", "/objects/a", body=HELLO)
            self.assertEqual(self.assert_problem(answer, status), str(error))
            self.assertEqual(answer.json()["type"], f"urn:ostore:problem:{slug}")
            self.assertEqual(answer.get("retry-after"), retry)

    async def test_mistakes_stay_inside(self) -> None:
        """An error nobody foresaw is a 500 that tells nothing of its inside."""
        self.store.put_error = RuntimeError("secret path /srv/x")
        answer = await self.ask("PUT", "/objects/a", body=HELLO)
        self.assert_problem(answer, 500)
        self.assertNotIn(b"secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_conditions(self) -> None:
        """If-Match and If-None-Match reach the store; what fails there is 412."""
        first = await self.ask("PUT", "/objects/a", {"If-None-Match": "*"}, HELLO)
        self.assertEqual(first.status, 200)
        self.assertEqual(
            self.store.puts[-1].condition,
            WriteCondition(if_none_match=EntityTags(any=True)),
        )
        again = await self.ask("PUT", "/objects/a", {"If-None-Match": "*"}, b"x")
        self.assert_problem(again, 412)
        stale = await self.ask("PUT", "/objects/a", {"If-Match": '"00"'}, b"x")
        self.assert_problem(stale, 412)
        fresh = await self.ask("PUT", "/objects/a", {"If-Match": f'"{HASH}"'}, b"x")
        self.assertEqual(fresh.status, 200)

    async def test_of_a_version(self) -> None:
        """A version is never written again: asking for that is refused early."""
        headers = {"X-Ostore-Copy-From": "a"}
        for method, more, body in (
            ("PUT", {}, b"x"),
            ("POST", {}, b"x"),
            ("PUT", headers, b""),
        ):
            answer = await self.ask(method, "/objects/a?version=1", more, body)
            self.assertIn("version", self.assert_problem(answer, 400))
        self.assertEqual(self.store.puts, [])

    async def test_unmodified_since(self) -> None:
        """If-Unmodified-Since reaches the store with PUT, POST and DELETE."""
        date = {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:09 GMT"}
        await self.ask("PUT", "/objects/a", date, HELLO)
        await self.ask("POST", "/objects/b", date, HELLO)
        for put in self.store.puts:
            self.assertEqual(put.condition.if_unmodified_since, 9)
        for target in ("/objects/a", "/objects/a?version=1"):
            self.assert_problem(await self.ask("DELETE", target, date), 412)

    async def test_idempotency(self) -> None:
        """The same key and name make one version; the put_id depends on both."""
        key = {"Idempotency-Key": "k" * 255}
        for name in ("a", "a", "b"):
            answer = await self.ask("PUT", f"/objects/{name}", key, HELLO)
            self.assertEqual(answer.json()["version"], 1)
        await self.ask("PUT", "/objects/a", {"Idempotency-Key": "other"}, HELLO)
        await self.ask("PUT", "/objects/a", body=HELLO)
        ids = [put.put_id for put in self.store.puts]
        self.assertEqual(ids[0], ids[1])
        self.assertEqual(len({ids[0], ids[2], ids[3]}), 3)
        self.assertIsNone(ids[4])
        self.assertRegex(ids[0] or "", "^[0-9a-f]{32}$")

    async def test_unknown_parameters(self) -> None:
        """Parameters nobody knows are ignored."""
        answer = await self.ask("PUT", "/objects/a?colour=red&x", body=HELLO)
        self.assertEqual(answer.status, 200)


class PostTests(Served):
    """`POST /objects/{name}`: create only."""

    async def test_creates_once(self) -> None:
        """The first POST is 201 with Location, the second 409 and changes nothing."""
        answer = await self.ask("POST", "/objects/a%20b%2Fc/%C3%A9", body=HELLO)
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.get("location"), "/objects/a%20b/c/%C3%A9")
        self.assertEqual(answer.get("etag"), f'"{HASH}"')
        self.assertEqual(answer.json()["name"], "a b/c/é")
        again = await self.ask("POST", "/objects/a%20b/c/%C3%A9", body=b"x")
        self.assert_problem(again, 409)
        self.assertEqual(len(self.store.names["a b/c/é"]), 1)

    async def test_after_deletion(self) -> None:
        """A deleted object may be created again."""
        self.store.fill("a", b"1")
        await self.ask("DELETE", "/objects/a")
        answer = await self.ask("POST", "/objects/a", body=HELLO)
        self.assertEqual((answer.status, answer.json()["version"]), (201, 3))


class DeleteTests(Served):
    """`DELETE /objects/{name}`, with and without a version."""

    async def test_marker(self) -> None:
        """DELETE adds a marker and shows it; a second one is 404 and adds nothing."""
        self.store.fill("a", HELLO)
        answer = await self.ask("DELETE", "/objects/a")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.get("x-ostore-version"), "2")
        shown = answer.json()
        self.assertEqual((shown["version"], shown["deleted"]), (2, True))
        self.assertEqual((shown["hash"], shown["size"]), ("", 0))
        self.assert_problem(await self.ask("DELETE", "/objects/a"), 404)
        self.assertEqual(len(self.store.names["a"]), 2)

    async def test_unknown(self) -> None:
        """There is nothing to delete of an unknown name."""
        self.assert_problem(await self.ask("DELETE", "/objects/a"), 404)

    async def test_conditions(self) -> None:
        """A DELETE whose condition fails is 412 and adds nothing."""
        self.store.fill("a", HELLO)
        answer = await self.ask("DELETE", "/objects/a", {"If-Match": '"00"'})
        self.assert_problem(answer, 412)
        answer = await self.ask("DELETE", "/objects/a", {"If-Match": f'"{HASH}"'})
        self.assertEqual(answer.status, 200)

    async def test_idempotency(self) -> None:
        """A repeated DELETE with its key is answered with the marker it made."""
        self.store.fill("a", HELLO)
        first = await self.ask("DELETE", "/objects/a", {"Idempotency-Key": "k"})
        again = await self.ask("DELETE", "/objects/a", {"Idempotency-Key": "k"})
        self.assertEqual(first.json(), again.json())

    async def test_one_version(self) -> None:
        """With a version it is gone for good: 204, no body, then 404."""
        self.store.fill("a", b"1", b"2")
        answer = await self.ask("DELETE", "/objects/a?version=1")
        self.assertEqual((answer.status, answer.get("content-length")), (204, None))
        self.assertEqual([v.number for v in self.store.names["a"]], [2])
        self.assert_problem(await self.ask("DELETE", "/objects/a?version=1"), 404)

    async def test_one_version_conditions(self) -> None:
        """A condition on the removal of a version is about that version."""
        self.store.fill("a", HELLO, b"2")
        kept = {"If-Match": f'"{HASH}"'}
        answer = await self.ask("DELETE", "/objects/a?version=2", kept)
        self.assert_problem(answer, 412)
        self.assert_problem(await self.ask("DELETE", "/objects/a?version=3", kept), 404)
        answer = await self.ask("DELETE", "/objects/a?version=1", kept)
        self.assertEqual(answer.status, 204)
        self.assertEqual([v.number for v in self.store.names["a"]], [2])

    async def test_bad_version(self) -> None:
        """Whatever is not a number from 1 is 400, and nothing is removed."""
        self.store.fill("a", HELLO)
        for value in (
            "0",
            "-1",
            "x",
            "",
            "1.0",
            "%2B1",
            "0x1",
            "9" * 41,
            "1&version=1",
        ):
            answer = await self.ask("DELETE", f"/objects/a?version={value}")
            self.assert_problem(answer, 400)
        self.assertEqual(len(self.store.names["a"]), 1)


class RequiredDigestTests(Served):
    """A service that takes no body without a digest."""

    require_digest = True

    async def test_missing(self) -> None:
        """Without a digest, or with unknown ones alone, PUT and POST are 400."""
        unknown: dict[str, str | bytes] = {"Digest": "md5=AAAA"}
        for method in ("PUT", "POST"):
            answer = await self.ask(method, "/objects/a", body=HELLO)
            self.assertIn("SHA-256=", self.assert_problem(answer, 400))
            answer = await self.ask(method, "/objects/a", unknown, HELLO)
            self.assert_problem(answer, 400)
        self.assertEqual(self.store.puts, [])

    async def test_given(self) -> None:
        """With one it is stored, and other verbs need none."""
        promise: dict[str, str | bytes] = {"Digest": f"SHA-256={BASE64}"}
        answer = await self.ask("PUT", "/objects/a", promise, HELLO)
        self.assertEqual(answer.status, 200)
        self.assertEqual((await self.ask("GET", "/objects/a")).body, HELLO)
        self.assertEqual((await self.ask("DELETE", "/objects/a")).status, 200)
