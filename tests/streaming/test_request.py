"""Request bodies as streams, on real sockets."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ostore.model.errors import ClientGone
from ostore.streaming.channel import RECEIVE
from ostore.streaming.gate import GateClosed
from ostore.streaming.reply import Reply
from ostore.streaming.request import BODY_HIGH, StreamingRequest
from tests.streaming.wire import RawClient, SiteCase, turns, until

GET = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


def put(*headers: bytes) -> bytes:
    """The head of a PUT."""
    return b"\r\n".join((b"PUT /name?a=b HTTP/1.1", b"Host: x", *headers, b"", b""))


class Echo:
    """Reads the whole body and gives it back."""

    def __init__(self) -> None:
        self.requests: list[StreamingRequest] = []
        self.errors: list[Exception] = []

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Answer with the body."""
        self.requests.append(request)
        body = b""
        try:
            while piece := await request.body.read():
                body += piece
        except ClientGone as error:
            self.errors.append(error)
            raise
        reply.send(200, body=body)


class Slow:
    """Hands the request over to the test and waits for its word."""

    def __init__(self) -> None:
        self.begun: Deferred[StreamingRequest] = Deferred()
        self.go: Deferred[None] = Deferred()
        self.error: Exception | None = None
        self.received = 0

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Hold the first request, answer the others."""
        if self.begun.called:
            reply.send(200)
            return
        self.begun.callback(request)
        await self.go
        try:
            while piece := await request.body.read():
                self.received += len(piece)
        except ClientGone as error:
            self.error = error
            raise
        reply.send(200, body=b"%d" % self.received)


class BodyTests(SiteCase):
    """What comes in, and that the connection lives on."""

    async def test_plain_body(self) -> None:
        """A body with a length arrives whole, twice on one connection."""
        echo = Echo()
        await self.serve(echo)
        client = await self.client()
        for body in b"hello", b"x" * 300_000:
            client.send(put(b"Content-Length: %d" % len(body)), body)
            self.assertEqual((await client.response()).body, body)
        request = echo.requests[0]
        self.assertEqual((request.method, request.path), (b"PUT", b"/name"))
        self.assertEqual(request.query_string, b"a=b")
        self.assertEqual(request.remote, "127.0.0.1")
        self.assertEqual((request.body.length, request.body.received), (5, 5))
        await self.still_alive(client)

    async def test_handed_over_before_the_body(self) -> None:
        """The handler runs when the headers are in."""
        slow = Slow()
        await self.serve(slow)
        client = await self.client()
        client.send(put(b"Content-Length: 5"))
        request = await slow.begun
        self.assertEqual((request.body.received, request.body.complete), (0, False))
        slow.go.callback(None)
        client.send(b"hello")
        self.assertEqual((await client.response()).body, b"5")
        await self.still_alive(client)

    async def test_chunked_odd_sizes_and_a_pipelined_get(self) -> None:
        """Chunks of odd sizes come out joined right, and the request behind is served."""
        await self.serve(Echo())
        client = await self.client()
        pieces = [
            bytes([65 + i % 26]) * size for i, size in enumerate((1, 7, 4097, 70_001))
        ]
        wire = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(p), p) for p in pieces)
        client.send(put(b"Transfer-Encoding: chunked"), wire, b"0\r\n\r\n", GET)
        self.assertEqual((await client.response()).body, b"".join(pieces))
        self.assertEqual((await client.response()).body, b"")
        await self.still_alive(client)

    async def test_two_pipelined_gets(self) -> None:
        """Answers come in the order of the requests."""
        seen: list[bytes] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            seen.append(request.path)
            reply.send(200, body=request.path)

        await self.serve(handle)
        client = await self.client()
        client.send(
            b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        self.assertEqual((await client.response()).body, b"/1")
        self.assertEqual((await client.response()).body, b"/2")
        self.assertEqual(seen, [b"/1", b"/2"])

    async def test_http_1_0(self) -> None:
        """HTTP/1.0 with and without a length is answered, then closed."""
        await self.serve(Echo())
        for request, body in (
            (b"PUT / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", b"ab"),
            (b"GET / HTTP/1.0\r\n\r\n", b""),
        ):
            client = await self.client()
            client.send(request)
            response = await client.response()
            self.assertEqual((response.status, response.body), (200, body))
            self.assertEqual(response.headers["Connection"], "close")
            await client.closed()

    async def test_connection_close_is_obeyed(self) -> None:
        """`Connection: close` among other options ends the connection."""
        await self.serve(Echo())
        client = await self.client()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\n")
        self.assertEqual((await client.response()).headers["Connection"], "close")
        await client.closed()

    async def test_header_values(self) -> None:
        """Several values are joined, bytes that are no UTF-8 survive a round trip."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            self.assertIsNone(request.header("x-absent"))
            reply.send(200, {"X-Copy": request.header("x-mine") or ""})

        await self.serve(handle)
        client = await self.client()
        client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Mine: a\xff\r\nX-Mine: \xc3\xa9\r\n\r\n"
        )
        await until(lambda: b"\r\n\r\n" in client.inbox)
        self.assertIn(b"X-Copy: a\xff, \xc3\xa9\r\n", client.inbox)


class BackPressureTests(SiteCase):
    """A slow reader of a body slows its client down."""

    async def fill(self, slow: Slow) -> tuple[RawClient, StreamingRequest, int]:
        """A client that has filled the body's buffer."""
        client = await self.client()
        size = 24 * 1024 * 1024
        client.send(put(b"Content-Length: %d" % size), b"x" * size)
        request = await slow.begun
        await until(lambda: request.body._gate.paused)
        return client, request, size

    async def test_client_stalls_and_memory_is_bounded(self) -> None:
        """What is held stays under the limit while the client cannot send."""
        slow = Slow()
        await self.serve(slow)
        client, request, size = await self.fill(slow)
        backlog = -1
        while backlog != client.backlog:
            backlog = client.backlog
            await turns(50)
        self.assertGreater(client.backlog, 0)
        self.assertLessEqual(request.body.held, self.most_held)
        self.assertGreater(request.body.held, BODY_HIGH)
        slow.go.callback(None)
        self.assertEqual((await client.response()).body, b"%d" % size)
        await self.still_alive(client)

    async def test_client_vanishes_while_paused(self) -> None:
        """The reader gets what was held and then ClientGone."""
        slow = Slow()
        await self.serve(slow)
        client, _, size = await self.fill(slow)
        client.transport.abortConnection()
        slow.go.callback(None)
        await until(lambda: slow.error)
        self.assertLess(slow.received, size)

    async def test_paused_in_the_last_piece(self) -> None:
        """A body that ends while we pause leaves a connection that still reads."""
        slow = Slow()
        await self.serve(slow)
        client = await self.client()
        size = BODY_HIGH + 1
        client.send(put(b"Content-Length: %d" % size), b"x" * size)
        request = await slow.begun
        await until(lambda: request.body.complete)
        self.assertTrue(request.body._gate.paused)
        client.send(GET)
        slow.go.callback(None)
        self.assertEqual((await client.response()).body, b"%d" % size)
        self.assertEqual((await client.response()).status, 200)
        await self.still_alive(client)

    async def test_vanished_client_is_seen_once_the_body_is_in(self) -> None:
        """A body that ended under our pause does not hide the client's leaving."""
        slow = Slow()
        await self.serve(slow)
        client = await self.client()
        size = BODY_HIGH + 1
        client.send(put(b"Content-Length: %d" % size), b"x" * size)
        request = await slow.begun
        await until(lambda: request.body.complete)
        client.transport.abortConnection()
        await until(lambda: request.reply and request.reply.gone)
        slow.go.callback(None)
        self.assertEqual(slow.received, size)

    async def test_answering_does_not_undo_the_pause(self) -> None:
        """While an answer streams out the unread body stays bounded."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            await until(lambda: request.body._gate.paused)
            for _ in range(60):
                await reply.write(b"x" * (2 * RECEIVE))
                await turns()
            self.assertGreater(request.body.held, BODY_HIGH)
            self.assertLessEqual(request.body.held, self.most_held)
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        size = 24 * 1024 * 1024
        client.send(put(b"Content-Length: %d" % size), b"x" * size)
        self.assertEqual(len((await client.response()).body), 120 * RECEIVE)
        await client.closed()


class GoneTests(SiteCase):
    """Clients that vanish."""

    async def test_mid_body(self) -> None:
        """A waiting reader gets ClientGone."""
        echo = Echo()
        site = await self.serve(echo)
        client = await self.client()
        client.send(put(b"Content-Length: 100"), b"x")
        await until(lambda: echo.requests and echo.requests[0].body.received)
        client.transport.abortConnection()
        await until(lambda: echo.errors)
        self.assertIsInstance(echo.errors[0], ClientGone)
        await until(lambda: not site.connections)
        self.assertEqual(site.in_flight, 0)

    async def test_while_the_handler_computes(self) -> None:
        """`gone` is seen, `send` is silent, `write` raises."""
        go: Deferred[None] = Deferred()
        replies: list[Reply] = []
        errors: list[Exception] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            replies.append(reply)
            await go
            reply.send(200)
            try:
                await reply.write(b"x")
            except ClientGone as error:
                errors.append(error)
                raise

        site = await self.serve(handle)
        client = await self.client()
        client.send(GET)
        await until(lambda: replies)
        client.transport.abortConnection()
        await until(lambda: replies[0].gone)
        self.assertEqual(site.in_flight, 1)
        go.callback(None)
        self.assertEqual(len(errors), 1)
        self.assertEqual(site.in_flight, 0)


class HalfClosedTests(SiteCase):
    """Clients that send no more, and read on (as `nc -N` does)."""

    async def test_answered(self) -> None:
        """What was asked for in full is answered, several in a row too; then we close."""
        await self.serve(Echo())
        client = await self.client()
        client.send(put(b"Content-Length: 5"), b"hello", GET)
        client.transport.loseWriteConnection()
        self.assertEqual((await client.response()).body, b"hello")
        self.assertEqual((await client.response()).status, 200)
        await client.closed()
        self.assertEqual(client.inbox, b"")

    async def test_answered_later(self) -> None:
        """It may take its time to answer."""
        slow = Slow()
        await self.serve(slow)
        client = await self.client()
        client.send(put(b"Content-Length: 5"), b"hello")
        client.transport.loseWriteConnection()
        await slow.begun
        await turns(10)
        slow.go.callback(None)
        self.assertEqual((await client.response()).body, b"5")
        await client.closed()

    async def test_several_answered_later(self) -> None:
        """So may those that wait behind it, all of them."""
        slow = Slow()
        await self.serve(slow)
        client = await self.client()
        client.send(put(b"Content-Length: 5"), b"hello", GET, GET, GET)
        client.transport.loseWriteConnection()
        await slow.begun
        await turns(10)
        slow.go.callback(None)
        self.assertEqual((await client.response()).body, b"5")
        for _ in range(3):
            self.assertEqual((await client.response()).status, 200)
        await client.closed()

    async def test_cut(self) -> None:
        """Half a head or half a body has no answer: the client is gone."""
        echo = Echo()
        site = await self.serve(echo)
        for data in (
            b"GET / HT",
            put(b"Content-Length: 5") + b"hel",
            put(b"Transfer-Encoding: chunked") + b"3\r\nhel\r\n",
            put(b"Content-Length: 5", b"Expect: 100-continue"),
            b"",
        ):
            client = await self.client()
            client.send(data)
            client.transport.loseWriteConnection()
            await client.closed()
            self.assertNotIn(b" 200 ", client.inbox, data)
            await until(lambda: not site.connections)
        self.assertEqual(site.in_flight, 0)
        self.assertEqual(len(echo.errors), 3)


class MalformedTests(SiteCase):
    """What does not parse gets a bare 400 and a closed connection."""

    async def refused(self, *data: bytes) -> list[StreamingRequest]:
        """Send it, expect the bare 400; gives what was handed over."""
        return await self.each_refused(b"".join(data))

    async def each_refused(
        self, *requests: bytes, status: bytes = b"400 Bad Request"
    ) -> list[StreamingRequest]:
        """The same of several, each on a connection of its own."""
        echo = Echo()
        await self.serve(echo)
        for data in requests:
            client = await self.client()
            client.send(data)
            await client.closed()
            self.assertEqual(client.inbox, b"HTTP/1.1 %b\r\n\r\n" % status, data)
        return echo.requests

    async def test_length_and_chunked(self) -> None:
        """Content-Length with Transfer-Encoding is never handed over."""
        head = put(b"Content-Length: 5", b"Transfer-Encoding: chunked")
        self.assertEqual(await self.refused(head, b"hello"), [])

    async def test_two_lengths(self) -> None:
        """Two lengths are never handed over."""
        head = put(b"Content-Length: 5", b"Content-Length: 5")
        self.assertEqual(await self.refused(head, b"hello"), [])

    async def test_endless_length(self) -> None:
        """A length of thousands of digits is refused like any other nonsense."""
        head = put(b"Content-Length: " + b"9" * 5000)
        self.assertEqual(await self.refused(head), [])

    async def test_bad_header(self) -> None:
        """A header line without a colon is refused."""
        self.assertEqual(await self.refused(put(b"nonsense")), [])

    async def test_no_host(self) -> None:
        """HTTP/1.1 needs a Host, with a body or without, whatever follows."""
        head = b"PUT / HTTP/1.1\r\n"
        handed_over = await self.each_refused(
            head + b"\r\n",
            head + b"\r\n" + GET,
            head + b"Content-Length: 2\r\n\r\nab",
            head + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        )
        self.assertEqual(handed_over, [])

    async def test_wrong_hosts(self) -> None:
        """Two Hosts, were they equal, or one that cannot be any, in HTTP/1.0 too."""
        handed_over = await self.each_refused(
            *(
                b"GET / HTTP/" + version + b"\r\n" + lines + b"\r\n\r\n"
                for version in (b"1.0", b"1.1")
                for lines in (
                    b"Host: x\r\nHost: x",
                    b"Host: x y",
                    b"Host: x\r\n y",
                    b"Host: user@x",
                    b"Host: x/y",
                    b"Host: \xff",
                )
            )
        )
        self.assertEqual(handed_over, [])

    async def test_right_hosts(self) -> None:
        """Names, addresses, ports, and the empty one that no authority gives."""
        await self.serve(Echo())
        client = await self.client()
        for host in (b"x", b"a-b.example:80", b"127.0.0.1:1", b"[::1]:8080", b""):
            client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            self.assertEqual((await client.response()).status, 200, host)

    async def test_bad_request_line(self) -> None:
        """So is a request line that is none."""
        self.assertEqual(await self.refused(b"nonsense\r\n\r\n"), [])

    async def test_headers_too_large(self) -> None:
        """Headers beyond 16 KiB, in one line or many, and 501 of them: a bare 431."""
        requests = await self.each_refused(
            put(b"X-A: " + b"a" * 17_000),
            put(b"X-A: " + b"a" * 100_000),
            put(*[b"X-A: " + b"a" * 100] * 200),
            put(*[b"X: a"] * 501),
            status=b"431 Request Header Fields Too Large",
        )
        self.assertEqual(requests, [])

    async def test_request_line_too_large(self) -> None:
        """A name has 1024 bytes: a longer line is as bad as one that is none."""
        await self.refused(b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n")

    async def test_bad_chunk(self) -> None:
        """A broken chunk fails the reader; the 400 is the only answer."""
        head = put(b"Transfer-Encoding: chunked")
        requests = await self.refused(head, b"3\r\nabcd\r\n0\r\n\r\n")
        self.assertEqual(len(requests), 1)
        self.assertTrue(requests[0].reply and requests[0].reply.gone)

    async def test_bad_chunk_behind_the_answer(self) -> None:
        """Once an answer began nothing is added to it: the connection is cut."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.headers["Content-Length"] = "1000"
            await reply.write(b"begun")
            await request.body.read()

        await self.serve(handle)
        client = await self.client()
        client.send(put(b"Transfer-Encoding: chunked"))
        await until(lambda: client.inbox.endswith(b"begun"))
        client.send(b"zz\r\n")
        await client.closed()
        self.assertNotIn(b" 400 ", client.inbox)


class AnsweredTests(SiteCase):
    """Reading after the answer."""

    async def test_read_after_the_answer(self) -> None:
        """The rest of an answered request's body cannot be read."""
        errors: list[Exception] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.send(403)
            try:
                await request.body.read()
            except GateClosed as error:
                errors.append(error)

        await self.serve(handle)
        client = await self.client()
        client.send(put(b"Content-Length: 5"))
        self.assertEqual((await client.response()).status, 403)
        self.assertEqual(len(errors), 1)
