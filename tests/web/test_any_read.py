"""GET and HEAD with any conditions, ranges and codings at once, against RFC 9110."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import cast

import attrs
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock as FakeTime
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.store import ObjectStore
from ostore.model.encodings import IDENTITY, LEAST, OFFERED
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.site import StreamingSite
from ostore.web.api.root import Api
from tests.model.test_encodings import Wishes, accepts, quality
from tests.support.http import Answer
from tests.web.fake_store import FakeStore
from tests.web.test_parts import parts_of

SIZES = (0, 1, 100, 1000)
LAST_MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE, AFTER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"
NAMES = ("", "-gzip", "-zstd", "-other")
"""What stands behind the hash in a tag."""
TAGS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(NAMES)), min_size=1, max_size=3
)
LISTS = st.none() | st.just("*") | TAGS
DATES = st.sampled_from([None, BEFORE, LAST_MODIFIED, AFTER, "soon"])
SPOTS = st.integers(0, 1100)
SPECS = (
    st.tuples(SPOTS, SPOTS).map(lambda pair: f"{min(pair)}-{max(pair)}")
    | SPOTS.map(lambda first: f"{first}-")
    | SPOTS.map(lambda last: f"-{last}")
)
RANGES = st.none() | st.lists(SPECS, min_size=1, max_size=4) | st.just(["5-2"])


class _Wire(StringTransport):
    """A socket that takes everything."""

    def setTcpNoDelay(self, _: bool) -> None:  # noqa: N802 - Twisted's
        """Nothing to hold back."""


@attrs.frozen
class Asked:
    """One request, and what its headers mean."""

    method: str
    size: int
    match: object
    none_match: object
    since: str | None
    unmodified: str | None
    ranges: list[str] | None
    if_range: tuple[bool, str] | str | None
    accepted: tuple[str, Wishes] | None

    def lines(self, hash: str) -> list[str]:
        """The header lines."""
        if_range = self.if_range
        if isinstance(if_range, tuple):
            if_range = tags(hash, [if_range])
        values = {
            "If-Match": tags(hash, self.match),
            "If-None-Match": tags(hash, self.none_match),
            "If-Modified-Since": self.since,
            "If-Unmodified-Since": self.unmodified,
            "Range": self.ranges and f"bytes={', '.join(self.ranges)}",
            "If-Range": if_range,
            "Accept-Encoding": self.accepted and self.accepted[0],
        }
        return [f"{key}: {value}" for key, value in values.items() if value is not None]

    @property
    def codings(self) -> list[str]:
        """The codings that the client takes of this object."""
        if self.size < LEAST:
            return [IDENTITY]
        if self.accepted is None:
            return [IDENTITY, *OFFERED]
        wishes = self.accepted[1]
        all_of_them = [*OFFERED, IDENTITY]
        found = [coding for coding in all_of_them if quality(wishes, coding) > 0]
        return sorted(found, key=lambda coding: -quality(wishes, coding))

    @property
    def spans(self) -> list[range] | None:
        """The bytes of each range that counts; None: the whole is asked for."""
        if self.method == "HEAD" or self.ranges in (None, ["5-2"]):
            return None
        if isinstance(self.if_range, tuple) and self.if_range != (False, ""):
            return None
        if isinstance(self.if_range, str) and self.if_range != LAST_MODIFIED:
            return None
        found = []
        for spec in self.ranges or ():
            first, _, last = spec.partition("-")
            if not first and int(last) and not self.size:
                return None
            start = int(first) if first else max(0, self.size - int(last))
            stop = int(last) + 1 if first and last else self.size
            found.append(range(start, min(stop, self.size)))
        held = [span for span in found if span]
        if len(held) > 1 and sum(map(len, held)) > self.size:
            return None
        return held

    @property
    def part(self) -> bool:
        """Whether Range is there and no If-Range forbids it."""
        return (
            self.method == "GET"
            and self.ranges is not None
            and (self.if_range in (None, LAST_MODIFIED, (False, "")))
        )

    @property
    def status(self) -> int:
        """Section 13.2.2, then the range, then the coding."""
        if self.match is not None:
            if not self._matches():
                return 412
        elif self.unmodified == BEFORE:
            return 412
        if self.none_match is not None:
            if self._held():
                return 304
        elif self.since in (LAST_MODIFIED, AFTER):
            return 304
        spans = self.spans
        if spans is not None:
            return 206 if spans else 416
        return 200 if self.codings else 406

    def _matches(self) -> bool:
        names = [""] if self.part else ["", "-gzip", "-zstd"]
        return self.match == "*" or any(
            not weak and name in names
            for weak, name in cast("list[tuple[bool, str]]", self.match)
        )

    def _held(self) -> bool:
        names = ["" if c == IDENTITY else f"-{c}" for c in self.codings]
        if self.none_match == "*":
            return bool(names)
        asked = cast("list[tuple[bool, str]]", self.none_match)
        return any(name in names for _, name in asked)


REQUESTS = st.builds(
    Asked,
    st.sampled_from(["GET", "GET", "HEAD"]),
    st.sampled_from(SIZES),
    LISTS,
    LISTS,
    DATES,
    DATES,
    RANGES,
    st.none()
    | st.tuples(st.booleans(), st.sampled_from(NAMES))
    | st.sampled_from([BEFORE, LAST_MODIFIED, "soon"]),
    st.none() | accepts(),
)


def tags(hash: str, asked: object) -> str | None:
    """A list of tags as it is written."""
    if asked is None or isinstance(asked, str):
        return asked
    pairs = cast("Sequence[tuple[bool, str]]", asked)
    return ", ".join(f'{"W/" * weak}"{hash}{name}"' for weak, name in pairs)


def read(data: bytes, method: str) -> Answer:
    """The one answer that these bytes are."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple(
        (name.lower(), value)
        for name, _, value in (line.partition(": ") for line in lines)
    )
    answer = Answer(int(first.split()[1]), headers, body)
    if answer.get("transfer-encoding") == "chunked" and method != "HEAD":
        whole = bytearray()
        while True:
            size, _, body = body.partition(b"\r\n")
            whole += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
            if not int(size, 16):
                assert not body
                return attrs.evolve(answer, body=bytes(whole))
    return answer


class AnyReadTests(SynchronousTestCase):
    """One answer, and the right one, to whatever is sent together."""

    def setUp(self) -> None:
        """An object of each size."""
        self.store = FakeStore(piece=333)
        for size in SIZES:
            text = (b"0123456789abcdef" * 64)[:size]
            self.store.moments = 0
            self.store.fill(f"o{size}", text, headers={"content-type": "text/x-a"})
        time = FakeTime()
        clock = Clock(time, time.seconds, time.seconds)
        store = cast("ObjectStore", self.store)
        api = Api(store, clock, lambda _: None, InlineWorkers())
        self.site = StreamingSite(api, clock, os.urandom)

    def ask(self, asked: Asked, hash: str) -> Answer:
        """The answer, on a connection of its own."""
        wire = _Wire()
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert channel is not None
        channel.makeConnection(wire)
        head = [f"{asked.method} /objects/o{asked.size} HTTP/1.1", "Host: test"]
        text = "\r\n".join([*head, *asked.lines(hash)]) + "\r\n\r\n"
        channel.dataReceived(text.encode())
        return read(wire.value(), asked.method)

    @settings(deadline=None, max_examples=800)
    @given(REQUESTS)
    def test_any(self, asked: Asked) -> None:
        """Status, tag and bytes are what the RFC wants of this object."""
        version = self.store.names[f"o{asked.size}"][0]
        content, hash = self.store.contents[version.hash], version.hash
        answer = self.ask(asked, hash)
        self.assertEqual(answer.status, asked.status)
        if asked.method == "HEAD" or answer.status == 304:
            self.assertEqual(answer.body, b"")
        elif answer.get("transfer-encoding") is None:
            self.assertEqual(answer.get("content-length"), str(len(answer.body)))
        if answer.status not in (412, 416):
            vary = "Accept-Encoding" if asked.size >= LEAST else None
            self.assertEqual(answer.get("vary"), vary)
        if answer.status == 416:
            self.assertEqual(answer.get("content-range"), f"bytes */{asked.size}")
        elif answer.status == 206:
            self.assertEqual(answer.get("etag"), f'"{hash}"')
            self.assert_parts(answer, asked.spans or [], content)
        elif answer.status == 200:
            self.assert_whole(answer, asked.codings[0], content, hash)

    def assert_whole(
        self, answer: Answer, coding: str, content: bytes, hash: str
    ) -> None:
        """All of it, in the coding that the client likes best."""
        plain = coding == IDENTITY
        name = hash if plain else f"{hash}-{coding}"
        self.assertEqual(answer.get("etag"), f'"{name}"')
        self.assertEqual(answer.get("content-encoding"), None if plain else coding)
        self.assertEqual(answer.get("digest") is not None, plain)
        if plain:
            self.assertEqual(answer.get("content-length"), str(len(content)))
            self.assertIn(answer.body, (content, b""))
        elif answer.body:
            body = (
                zlib.decompress(answer.body, 47)
                if coding == "gzip"
                else zstandard.ZstdDecompressor()
                .decompressobj()
                .decompress(answer.body)
            )
            self.assertEqual(body, content)

    def assert_parts(
        self, answer: Answer, spans: Sequence[range], content: bytes
    ) -> None:
        """Every byte asked for, each once, and between them only what is near."""
        if (answer.get("content-type") or "").startswith("multipart/"):
            parts = [(where, payload) for _, where, payload in parts_of(answer)]
            self.assertGreater(len(parts), 1)
        else:
            parts = [(answer.get("content-range") or "", answer.body)]
        sent: list[int] = []
        for where, payload in parts:
            first, _, last = where.removeprefix("bytes ").split("/")[0].partition("-")
            self.assertEqual(where.split("/")[1], str(len(content)))
            self.assertEqual(payload, content[int(first) : int(last) + 1])
            sent += range(int(first), int(last) + 1)
        self.assertEqual(len(sent), len(set(sent)))
        wanted = {spot for span in spans for spot in span}
        self.assertEqual(wanted, set(sent))
