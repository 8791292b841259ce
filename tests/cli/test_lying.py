"""A service that lies, breaks off or refuses: the right status, and no wrong file."""

from __future__ import annotations

import json
import threading
from unittest import mock

import attrs
import zstandard

from ostore.cli import client
from tests.cli.lying import (
    Asked,
    LyingTestCase,
    Said,
    Script,
    made,
    problem,
    ranged,
    thing,
)
from tests.support.standalone import some_bytes

CONTENT = some_bytes(3_000_000)
WRONG = CONTENT[:1_500_000] + b"?" + CONTENT[1_500_001:]


def always(said: Said) -> Script:
    """The same to everything."""
    return lambda _, __: said


def in_parts(said: Said) -> Script:
    """An object of which parts can be asked for."""
    return lambda asked, _: ranged(said, asked)


class ReadingTests(LyingTestCase):
    """get, cat, ls."""

    def files(self) -> list[str]:
        """What lies in the folder."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def test_wrong_bytes(self) -> None:
        """Wrong bytes are status 4 and no file; the old file stays."""
        self.script = lambda asked, _: ranged(thing(WRONG, CONTENT), asked)
        for words in (("get", "x"), ("get", "x", "--piece=1MiB"), ("cat", "x")):
            result = self.ostore(*words)
            self.assertEqual(result.status, 4, words)
            self.assertIn("is not what its SHA-256 says", result.err)
            self.assertEqual(self.files(), [])
        self.file("x", b"old")
        self.assertEqual(self.ostore("get", "x").status, 4)
        self.assertEqual((self.folder / "x").read_bytes(), b"old")

    def test_always_cut(self) -> None:
        """A body that is always cut at once ends, with status 1 and no file."""
        self.script = lambda asked, _: attrs.evolve(
            ranged(thing(CONTENT), asked), sent=0
        )
        for words in (("get", "x"), ("get", "x", "--piece=1MiB"), ("cat", "x")):
            del self.asked[:]
            self.assertEqual(self.ostore(*words).status, 1)
            self.assertLess(len(self.asked), 30)
            self.assertNotIn("x", self.files())

    def test_cut_again_and_again(self) -> None:
        """A body that is cut is gone on with where it was."""
        self.script = lambda asked, _: attrs.evolve(
            ranged(thing(CONTENT), asked), sent=700_000
        )
        for words in (("get", "x"), ("get", "x", "--piece=1MiB")):
            self.assertEqual(self.ostore(*words).status, 0)
            self.assertEqual((self.folder / "x").read_bytes(), CONTENT)
        self.assertEqual(self.ostore("cat", "x").raw, CONTENT)
        self.assertEqual(self.leftovers(), [])

    def test_empty_answers(self) -> None:
        """An answer that ends as it should and holds nothing does not go round."""

        def script(asked: Asked, number: int) -> Said:
            said = ranged(thing(CONTENT), asked)
            size = {"Content-Length": "0", "Connection": "close"}
            return attrs.evolve(said, headers={**said.headers, **size}, body=b"")

        self.script = script
        self.assertEqual(self.ostore("get", "x").status, 1)
        self.assertLess(len(self.asked), 10)

    def test_other_ranges(self) -> None:
        """Other ranges than those that were asked for are refused."""

        def script(asked: Asked, number: int) -> Said:
            said = ranged(thing(CONTENT), asked)
            if number == 0:
                return said
            moved = {"Content-Range": f"bytes 7-9/{len(CONTENT)}"}
            return attrs.evolve(said, headers={**said.headers, **moved})

        self.script = script
        self.assertEqual(self.ostore("get", "x", "--piece=1MiB").status, 1)
        self.assertNotIn("x", self.files())

    def test_replaced_meanwhile(self) -> None:
        """When another content comes between, nothing is mixed."""

        def script(asked: Asked, number: int) -> Said:
            if number == 0:
                return ranged(thing(CONTENT), asked)
            self.assertIn("version=1", asked.target)
            self.assertIn("If-Match", asked.headers)
            return problem(412, "condition-failed", "another content")

        self.script = script
        self.assertEqual(self.ostore("get", "x", "--piece=1MiB").status, 1)
        self.assertNotIn("x", self.files())

    def test_500(self) -> None:
        """500 is tried again with growing waits, then status 1."""
        self.script = lambda asked, _: problem(500, "internal", "it broke")
        result = self.ostore("get", "x")
        self.assertEqual(result.status, 1)
        self.assertIn("500 it broke", result.err)
        self.assertEqual(len(self.asked), 6)
        self.assertEqual(self.files(), [])

    def test_retry_after(self) -> None:
        """503 with Retry-After waits as long as it says, a minute at most."""

        def script(asked: Asked, number: int) -> Said:
            waits = ("7", "99999", "Fri, 15 Jan 2027 08:00:20 GMT")
            if number < len(waits):
                return problem(
                    503, "unavailable", "busy", **{"Retry-After": waits[number]}
                )
            return ranged(thing(CONTENT), asked)

        self.script = script
        result = self.ostore("get", "x")
        self.assertEqual(result.status, 0)
        self.assertEqual(self.waits, [7.0, 60.0, 20.0])
        self.assertIn("trying again in 7.0 s", result.err)

    def test_foreign(self) -> None:
        """What is no ostore is told so, whatever it says."""
        deep = b"[" * 200_000
        for said in (
            Said(200, {}, b"<html>hello</html>"),
            Said(200, {}, b"null"),
            Said(200, {}, b'{"items": 3}'),
            Said(200, {}, b'{"items": [{}], "prefixes": [], "next": null}'),
            Said(
                200,
                {},
                b'{"items": [{"name":"b"},{"name":3}], "prefixes": [], "next": null}',
            ),
            Said(200, {}, b'{"items": [], "prefixes": [], "next": 7}'),
            Said(200, {}, b'{"items": [], "prefixes": [], "next": ""}'),
            Said(200, {}, deep),
            Said(200, {"ETag": "x", "X-Ostore-Version": "-1"}, b"x"),
            Said(None, {}, b"SSH-2.0-OpenSSH\r\n"),
            Said(None, {}, b""),
            Said(None, {}, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
            Said(302, {"Location": "http://other/"}, b""),
            Said(418, {}, deep),
        ):
            self.script = always(said)
            for words in (
                ("ls",),
                ("get", "x"),
                ("cat", "x"),
                ("versions", "x"),
                ("stat", "x"),
            ):
                result = self.ostore("--retries=1", *words)
                self.assertIn(result.status, (1, 3), (words, said, result.err))
                self.assertNotIn("defect", result.err, (words, said))
                self.assertNotIn("Traceback", result.err)
                self.assertEqual(self.files(), [])

    def test_circles(self) -> None:
        """A listing that goes round is given up."""
        page = json.dumps({"items": [], "prefixes": [], "next": "a"}).encode()
        self.script = lambda _, __: Said(200, {}, page)
        self.assertEqual(self.ostore("ls").status, 1)
        self.assertEqual(len(self.asked), 2)

    def test_names_steer_nothing(self) -> None:
        """Control characters of names and messages do not reach the terminal."""
        self.script = lambda _, __: problem(404, "not-found", "\x1b[2J\x9b31mgone")
        result = self.ostore("get", "a\x1b]0;x\x07")
        self.assertEqual(result.status, 3)
        self.assertNotRegex(result.err, "[\x00-\x09\x0b-\x1f\x7f-\x9f]")

    def test_silence(self) -> None:
        """A service that says nothing is given up."""
        quiet = threading.Event()
        self.addCleanup(quiet.set)

        def script(asked: Asked, _: int) -> Said:
            quiet.wait(30)
            return Said()

        self.script = script
        with mock.patch.object(client, "IDLE", 0.05):
            result = self.ostore("--retries=1", "ls")
        quiet.set()
        self.assertEqual(result.status, 1)
        self.assertIn("no answer in time", result.err)

    def test_bad_coding(self) -> None:
        """A content that is not what its coding says is status 4, and no file."""
        plain = b"text " * 10_000
        coded = zstandard.compress(plain)
        for kind, body, kept in (
            ("zstd", coded[:-5], {}),
            ("zstd", b"rubbish", {}),
            ("gzip", b"rubbish", {}),
            ("zstd", coded, {"X-Ostore-Meta-Plain-Sha256": "0" * 64}),
        ):
            headers = {"Content-Encoding": kind, **kept}
            self.script = in_parts(thing(body, body, **headers))
            for verb in ("get", "cat"):
                self.assertEqual(self.ostore(verb, "x").status, 4)
                self.assertEqual(self.files(), [])
            self.assertEqual(self.ostore("cat", "--raw", "x").raw, body)


class WritingTests(LyingTestCase):
    """put."""

    def setUp(self) -> None:
        """Something to send."""
        super().setUp()
        self.file("x", CONTENT)

    def test_stored_another(self) -> None:
        """When the service stored something else: status 4, and it is taken away."""

        def script(asked: Asked, _: int) -> Said:
            return Said(204) if asked.method == "DELETE" else made(WRONG, 17)

        self.script = script
        result = self.ostore("put", "x")
        self.assertEqual(result.status, 4)
        self.assertEqual(self.asked[-1].target, "/objects/x?version=17")
        del self.asked[:]
        self.assertEqual(self.ostore("put", "-", "--to", "x", stdin=b"1").status, 4)
        self.assertEqual(self.asked[-1].method, "DELETE")

    def test_damaged_on_the_way(self) -> None:
        """A body that does not fit its digest is status 4."""
        self.script = lambda _, __: problem(400, "digest-mismatch", "it differs")
        self.file("small", b"1")
        for words in (("put", "x"), ("put", "small")):
            self.assertEqual(self.ostore(*words).status, 4, words)

    def test_same_key(self) -> None:
        """A write whose answer is lost is sent again with the same key."""
        self.script = lambda _, number: Said(None) if number < 2 else made(CONTENT)
        self.assertEqual(self.ostore("put", "x").status, 0)
        keys = [asked.headers["Idempotency-Key"] for asked in self.asked]
        self.assertEqual((len(keys), len(set(keys))), (3, 1))
        self.assertEqual([asked.body for asked in self.asked], [CONTENT] * 3)

    def test_refused_early(self) -> None:
        """A refusal that comes while the body is sent is read and told."""
        large = self.folder / "large"
        with large.open("wb") as file:
            file.truncate(40 << 20)
        self.script = lambda _, __: attrs.evolve(
            problem(507, "no-space", "the disks are full"), early=True
        )
        result = self.ostore("put", "--threshold=1GiB", "--retries=0", "large")
        self.assertEqual(result.status, 1)

    def test_no_version(self) -> None:
        """An answer that is no version is a failure."""
        for said in (Said(200, {}, b"{}"), Said(200, {}, b"[]"), Said(200, {}, b"OK")):
            self.script = always(said)
            self.assertEqual(self.ostore("put", "x").status, 1)
        self.script = lambda _, __: Said(200, {}, b'{"version": 1}')
        self.assertEqual(self.ostore("put", "x").status, 1)

    def test_stream_once(self) -> None:
        """Standard input above the threshold is not sent twice."""
        self.script = lambda _, __: problem(503, "unavailable", "busy")
        words = ("put", "--threshold=1KiB", "-", "--to", "x")
        self.assertEqual(self.ostore(*words, stdin=bytes(5000)).status, 1)
        self.assertEqual(len(self.asked), 1)

    def test_digest_required(self) -> None:
        """Where a Digest is asked for, a large file is hashed before it is sent."""

        def script(asked: Asked, _: int) -> Said:
            if "Digest" not in asked.headers:
                return attrs.evolve(
                    problem(400, "malformed", "a Digest is required"), early=True
                )
            return made(CONTENT)

        self.script = script
        self.assertEqual(self.ostore("put", "x").status, 0)
        self.assertEqual(self.asked[-1].body, CONTENT)

    def test_token(self) -> None:
        """A token is sent with every request, and is not in what is said."""
        self.script = lambda _, __: made(CONTENT)
        result = self.ostore("put", "x", environ={"OSTORE_TOKEN": "abcdef"})
        self.assertEqual(result.status, 0)
        self.assertEqual(self.asked[0].headers["Authorization"], "Bearer abcdef")
        self.assertNotIn("abcdef", result.out + result.err)
