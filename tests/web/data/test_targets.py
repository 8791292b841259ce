"""What is no target of a node: tricks, wrong methods, strange parameters."""

from __future__ import annotations

import re
from random import Random
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.nodes.protocol import FRAMES
from ostore.model.errors import Malformed
from ostore.model.names import shard_name
from ostore.web.data.targets import CONTENT, ROUTES, SHARD, TEMPORARY, UNKNOWN, match
from tests.contracts.shards import put, sample
from tests.web.data.serving import ServedNode, digest_of, stream

HASH = "ab" * 32
ONE = sample(1, 2500)

TRICKS = (
    "/objects/..",
    "/objects/../node.json",
    "/objects/../../../etc/passwd",
    "/objects/%2e%2e/node.json",
    "/objects/%2E%2E%2Fnode.json",
    "/objects/..%2fnode.json",
    "/objects/..%5cnode.json",
    "/objects/..\\node.json",
    "/objects//etc/passwd",
    "/objects/%2fetc%2fpasswd",
    "/objects/./" + HASH + ".0",
    "/objects/" + HASH + ".0/..",
    "/objects/" + HASH + ".0/",
    "/objects/" + HASH + ".0%00",
    "/objects/" + HASH + ".0%00.jpg",
    "/objects/" + HASH + ".0/x/y",
    "/objects/ab/" + HASH + ".0",
    "/objects/" + HASH + ".0%",
    "/objects/" + HASH + ".0%zz",
    "/objects/" + "a" * 2000,
    "/objects/",
    "/objects/%00",
    "/temp/..",
    "/temp/../node.json",
    "/temp/%2e%2e",
    "/temp/..%2f..%2fnode.json",
    "/temp//etc/passwd",
    "/temp/%2fetc%2fpasswd",
    "/temp/%00",
    "/temp/",
    "/temp/" + "8" * 32 + "%00",
    "/temp/" + "8" * 32 + "/..",
    "/temp/" + "a" * 2000,
    "/../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/garbage/../node.json",
    "etc/passwd",
    "http://127.0.0.1/objects/" + HASH + ".0",
    "file:///etc/passwd",
    "*",
)
"""Paths that try to lead elsewhere; each is 400 for every method."""

NOT_NAMES = (
    "/objects/" + HASH[:-1] + "%256" + ".0",
    "/objects/x",
    "/objects/" + HASH[:-1],
    "/objects/" + HASH + "0",
    "/objects/" + HASH.upper() + ".0",
    "/objects/" + HASH + ".",
    "/objects/" + HASH + ".-1",
    "/objects/" + HASH + ".32",
    "/objects/" + HASH + ".00",
    "/objects/" + HASH + ".0.1",
    "/objects/" + HASH + ".٣",
    "/objects/" + HASH + ".0 ",
    "/objects/ " + HASH + ".0",
    "/objects/" + HASH + ".0%0a",
    "/objects/" + HASH + ".0." + "1" * 32,
)
"""Names that are not exactly a hash, or a hash and an index."""


class MatchTests(SynchronousTestCase):
    """From a path as sent to who answers it."""

    def test_routes(self) -> None:
        """Each kind of target finds its route, percent-encoded or not."""
        self.assertEqual(match(f"/objects/{HASH}".encode()), (CONTENT, HASH))
        self.assertEqual(match(f"/objects/{HASH}.7".encode()), (SHARD, f"{HASH}.7"))
        encoded = f"/objects/%61{HASH[1:]}%2E7".encode()
        self.assertEqual(match(encoded), (SHARD, f"{HASH}.7"))
        self.assertEqual(match(b"/temp/any%20name"), (TEMPORARY, "any name"))
        for path in ("/node", "/shards", "/cluster-id", "/metrics", "/health/ready"):
            self.assertEqual(match(path.encode()), (path, ""))
            self.assertIn(path, ROUTES)
        for path in ("/nodes", "/shards/x", "/health", "/health/x", "/%6eode"):
            self.assertEqual(match(path.encode())[0], UNKNOWN)

    def test_decoded_once(self) -> None:
        """What is encoded twice is decoded once."""
        self.assertEqual(match(b"/temp/%252e%252e"), (TEMPORARY, "%2e%2e"))

    @settings(deadline=None, max_examples=400)
    @given(st.binary(max_size=120))
    @example(b"/..")
    @example(b"/" + HASH.encode())
    @example(HASH.encode() + b".31")
    def test_any_bytes(self, tail: bytes) -> None:
        """Whatever is sent as a name of a shard is that name exactly, or refused."""
        for sent in (tail, quote_from_bytes(tail, safe="").encode()):
            try:
                label, name = match(b"/objects/" + sent)
                hash, index = shard_name(name)
            except Malformed:
                continue
            self.assertIn(label, (CONTENT, SHARD))
            shown = hash if index is None else f"{hash}.{index}"
            self.assertEqual(unquote_to_bytes(sent), shown.encode())
            self.assertRegex(shown, re.compile(r"\A[0-9a-f]{64}(\.[0-9]{1,2})?\Z"))

    @settings(deadline=None, max_examples=200)
    @given(
        st.lists(
            st.sampled_from(["..", ".", "%2e", "%2F", "/", "%5c", "\\", "a", "%00"]),
            max_size=8,
        )
    )
    def test_tricks_are_no_segment(self, parts: list[str]) -> None:
        """A path that is matched has plain segments alone."""
        for prefix in ("/temp/", "/objects/", "/", ""):
            try:
                _, name = match((prefix + "".join(parts)).encode())
            except Malformed:
                continue
            self.assertNotIn(name, ("..", "."))
            self.assertFalse({"/", "\\", "\0"} & set(name), name)


class TrickTests(ServedNode):
    """The same, over the wire."""

    async def test_tricks(self) -> None:
        """Every trick is 400 with every method, and touches nothing."""
        await put(self.node.store, ONE)
        before = self.files_below()
        for target in TRICKS:
            for method in ("GET", "PUT", "POST", "PATCH", "DELETE"):
                headers = {"Size": "1"} if method == "POST" else {}
                answer = await self.ask(method, target, headers)
                self.assert_problem(answer, 400, "malformed")
        self.assertEqual(self.files_below(), before)
        self.assertEqual(len(self.node.store.temporaries), 0)

    async def test_raw_bytes(self) -> None:
        """Neither raw NUL nor bytes above 127 in a path do anything but 400."""
        for path in (b"/objects/\0", b"/temp/\xff\xfe", b"/objects/" + b"\xe2\x80\xae"):
            connection = await self.connected()
            target = path.decode("utf-8", "surrogateescape")
            lines = self.signed("DELETE", target)
            head = [b"DELETE " + path + b" HTTP/1.1"]
            head += [f"{name}: {value}".encode() for name, value in lines]
            connection.send(b"\r\n".join(head) + b"\r\n\r\n")
            self.assertEqual((await connection.answer("DELETE")).status, 400)

    async def test_not_names(self) -> None:
        """A name is exactly 64 hex digits, or those and an index from 0 to 31."""
        await put(self.node.store, ONE)
        before = self.files_below()
        for name in NOT_NAMES:
            target = name if name.isascii() else name.replace("٣", "%D9%A3")
            target = target.replace(" ", "%20")
            for method in ("GET", "HEAD", "DELETE"):
                answer = await self.ask(method, target)
                self.assertEqual(answer.status, 400, target)
        self.assertEqual(self.files_below(), before)

    async def test_not_uuids(self) -> None:
        """A temporary is named by exactly 32 hex digits, in the query too."""
        for name in ("x", "8" * 31, "8" * 33, "G" * 32, "A" * 32):
            for method, headers in (
                ("GET", {}),
                ("HEAD", {}),
                ("DELETE", {}),
                ("PATCH", {"Upload-Offset": "0"}),
            ):
                answer = await self.ask(method, f"/temp/{name}", headers)
                self.assertEqual(answer.status, 400, name)
            answer = await self.ask("POST", f"/temp/x?uuid={name}")
            self.assert_problem(answer, 400, "malformed")
        for name in ("..%2f..%2fx", "%2e%2e", "%00", ""):
            answer = await self.ask("POST", f"/temp/x?uuid={name}")
            self.assert_problem(answer, 400, "malformed")
        self.assertEqual(len(self.node.store.temporaries), 0)

    async def test_as_is_a_name(self) -> None:
        """`as` and `layout` are parsed as strictly as the path."""
        uuid = await self.create()
        layout = {"X-Ostore-Layout": "k=4; m=2; size=0; id=" + "0" * 32}
        for name in ("", "x", HASH, HASH + ".32", "../x", "%2e%2e%2fx", HASH + ".0%00"):
            answer = await self.ask("PUT", f"/temp/{uuid}?as={name}", layout)
            self.assert_problem(answer, 400, "malformed")
        for text in ("x", "..", "%2e%2e%2f", "0" * 31, "F" * 32, ""):
            for method in ("GET", "DELETE"):
                answer = await self.ask(method, f"/objects/{HASH}.0?layout={text}")
                self.assert_problem(answer, 400, "malformed")

    async def test_unknown(self) -> None:
        """What is nothing of ours is 404."""
        for target in ("/nodes", "/health", "/objects", "/temp", "/etc/passwd", "/"):
            answer = await self.ask("GET", target)
            self.assert_problem(answer, 404, "not-found")

    async def test_405(self) -> None:
        """A method that a target does not have is 405 with those it has."""
        shard, uuid = f"/objects/{HASH}.0", await self.create()
        content = "GET, HEAD, POST, DELETE, OPTIONS"
        for method, target, allowed in (
            ("PUT", shard, content),
            ("PUT", f"/objects/{HASH}", content),
            ("PUT", "/objects/anything", content),
            ("PATCH", shard, content),
            ("BREW", shard, content),
            (
                "OPTIONS2",
                f"/temp/{uuid}",
                "POST, PATCH, PUT, GET, HEAD, DELETE, OPTIONS",
            ),
            ("POST", "/node", "GET, HEAD, OPTIONS"),
            ("DELETE", "/shards", "GET, HEAD, OPTIONS"),
            ("GET", "/cluster-id", "POST, OPTIONS"),
            ("POST", "/health/ready", "GET, HEAD, OPTIONS"),
            ("PUT", "/metrics", "GET, HEAD, OPTIONS"),
        ):
            answer = await self.ask(method, target)
            self.assert_problem(answer, 405, "method-not-allowed")
            self.assertEqual(answer.get("allow"), allowed)
            options = await self.ask("OPTIONS", target)
            self.assertEqual((options.status, options.get("allow")), (204, allowed))
        self.assertEqual(self.node.shard_count, 0)

    async def test_unknown_parameters(self) -> None:
        """A parameter that is not known here is refused: it may be a condition."""
        await put(self.node.store, ONE)
        target = f"/objects/{ONE.key.hash}.{ONE.key.index}"
        for method, asked in (
            ("DELETE", f"{target}?epoch=7"),
            ("POST", f"/objects/{ONE.key.hash}?do=restore&epoch=7"),
            ("POST", "/temp/x?claim=3"),
            ("DELETE", f"{target}?layout={ONE.key.layout}&layout={ONE.key.layout}"),
            ("GET", "/shards?limit=1&limit=2"),
            ("GET", "/node?x"),
        ):
            answer = await self.ask(method, asked)
            self.assert_problem(answer, 400, "malformed")
        self.assertEqual(self.node.shard_count, 1)
        self.assertEqual(len(self.node.store.temporaries), 0)

    async def test_values(self) -> None:
        """Numbers are plain digits within their bounds."""
        uuid = await self.create()
        for method, target, headers in (
            ("POST", "/temp/x", {"Size": "-1"}),
            ("POST", "/temp/x", {"Size": "1e3"}),
            ("POST", "/temp/x", {"Size": "9" * 19}),
            ("POST", "/temp/x", {"Size": ""}),
            ("PATCH", f"/temp/{uuid}", {}),
            ("PATCH", f"/temp/{uuid}", {"Upload-Offset": "x"}),
            ("PATCH", f"/temp/{uuid}", {"Upload-Offset": "+0"}),
            ("GET", "/shards?limit=0", {}),
            ("GET", "/shards?limit=1001", {}),
            ("GET", "/shards?limit=x", {}),
            ("GET", "/shards?after=x", {}),
            ("POST", "/cluster-id?id=x", {}),
            ("POST", "/cluster-id?id=x&epoch=-1", {}),
            ("POST", "/cluster-id?id=..%2f&epoch=1", {}),
            ("GET", f"/objects/{HASH}.0?part=other", {}),
            ("GET", f"/objects/{HASH}.0?stripes=2-1", {}),
            ("GET", f"/objects/{HASH}.0?stripes=x", {}),
            ("POST", f"/objects/{HASH}.0?do=x", {}),
            ("POST", f"/objects/{HASH}?do=renew", {}),
        ):
            answer = await self.ask(method, target, headers)
            self.assert_problem(answer, 400, "malformed")
        self.assertEqual(len(self.node.store.temporaries), 1)


KNOWN = (200, 201, 204, 206, 400, 404, 405, 409, 410, 411, 413, 416, 421)
"""What a signed request of any kind is answered with; never 500."""


class RandomTests(ServedNode):
    """Requests that are put together by chance from good parts and bad ones."""

    async def test_never_500(self) -> None:
        """Each has an answer of ours, and nothing is logged as our mistake."""
        rng = Random(3)
        await put(self.node.store, ONE)
        shard = f"{ONE.key.hash}.{ONE.key.index}"
        names = [ONE.key.hash, *3 * [shard], HASH, "8" * 32, "x"]
        layouts = [ONE.layout.header(), "k=4; m=2; size=9", "k=1; m=0; size=0", "\xff"]
        numbers = ["0", "1", "999999999", "9" * 18, "9" * 19, "-1", "1.5", "x", ""]
        odd = ["%ff", "%00", "..", "a b", "", "x", "0-0"]
        fields = {
            "do": ["renew", "restore", "condemn", "bad", "put"],
            "layout": [ONE.key.layout, ONE.key.layout, "8" * 32],
            "as": names,
            "uuid": ["7" * 32, "8" * 32],
            "token": ["7" * 32],
            "after": [HASH, ONE.key.hash],
            "part": ["index"],
            "stripes": ["0-0", "1-9", "2-1"],
            **dict.fromkeys(["age", "deadline", "limit", "id", "epoch"], numbers),
        }
        headers = {
            "X-Ostore-Layout": layouts,
            "Content-Type": [FRAMES, "text/plain", "x;;"],
            "Accept": [FRAMES, "*/*", ",,;"],
            "Digest": [digest_of(ONE.frames), "SHA-256=x", "MD5=1", "\xff"],
            "Size": numbers,
            "Upload-Offset": numbers,
            "Range": ["bytes=0-", "bytes=-5", "bytes=99999-", "x", "bytes=5-2"],
        }
        bodies = [b"", b"x" * 50, stream(ONE.frames), stream(ONE.frames)[:-1], None]
        starts = [
            ("/objects/", names),
            ("/temp/", ["7" * 32, "8" * 32]),
            ("/", ["shards", "node", "cluster-id", "metrics", "nothing"]),
        ]
        seen = set()
        connection = await self.connected()
        for number in range(1500):
            if number % 50 == 0:
                await put(self.node.store, ONE)
            method = rng.choice(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
            start, named = rng.choice(starts)
            name = rng.choice(named)
            query = []
            for field in rng.sample(sorted(fields), rng.choice([0, 0, 1, 1, 2])):
                value = rng.choice(odd if rng.random() < 0.1 else fields[field])
                query.append(f"{field}={quote(value, safe='%.-')}")
            target = start + name + ("?" + "&".join(query) if query else "")
            chosen = rng.sample(sorted(headers), rng.randint(0, 4))
            given = {name: rng.choice(headers[name]) for name in chosen}
            body = rng.choice(bodies) if method in ("POST", "PUT", "PATCH") else None
            lines = self.signed(method, target, given)
            if body is not None:
                lines.append(("Content-Length", str(len(body))))
            encoded = [(name, value.encode()) for name, value in lines]
            connection.ask(method, target, encoded)
            connection.send(body or b"")
            answer = await connection.answer(method)
            self.assertIn(answer.status, KNOWN, (method, target, given))
            seen.add(answer.status)
            if connection.lost or answer.get("connection") == "close":
                await connection.close()
                connection = await self.connected()
        self.assertLessEqual({200, 201, 204, 400, 404, 405}, seen)
