"""Answers that come before the body's end, and Expect: 100-continue."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ostore.streaming.reply import Reply
from ostore.streaming.request import SMALL_REST, StreamingRequest
from tests.streaming.test_request import Echo, put
from tests.streaming.wire import RawClient, SiteCase, fake_clock, until

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = b"Expect: 100-continue"
BLAST = 50 * 1024 * 1024


async def refuse(request: StreamingRequest, reply: Reply) -> None:
    """403 to what has a body, 200 to the rest."""
    reply.send(200 if request.body.complete else 403, body=b"no")


async def refuse_late(request: StreamingRequest, reply: Reply) -> None:
    """413 after the first megabyte."""
    while request.body.received < 1024 * 1024:
        await request.body.read()
    reply.send(413, body=b"too long")


class ExpectTests(SiteCase):
    """100 Continue belongs to who reads the body."""

    async def test_granted_at_the_first_read(self) -> None:
        """No 100 before somebody reads, then exactly one."""
        go: Deferred[None] = Deferred()
        begun: list[StreamingRequest] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            begun.append(request)
            await go
            body = bytes(await request.body.read())
            while piece := await request.body.read():
                body += piece
            reply.send(200, body=body)

        await self.serve(handle)
        client = await self.client()
        client.send(put(b"Content-Length: 5", EXPECT))
        await until(lambda: begun)
        self.assertEqual(client.inbox, b"")
        go.callback(None)
        await until(lambda: client.inbox)
        self.assertEqual(client.inbox, CONTINUE)
        client.inbox = b""
        client.send(b"hello")
        self.assertEqual((await client.response()).body, b"hello")
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((await client.response()).status, 200)

    async def test_refused_without_100(self) -> None:
        """A refusal comes instead of the 100, and the connection closes."""
        await self.serve(refuse)
        client = await self.client()
        client.send(put(b"Content-Length: 5", EXPECT))
        response = await client.response()
        self.assertEqual((response.status, response.body), (403, b"no"))
        self.assertEqual(response.headers["Connection"], "close")
        await client.closed()

    async def test_body_that_comes_unasked(self) -> None:
        """A client that does not wait for the 100 gets none."""
        await self.serve(Echo())
        client = await self.client()
        client.send(put(b"Content-Length: 0", EXPECT))
        self.assertEqual((await client.response()).status, 200)
        await self.still_alive(client)


class EarlyAnswerTests(SiteCase):
    """The client can read the answer whatever it still sends."""

    async def blast(self, *headers: bytes) -> None:
        """Send 50 MB at once and read the refusal."""
        client = await self.client()
        client.send(put(*headers))
        client.send(b"x" * BLAST)
        response = await client.response()
        self.assertIn(response.status, (403, 413))
        self.assertEqual(response.headers["Connection"], "close")
        self.assertIn(response.body, (b"no", b"too long"))
        await client.closed()

    async def test_403_while_the_client_blasts(self) -> None:
        """50 MB under way: the 403 is readable and the connection closes."""
        await self.serve(refuse)
        await self.blast(b"Content-Length: %d" % BLAST)

    async def test_late_413_while_the_client_blasts(self) -> None:
        """The same after a part of the body was read."""
        await self.serve(refuse_late)
        await self.blast(b"Content-Length: %d" % BLAST)

    async def test_chunked(self) -> None:
        """A chunked body has no known rest: answered and closed."""
        await self.serve(refuse)
        client = await self.client()
        client.send(put(b"Transfer-Encoding: chunked"), b"5\r\nhel")
        response = await client.response()
        self.assertEqual(response.headers["Connection"], "close")
        await client.closed()

    async def test_small_rest_keeps_the_connection(self) -> None:
        """A small known rest is read and dropped, and the next request served."""
        await self.serve(refuse)
        client = await self.client()
        client.send(put(b"Content-Length: %d" % SMALL_REST))
        response = await client.response()
        self.assertNotIn("Connection", response.headers)
        client.send(b"x" * SMALL_REST)
        await self.still_alive(client)

    async def test_small_body_sent_along(self) -> None:
        """The same when the body came with the head."""
        await self.serve(refuse)
        client = await self.client()
        for _ in range(2):
            client.send(put(b"Content-Length: 5"), b"hello")
            self.assertEqual((await client.response()).status, 403)
        await self.still_alive(client)

    async def test_rest_just_too_long(self) -> None:
        """One byte more than the limit closes."""
        await self.serve(refuse)
        client = await self.client()
        client.send(put(b"Content-Length: %d" % (SMALL_REST + 1)))
        self.assertEqual((await client.response()).headers["Connection"], "close")
        await client.closed()

    async def test_linger_ends_by_time(self) -> None:
        """A client that neither reads on nor closes is cut when the time is over."""
        time, clock = fake_clock()
        site = await self.serve(refuse, clock, linger_time=5)
        await self.half_open()
        time.advance(4.9)
        self.assertEqual(len(site.connections), 1)
        time.advance(0.2)
        await until(lambda: not site.connections)

    async def test_linger_ends_by_bytes(self) -> None:
        """A client that goes on sending is cut when it has sent too much."""
        _, clock = fake_clock()
        await self.serve(refuse, clock, linger_bytes=1024 * 1024)
        client = await self.half_open()
        client.send(b"x" * (8 * 1024 * 1024))
        await client.closed()
        self.assertGreater(client.backlog, 0)

    async def half_open(self) -> RawClient:
        """A client with its 403 that does not close upon the server's FIN."""
        client = await self.client()
        client.transport.readConnectionLost = lambda _: client.transport.stopReading()
        client.send(put(b"Content-Length: %d" % BLAST))
        self.assertEqual((await client.response()).status, 403)
        return client
