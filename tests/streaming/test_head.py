"""Heads in one piece are read as Twisted's parser reads them line by line."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ostore.streaming import parsing
from ostore.streaming.head import LONGEST_LENGTH, MOST_FIELDS, plain
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.site import StreamingSite
from tests.streaming.wire import Socket, fake_clock

MAX_HEAD = 2048
CURL = b"GET /a/b?c=d HTTP/1.1\r\nHost: x:8080\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"

METHODS = st.sampled_from([b"GET", b"PUT", b"HEAD", b"get", b"", b"G(T", b"POST"])
TARGETS = st.sampled_from(
    [b"/a", b"/a?b=c", b"*", b"http://h:1/a", b"", b"/\xc3\xa4", b"/\x07", b"/a b"]
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1"])
LINES = st.sampled_from(
    [
        *(b"Content-Length: " + n for n in (b"3", b"0", b"+3", b"3, 3", b"", b"1 2")),
        *(b"content-length:3\t", b"Content-Length: " + b"0" * 18 + b"3"),
        *(b"Transfer-Encoding: " + n for n in (b"chunked", b"identity", b"gzip")),
        *(b"Transfer-Encoding : chunked", b"transfer-encoding:\tCHUNKED"),
        *(b"Host: x", b"host:y", b"Host : x", b"Host: a b", b"Host:"),
        *(b"Expect: 100-continue", b"Expect: more", b"Connection: close"),
        *(b"Connection: TE, Close", b"X-A: 1", b"x-a:2", b"X-A:  \xff\t", b"X_a: "),
        *(b" folded", b"\tfolded", b"X: a\rb", b"X: a\nb", b"X: a\0b", b"X: \x0b\x85"),
        *(b"nonsense", b": nameless", b"X y: z", b"X\xff: y", b"X: " + b"y" * MAX_HEAD),
        b"\r\n".join([b"X: y"] * (MOST_FIELDS + 1)),
    ]
)
MANNERS = st.sampled_from(["read", "refuse", "wait"])
BODIES = st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"\r\n", b"ab", b"zz"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A few requests behind each other, most of them right; then some bytes changed."""
    stream = b""
    for _ in range(draw(st.integers(1, 3))):
        method, target = draw(METHODS), draw(TARGETS)
        lines = [b" ".join((method, target, draw(VERSIONS))), b"Host: x"]
        lines += draw(st.lists(LINES, max_size=3))
        if draw(st.booleans()):
            lines = [b"PUT /a HTTP/1.1", b"Host: x", b"Content-Length: 3"]
        stream += b"\r\n".join([*lines, b"", b""]) + draw(BODIES)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(stream)))
        other = draw(st.sampled_from([b"", b"\r", b"\n", b" ", b":", b"\0", b"\r\n"]))
        stream = stream[:at] + other + stream[at + draw(st.integers(0, 2)) :]
    return stream


Seen = tuple[Any, ...]


def served(pieces: list[bytes], manner: str) -> tuple[list[Seen], bytes, bool]:
    """The requests that came of it, what was answered, and whether that was the end."""
    seen: list[Seen] = []
    waiting: list[Deferred[None]] = []

    async def handle(request: StreamingRequest, reply: Reply) -> None:
        body = b""
        head = request.method, request.uri, request.version, dict(request.fields)
        before = request.body.length, request.body.complete, request.persistent
        seen.append((head, before))
        if manner == "refuse":
            reply.send(403)
            return
        if manner == "wait":
            waiting.append(Deferred())
            await waiting[-1]
        while piece := await request.body.read():
            body += piece
        seen.append((body, request.body.received))
        reply.send(200, body=body)

    _, clock = fake_clock()
    site = StreamingSite(handle, clock, bytes, max_head=MAX_HEAD)
    channel: Any = site.buildProtocol(None)
    transport = Socket()
    channel.makeConnection(transport)
    for piece in pieces:
        if not transport.disconnecting:
            channel.dataReceived(piece)
    while waiting:
        waiting.pop().callback(None)
    outcome = seen[:], transport.value(), transport.disconnecting
    channel.connectionLost(None)
    return outcome


class PlainTests(SynchronousTestCase):
    """What is read in one piece."""

    def test_as_sent(self) -> None:
        """Method, target, values without the white space around, names in lower case."""
        found = plain(CURL + b"behind", MAX_HEAD)
        assert found is not None
        self.assertEqual((found.method, found.target), (b"GET", b"/a/b?c=d"))
        fields = {b"host": [b"x:8080"], b"user-agent": [b"curl/8"], b"accept": [b"*/*"]}
        self.assertEqual(found.fields, fields)
        self.assertEqual((found.length, found.end), (0, len(CURL)))

    def test_length(self) -> None:
        """A length up to the most digits is known; lines of one name stay apart."""
        digits = b"9" * LONGEST_LENGTH
        lines = b"Host:\r\ncontent-length: " + digits + b"\r\nX-A: 1\r\nx-a: \xff \r\n"
        found = plain(b"PUT * HTTP/1.1\r\n" + lines + b"\r\n", MAX_HEAD)
        assert found is not None
        self.assertEqual(found.length, int(digits))
        self.assertEqual(found.fields[b"x-a"], [b"1", b"\xff"])

    def test_cut(self) -> None:
        """A head of which a byte lacks is none, nor is one beyond the limit."""
        for end in range(len(CURL)):
            self.assertIsNone(plain(CURL[:end], MAX_HEAD))
        self.assertIsNone(plain(CURL, len(CURL) - 1))
        self.assertIsNotNone(plain(CURL, len(CURL)))

    def test_not_plain(self) -> None:
        """What takes a second look is left to who reads line by line."""
        for line in (
            *(b"Host: x", b"Host: y", b" folded", b"X : y", b"nonsense", b": y"),
            *(b"X: a\rb", b"X: a\nb", b"X: a\0b", b"Expect: 100-continue"),
            *(b"Transfer-Encoding: chunked", b"Content-Length: +1"),
            *(b"Content-Length: ", b"Content-Length: " + b"0" * 19),
            *(b"Content-Length: 1\r\nContent-Length: 1", b"X\xff: y"),
            b"\r\n".join([b"X: y"] * MOST_FIELDS),
        ):
            head = b"PUT / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n"
            self.assertIsNone(plain(head, 1 << 20), line)
        for line in b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"\r\nGET / HTTP/1.1", b"":
            self.assertIsNone(plain(line + b"\r\nHost: x\r\n\r\n", MAX_HEAD), line)
        self.assertIsNone(plain(b"GET / HTTP/1.1\r\n\r\n", MAX_HEAD))


class BothWaysTests(SynchronousTestCase):
    """The same requests, answers and ends in both ways."""

    @settings(deadline=None, max_examples=400)
    @given(streams(), st.lists(st.integers(0, 400), max_size=3), MANNERS)
    @example(CURL + b"\r\n" + CURL + b"\r\n" + CURL, [len(CURL), len(CURL) + 2], "read")
    @example(CURL + b"\r\n\r\n" + CURL, [len(CURL) + 2], "read")
    @example(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab", [], "refuse")
    def test_same(self, stream: bytes, cuts: list[int], manner: str) -> None:
        """Whatever comes, cut anywhere, is taken or refused alike."""
        edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        pieces = [stream[a:b] for a, b in pairwise(edges)]
        found = served(pieces, manner)
        with patch.object(parsing, "plain", lambda *_: None):
            self.assertEqual(found, served(pieces, manner))
