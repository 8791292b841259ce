"""Outgoing bodies and incoming ones: Agent against our own site."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.client import Agent, HTTPConnectionPool, RequestGenerationFailed
from twisted.web.http_headers import Headers

from ostore.model.errors import ClientGone
from ostore.streaming.download import HIGH, Download, DownloadBroken, DownloadTooLong
from ostore.streaming.gate import GateClosed
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.site import Handle
from ostore.streaming.tasks import start
from ostore.streaming.upload import Upload, UploadStopped
from tests.streaming.wire import REAL, SiteCase, reactor, turns, until

PIECE = b"x" * 65536


class ExchangeCase(SiteCase):
    """An Agent with a pool of kept connections."""

    async def start(self, handle: Handle) -> None:
        """Serve `handle` to an Agent."""
        await self.serve(handle)
        self.pool = HTTPConnectionPool(reactor)
        self.pool.retryAutomatically = False
        self.agent = Agent(reactor, pool=self.pool)
        self.addCleanup(self.pool.closeCachedConnections)

    def request(self, upload: Upload | None = None) -> Deferred[Any]:
        """GET, or PUT with that body."""
        method = b"GET" if upload is None else b"PUT"
        asked: Deferred[Any] = self.agent.request(method, self.url, Headers(), upload)
        return asked


class UploadTests(ExchangeCase):
    """Writers of outgoing bodies."""

    async def test_with_and_without_a_length(self) -> None:
        """The body arrives whole, by length or chunked."""
        seen: list[tuple[int | None, bytes]] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            body = b""
            while piece := await request.body.read():
                body += piece
            seen.append((request.body.length, body))
            reply.send(200)

        await self.start(handle)
        for length in 10, None:
            upload = Upload(REAL, length)
            asked = self.request(upload)
            await upload.write(b"hello")
            await upload.write(b"world")
            upload.finish()
            self.assertEqual((await asked).code, 200)
        self.assertEqual(seen, [(10, b"helloworld"), (None, b"helloworld")])

    async def test_back_pressure(self) -> None:
        """The writer waits for a slow server, and loses nothing."""
        go: Deferred[None] = Deferred()
        total = 0

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            nonlocal total
            await go
            while piece := await request.body.read():
                total += len(piece)
            reply.send(200)

        await self.start(handle)
        upload, written = Upload(REAL, None), 0

        async def write() -> None:
            nonlocal written
            for _ in range(400):
                await upload.write(PIECE)
                written += 1
            upload.finish()

        asked = self.request(upload)
        writing = start(write())
        await turns(300)
        self.assertLess(written, 300)
        go.callback(None)
        await writing
        self.assertEqual((await asked).code, 200)
        self.assertEqual(total, 400 * len(PIECE))

    async def test_early_answer_and_close(self) -> None:
        """A server that answers early and closes fails the writer."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            reply.send(403)

        await self.start(handle)
        upload = Upload(REAL, None)
        asked = self.request(upload)
        with self.assertRaises(UploadStopped):
            for _ in range(4000):
                await upload.write(PIECE)
        self.assertEqual((await asked).code, 403)
        upload.finish()
        with self.assertRaises(UploadStopped):
            await upload.write(b"x")

    async def test_fail_breaks_off(self) -> None:
        """`fail` cuts the connection: the server never sees a whole body."""
        begun: list[StreamingRequest] = []
        seen: list[Exception] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            begun.append(request)
            try:
                while await request.body.read():
                    pass
            except ClientGone as error:
                seen.append(error)
                raise

        await self.start(handle)
        upload = Upload(REAL, None)
        asked = self.request(upload)
        await upload.write(b"half")
        await until(lambda: begun and begun[0].body.received)
        upload.fail(OSError("source broke"))
        await self.assertFailure(asked, RequestGenerationFailed)
        await until(lambda: seen)
        with self.assertRaises(OSError):
            await upload.write(b"x")

    async def test_fail_before_the_connection(self) -> None:
        """A writer that waits for a connection is woken by `fail`."""
        upload = Upload(REAL, None)
        writing = start(upload.write(b"x"))
        self.assertFalse(writing.called)
        upload.fail(OSError("no connection"))
        with self.assertRaises(OSError):
            await writing
        _ = upload._done.addErrback(lambda _: None)

    async def test_stop_keeps_the_deferred_mute(self) -> None:
        """After stopProducing neither finish nor fail fires the Agent's Deferred."""
        for end in (lambda u: u.finish(), lambda u: u.fail(OSError("x"))):
            upload = Upload(REAL, None)
            writing = start(upload.write(b"x"))
            upload.stopProducing()
            with self.assertRaises(UploadStopped):
                await writing
            end(upload)
            self.assertFalse(upload._done.called)

    async def test_cancelled_write(self) -> None:
        """A cancelled wait leaves the upload usable."""
        upload = Upload(REAL, None)
        writing = start(upload.write(b"x"))
        writing.cancel()
        with self.assertRaises(CancelledError):
            await writing
        sent: list[bytes] = []

        class Consumer:
            write = sent.append

        upload.startProducing(Consumer())  # type: ignore[arg-type,unused-awaitable]  # as much as it uses
        self.assertEqual(sent, [])
        await upload.write(b"y")
        self.assertEqual(sent, [b"y"])


class DownloadTests(ExchangeCase):
    """Readers of answers."""

    async def start_source(self, pieces: int, *, cut: bool = False) -> None:
        """Serve that many pieces, whole or cut."""
        self.written = 0

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            for _ in range(pieces):
                await reply.write(PIECE)
                self.written += 1
            if cut:
                await turns(5)
                reply.abort()
            else:
                await reply.finish()

        await self.start(handle)

    async def test_whole_body(self) -> None:
        """All bytes, then b"", for ever; the connection is used again."""
        await self.start_source(3)
        for _ in range(2):
            download = Download(await self.request(), 10**6)
            self.assertEqual(len(await download.read_all()), 3 * len(PIECE))
            self.assertEqual(await download.read(), b"")
            download.close()
        self.assertEqual(len(self.site.connections), 1)

    async def test_back_pressure(self) -> None:
        """A slow reader holds the server; what is held stays bounded."""
        await self.start_source(600)
        download = Download(await self.request(), 10**9)
        await turns(300)
        self.assertLess(self.written, 500)
        self.assertLessEqual(download._gate.held, HIGH + 10 * len(PIECE))
        self.assertEqual(len(await download.read_all()), 600 * len(PIECE))

    async def test_read_late(self) -> None:
        """A paused body that ends leaves a pooled connection that works."""
        pieces = HIGH // len(PIECE) + 1
        await self.start_source(pieces)
        download = Download(await self.request(), 10**9)
        await until(lambda: self.written == pieces)
        await turns(20)
        again = Download(await self.request(), 10**9)
        for each in download, again:
            self.assertEqual(len(await each.read_all()), pieces * len(PIECE))

    async def test_limit(self) -> None:
        """A body over the limit breaks off and the connection is cut."""
        await self.start_source(600)
        download = Download(await self.request(), 10 * len(PIECE))
        with self.assertRaises(DownloadTooLong):
            await download.read_all()
        self.assertLessEqual(download.received, 20 * len(PIECE))
        await until(lambda: not self.site.connections)

    async def test_truncated(self) -> None:
        """A connection cut mid-body is an error, not an end."""
        await self.start_source(2, cut=True)
        download = Download(await self.request(), 10**9)
        with self.assertRaises(DownloadBroken):
            await download.read_all()

    async def test_close(self) -> None:
        """Giving up cuts the connection."""
        await self.start_source(600)
        download = Download(await self.request(), 10**9)
        await download.read()
        download.close()
        with self.assertRaises(GateClosed):
            await download.read()
        await until(lambda: not self.site.connections)
