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
        """The tag of any coding names the version."""
        for tag in (HASH, f"{HASH}-gzip", f"{HASH}-zstd"):
            answer = await self.get("gzip", If_None_Match=f'"{tag}"')
            self.assertEqual(answer.status, 304)
            self.assertEqual(answer.get("etag"), f'"{HASH}-gzip"')
            self.assertEqual(answer.get("vary"), "Accept-Encoding")
            self.assertEqual((await self.get("gzip", If_Match=f'"{tag}"')).status, 200)
        self.assert_problem(await self.get("gzip", If_Match=f'"{HASH}-br"'), 412)

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
