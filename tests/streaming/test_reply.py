"""Answers, on real sockets."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from ostore.model.errors import ClientGone
from ostore.streaming.channel import RECEIVE
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.tasks import start
from tests.streaming.wire import SiteCase, turns, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
PIECE = b"x" * 65536


class AnswerTests(SiteCase):
    """Heads and framing."""

    async def test_send(self) -> None:
        """A whole answer bears length, date, server and a request id of its own."""
        ids: list[str] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            ids.append(reply.request_id)
            reply.headers["X-A"] = "1"
            reply.send(201, {"X-B": "2"}, b"body")
            self.assertTrue(reply.started and reply.finished and not reply.gone)
            self.assertEqual(reply.sent, 4)

        await self.serve(handle, server="mine")
        client = await self.client()
        for _ in range(2):
            client.send(GET)
            response = await client.response()
            self.assertEqual((response.status, response.body), (201, b"body"))
            self.assertEqual(response.headers["X-A"] + response.headers["X-B"], "12")
            self.assertEqual(response.headers["Server"], "mine")
            self.assertRegex(
                response.headers["Date"], r"^\w{3}, \d\d \w{3} \d{4} .* GMT$"
            )
            self.assertEqual(response.headers["X-Request-Id"], ids[-1])
        self.assertEqual(len(set(ids)), 2)
        self.assertRegex(ids[0], "^[0-9a-f]{32}$")

    async def test_prompt(self) -> None:
        """Small pieces leave at once: the kernel gathers nothing (RFC 896)."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            assert request.channel is not None
            prompt = request.channel.transport.getTcpNoDelay()
            reply.send(200, body=b"%d" % prompt)

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        self.assertEqual((await client.response()).body, b"1")

    async def test_streamed_with_a_length(self) -> None:
        """Pieces under a Content-Length go out unframed, and the connection lives."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.headers["Content-Length"] = "10"
            await reply.write(b"hello")
            await reply.write(b"")
            await reply.write(b"world")
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        self.assertEqual((await client.response()).body, b"helloworld")
        await self.still_alive(client)

    async def test_chunked(self) -> None:
        """Without a length the body is chunked."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            await reply.write(b"hello")
            await reply.write(b"world!")
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        response = await client.response()
        self.assertEqual(response.headers["Transfer-Encoding"], "chunked")
        self.assertEqual(response.body, b"helloworld!")
        await self.still_alive(client)

    async def test_http_1_0_without_a_length(self) -> None:
        """An old client gets the body up to the close."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            await reply.write(b"hello")
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        await client.closed()
        self.assertTrue(client.inbox.endswith(b"\r\n\r\nhello"))
        self.assertNotIn(b"chunked", client.inbox)

    async def test_head(self) -> None:
        """HEAD gives the head of the GET, by `send`, `write` or `finish` alone."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            if request.method == b"GET":
                reply.send(200)
                return
            way = next(ways)
            if way == "send":
                reply.send(200, body=b"12345")
                return
            reply.headers["Content-Length"] = "5"
            if way == "write":
                await reply.write(b"12345")
            await reply.finish()

        ways = iter(("send", "write", "finish"))
        await self.serve(handle)
        client = await self.client()
        for _ in range(3):
            client.send(HEAD)
            response = await client.response(head_only=True)
            self.assertEqual(response.headers["Content-Length"], "5")
            await self.still_alive(client)

    async def test_bodiless_statuses(self) -> None:
        """204 and 304 never carry a body or its framing."""
        statuses = iter((204, 304))

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            if request.path == b"/alive":
                reply.send(200)
            else:
                reply.send(next(statuses), body=b"never")

        await self.serve(handle)
        client = await self.client()
        for _ in range(2):
            client.send(GET)
            response = await client.response(head_only=True)
            self.assertNotIn("Content-Length", response.headers)
            self.assertNotIn("Transfer-Encoding", response.headers)
            await self.still_alive(client)

    async def test_finish_alone(self) -> None:
        """A GET that is only finished has an empty body."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        self.assertEqual((await client.response()).headers["Content-Length"], "0")
        await self.still_alive(client)


class DefectTests(SiteCase):
    """A handler's mistakes never look like a whole answer."""

    async def broken(self, handle, *errors: type[Exception]) -> bytes:  # type: ignore[no-untyped-def]  # many shapes
        """Ask a faulty handler; gives what came before the cut."""
        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        await client.closed()
        self.assertEqual(len(self.flushLoggedErrors(*errors)), 1)
        return client.inbox

    async def test_too_short(self) -> None:
        """Fewer bytes than promised: cut."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.headers["Content-Length"] = "10"
            await reply.write(b"hello")
            await reply.finish()

        await self.broken(handle, ValueError)

    async def test_too_long(self) -> None:
        """More bytes than promised: cut, and the surplus never sent."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.headers["Content-Length"] = "3"
            await reply.write(b"hello")

        self.assertNotIn(b"hello", await self.broken(handle, ValueError))

    async def test_crash_mid_body(self) -> None:
        """An error after the first byte cuts the connection and adds nothing."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            await reply.write(b"hello")
            await turns()
            raise KeyError("secret")

        inbox = await self.broken(handle, KeyError)
        self.assertNotIn(b"0\r\n\r\n", inbox)
        self.assertNotIn(b"secret", inbox)

    async def test_crash_before_the_answer(self) -> None:
        """An error before the first byte is a bare 500."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.headers["X-Half"] = "done"
            raise KeyError("secret")

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        response = await client.response()
        self.assertEqual((response.status, response.body), (500, b""))
        self.assertNotIn("X-Half", response.headers)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_no_answer_at_all(self) -> None:
        """A handler that returns without an answer gives 500."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            pass

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        self.assertEqual((await client.response()).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_line_break_in_a_header(self) -> None:
        """A header value cannot add headers."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.send(200, {"X-A": "1\r\nX-Evil: 1"})

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        response = await client.response()
        self.assertEqual(response.status, 500)
        self.assertNotIn("X-Evil", response.headers)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_use_after_the_end(self) -> None:
        """A finished reply refuses everything but abort, which does nothing."""
        errors: list[Exception] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.send(200)
            reply.abort()
            for use in (lambda: reply.write(b"x"), reply.finish):
                try:
                    await use()
                except RuntimeError as error:
                    errors.append(error)
            with self.assertRaises(RuntimeError):
                reply.send(200)

        await self.serve(handle)
        client = await self.client()
        client.send(GET)
        self.assertEqual((await client.response()).status, 200)
        self.assertEqual(len(errors), 2)
        client.send(GET)
        self.assertEqual((await client.response()).status, 200)


class Faucet:
    """Writes pieces for as long as the client takes them."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.written = 0
        self.reply: Reply | None = None
        self.error: Exception | None = None
        self.writing: Deferred[None] | None = None

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Stream to the first request, answer the others."""
        if self.reply is not None:
            reply.send(200)
            return
        self.reply = reply
        try:
            for _ in range(self.pieces):
                self.writing = start(reply.write(PIECE))
                await self.writing
                self.written += 1
            await reply.finish()
        except (ClientGone, CancelledError) as error:
            self.error = error
            raise


class BackPressureTests(SiteCase):
    """A slow client holds the writer."""

    async def test_memory_is_bounded_and_all_arrives(self) -> None:
        """The writer waits at the high-water mark and goes on when the client reads."""
        faucet = Faucet(400)
        site = await self.serve(faucet)
        client = await self.client()
        client.transport.pauseProducing()
        client.send(GET)
        await until(
            lambda: (
                site.connections and next(iter(site.connections))._waitingForTransport
            )
        )
        [channel] = site.connections
        transport = channel.transport
        for _ in range(200):
            held = len(transport.dataBuffer) + transport._tempDataLen
            self.assertLessEqual(held, RECEIVE + 3 * len(PIECE))
            await turns()
        self.assertTrue(channel._waitingForTransport)
        self.assertLess(faucet.written, 300)
        client.transport.resumeProducing()
        self.assertEqual(len((await client.response()).body), 400 * len(PIECE))
        await self.still_alive(client)

    async def test_client_vanishes_under_a_blocked_writer(self) -> None:
        """The waiting write raises ClientGone."""
        faucet = Faucet(400)
        site = await self.serve(faucet)
        client = await self.client()
        client.transport.pauseProducing()
        client.send(GET)
        await until(
            lambda: (
                site.connections and next(iter(site.connections))._waitingForTransport
            )
        )
        client.transport.abortConnection()
        await until(lambda: faucet.error)
        self.assertIsInstance(faucet.error, ClientGone)
        self.assertTrue(faucet.reply and faucet.reply.gone)

    async def test_cancelled_write(self) -> None:
        """Cancelling a blocked write frees the writer; the answer is cut."""
        faucet = Faucet(400)
        site = await self.serve(faucet)
        client = await self.client()
        client.transport.pauseProducing()
        client.send(GET)
        await until(
            lambda: (
                site.connections and next(iter(site.connections))._waitingForTransport
            )
        )
        assert faucet.writing is not None
        faucet.writing.cancel()
        await until(lambda: not site.connections)
        self.assertIsInstance(faucet.error, CancelledError)

    async def test_small_answers_do_not_pile_up(self) -> None:
        """Requests behind an unread answer wait, and all are answered in the end."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.send(200, body=PIECE)

        site = await self.serve(handle)
        client = await self.client()
        client.transport.pauseProducing()
        client.send(GET * 500)
        await until(
            lambda: (
                site.connections and next(iter(site.connections))._waitingForTransport
            )
        )
        [channel] = site.connections
        held = len(channel.transport.dataBuffer) + channel.transport._tempDataLen
        self.assertLessEqual(held, RECEIVE + 2 * len(PIECE))
        client.transport.resumeProducing()
        for _ in range(500):
            self.assertEqual((await client.response()).status, 200)
        await self.still_alive(client)
