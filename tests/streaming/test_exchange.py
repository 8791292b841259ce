"""Answers' bodies: Agent against our own site."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool

from ostore.streaming.download import HIGH, Download, DownloadBroken, DownloadTooLong
from ostore.streaming.gate import GateClosed
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.site import Handle
from tests.streaming.wire import SiteCase, reactor, turns, until

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

    def request(self) -> Deferred[Any]:
        """GET."""
        asked: Deferred[Any] = self.agent.request(b"GET", self.url)
        return asked


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
