"""Bodies in the coding that a client asks for."""

from __future__ import annotations

import gzip
import hashlib
import io
from random import Random

import zstandard

from ostore.model.errors import TooFewShards
from tests.support.http import Answer, Cut
from tests.web.serving import Served

TEXT = b"".join(b"line %d of a text that shrinks\n" % n for n in range(20_000))
HASH = hashlib.sha256(TEXT).hexdigest()


def decoded(answer: Answer) -> bytes:
    """The body without its Content-Encoding."""
    coding = answer.get("content-encoding")
    if coding == "gzip":
        return gzip.decompress(answer.body)
    if coding == "zstd":
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(answer.body)) as it:
            return it.read()
    assert coding is None
    return answer.body


class CodingTests(Served):
    """Accept-Encoding (RFC 9110, 12.5.3)."""

    def setUp(self) -> None:
        """A text that shrinks."""
        super().setUp()
        self.store.fill("a", TEXT, headers={"content-type": "text/plain"})

    async def get(self, accepted: str, name: str = "a", **more: str) -> Answer:
        """A GET with that Accept-Encoding."""
        lines = {key.replace("_", "-"): value for key, value in more.items()}
        return await self.ask(
            "GET", f"/objects/{name}", {"Accept-Encoding": accepted, **lines}
        )

    async def test_zstd_window(self) -> None:
        """No more than 512 KiB of a body is held by zstd; a client may rely on it."""
        self.store.fill("long", TEXT * 4, headers={"content-type": "text/plain"})
        answer = await self.get("zstd", "long")
        frame = zstandard.get_frame_parameters(answer.body)
        self.assertEqual(frame.window_size, 512 * 1024)
        self.assertEqual(decoded(answer), TEXT * 4)

    async def test_codings(self) -> None:
        """Either coding of the whole body: smaller, exact, with a tag of their own."""
        for accepted, coding in (
            ("gzip", "gzip"),
            ("zstd", "zstd"),
            ("gzip, zstd;q=0.5", "gzip"),
            ("br, zstd", "zstd"),
        ):
            answer = await self.get(accepted)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.get("content-encoding"), coding)
            self.assertEqual(answer.get("etag"), f'"{HASH}-{coding}"')
            self.assertEqual(answer.get("vary"), "Accept-Encoding")
            self.assertIsNone(answer.get("content-length"))
            self.assertIsNone(answer.get("digest"))
            self.assertIsNone(answer.get("repr-digest"))
            self.assertLess(len(answer.body), len(TEXT) // 4)
            self.assertEqual(decoded(answer), TEXT)

    async def test_plain(self) -> None:
        """Who asks for none, or refuses ours, gets the bytes as they are."""
        for accepted in ("", "identity", "br", "gzip;q=0, zstd;q=0"):
            answer = await self.get(accepted)
            self.assertEqual((answer.status, answer.body), (200, TEXT))
            self.assertEqual(answer.get("etag"), f'"{HASH}"')
            self.assertEqual(answer.get("vary"), "Accept-Encoding")

    async def test_not_acceptable(self) -> None:
        """Who refuses everything there is gets 406."""
        for accepted in ("*;q=0", "identity;q=0, br"):
            self.assert_problem(await self.get(accepted), 406)

    async def test_left_alone(self) -> None:
        """What is coded already, of a compressed type or small stays as it is."""
        noise = Random(1).randbytes(3000)
        self.store.fill("kept", noise, headers={"content-encoding": "br"})
        self.store.fill("picture", noise, headers={"content-type": "image/png"})
        self.store.fill("small", b"x" * 100)
        for name, coding in (("kept", "br"), ("picture", None), ("small", None)):
            answer = await self.get("gzip", name)
            self.assertEqual(answer.get("content-encoding"), coding)
            self.assertIsNone(answer.get("vary"))
            self.assertTrue(answer.get("digest"))

    async def test_ranges_are_of_the_plain_body(self) -> None:
        """A range is one of the plain bytes; a tag with a coding never makes it count."""
        answer = await self.get("gzip", Range="bytes=10-19")
        self.assertEqual((answer.status, answer.body), (206, TEXT[10:20]))
        self.assertEqual(answer.get("etag"), f'"{HASH}"')
        answer = await self.get("gzip", Range="bytes=10-19", If_Range=f'"{HASH}-gzip"')
        self.assertEqual((answer.status, decoded(answer)), (200, TEXT))

    async def test_conditions(self) -> None:
        """A 304 names what the client has, if it takes that; If-Match the version."""
        for accepted, asked, told in (
            ("gzip", f'"{HASH}-gzip"', f"{HASH}-gzip"),
            ("gzip", f'W/"{HASH}-gzip"', f"{HASH}-gzip"),
            ("gzip", f'"{HASH}"', HASH),
            ("gzip, zstd", f'"{HASH}-gzip"', f"{HASH}-gzip"),
            ("gzip, zstd", f'"{HASH}", "{HASH}-gzip"', f"{HASH}-gzip"),
            ("gzip, zstd", "*", f"{HASH}-zstd"),
            ("", f'"{HASH}"', HASH),
            ("", "*", HASH),
            # a cache must not be told to hand these bytes to that client
            ("gzip", f'"{HASH}-zstd"', None),
            ("", f'"{HASH}-gzip"', None),
            ("gzip, identity;q=0", f'"{HASH}"', None),
        ):
            answer = await self.get(accepted, If_None_Match=asked)
            if told is None:
                self.assertEqual((answer.status, decoded(answer)), (200, TEXT), asked)
                continue
            self.assertEqual(answer.status, 304, (accepted, asked))
            self.assertEqual(answer.get("etag"), f'"{told}"')
            self.assertEqual(answer.get("vary"), "Accept-Encoding")
        for tag in (HASH, f"{HASH}-gzip", f"{HASH}-zstd"):
            self.assertEqual((await self.get("gzip", If_Match=f'"{tag}"')).status, 200)
        self.assert_problem(await self.get("gzip", If_Match=f'"{HASH}-br"'), 412)

    async def test_without_accept_encoding(self) -> None:
        """Who says nothing takes everything, and gets the plain body."""
        for tag in (HASH, f"{HASH}-gzip"):
            headers = {"If-None-Match": f'"{tag}"'}
            answer = await self.ask("GET", "/objects/a", headers)
            self.assertEqual((answer.status, answer.get("etag")), (304, f'"{tag}"'))
        answer = await self.ask("GET", "/objects/a")
        self.assertEqual((answer.get("etag"), answer.body), (f'"{HASH}"', TEXT))

    async def test_part_of_what_was_coded(self) -> None:
        """If-Match with the tag of coded bytes never gives a part of the plain ones."""
        for tag, status in ((HASH, 206), (f"{HASH}-gzip", 412)):
            answer = await self.get("gzip", Range="bytes=0-9", If_Match=f'"{tag}"')
            self.assertEqual(answer.status, status)
        answer = await self.get(
            "gzip", Range="bytes=0-9", If_Match=f'"{HASH}-gzip"', If_Range='"0"'
        )
        self.assertEqual((answer.status, decoded(answer)), (200, TEXT))

    async def test_not_modified_since(self) -> None:
        """A 304 by date bears the tag of what a GET would have given."""
        first = await self.get("gzip")
        since = first.get("last-modified") or ""
        answer = await self.get("gzip", If_Modified_Since=since)
        self.assertEqual(answer.status, 304)
        self.assertEqual(answer.get("etag"), first.get("etag"))

    async def test_wanted_digest(self) -> None:
        """Who wants the digest gets the bytes of which it is known, if it takes them."""
        plain = await self.ask("GET", "/objects/a")
        for wanted, coding, digest in (
            ("sha-256=10", None, True),
            ("md5=3, sha-256=1;x", None, True),
            ("sha-256=0", "gzip", False),
            ("sha-512=9", "gzip", False),
            ("sha-256=11", "gzip", False),
            ("sha-256=:x:", "gzip", False),
            ("SHA-256=3", "gzip", False),
            ("", "gzip", False),
        ):
            answer = await self.get("gzip", Want_Repr_Digest=wanted)
            self.assertEqual(answer.get("content-encoding"), coding, wanted)
            self.assertEqual(decoded(answer), TEXT)
            self.assertEqual(answer.get("repr-digest") is not None, digest, wanted)
            if digest:
                self.assertEqual(answer.get("repr-digest"), plain.get("repr-digest"))
        answer = await self.get("gzip, identity;q=0", Want_Repr_Digest="sha-256=1")
        self.assertEqual(answer.get("content-encoding"), "gzip")

    async def test_unwanted_digest(self) -> None:
        """Who refuses the digest gets none; nonsense is passed over."""
        for wanted, sent in (("sha-256=0", False), ("=", True), ("sha-256", True)):
            for more in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=0-9,900-999"}):
                headers = {"Want-Repr-Digest": wanted, **more}
                answer = await self.ask("GET", "/objects/a", headers)
                self.assertEqual(answer.get("repr-digest") is not None, sent)

    async def test_head(self) -> None:
        """HEAD has the headers of GET, and no length that is not known."""
        answer = await self.ask("HEAD", "/objects/a", {"Accept-Encoding": "zstd"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.get("content-encoding"), "zstd")
        self.assertIsNone(answer.get("content-length"))
        self.assertEqual(self.store.streams, [])

    async def test_broken_off(self) -> None:
        """A coded body that breaks off is cut, never ended."""
        self.store.fail_after, self.store.stream_error = 65536, TooFewShards("too few")
        with self.assertRaises(Cut):
            await self.get("gzip")
        self.assertTrue(self.store.streams[-1].closed)
