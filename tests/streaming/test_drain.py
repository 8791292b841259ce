"""A site's graceful end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.tasks import start
from tests.streaming.test_request import GET
from tests.streaming.wire import RawClient, SiteCase, fake_clock, turns, until


class Held:
    """Answers when told; one word a request."""

    def __init__(self) -> None:
        self.begun = 0
        self.go: Deferred[None] = Deferred()
        self.cancelled = 0

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Wait for the word, then answer."""
        self.begun += 1
        try:
            await self.go
        except CancelledError:
            self.cancelled += 1
            raise
        reply.send(200, body=b"done")


class DrainTests(SiteCase):
    """Idle ones go at once, busy ones finish, late ones are cut."""

    async def busy(self) -> tuple[Held, RawClient]:
        """A site with one request under way."""
        held = Held()
        self.fake, clock = fake_clock()
        await self.serve(held, clock)
        client = await self.client()
        client.send(GET)
        await until(lambda: held.begun)
        return held, client

    async def test_nothing_under_way(self) -> None:
        """An idle connection is closed at once."""
        await self.serve(Held())
        client = await self.client()
        await until(lambda: self.site.connections)
        await self.site.drain(30)
        await client.closed()
        self.assertEqual(self.site.connections, set())

    async def test_busy_one_finishes(self) -> None:
        """A request under way is answered with `Connection: close`."""
        held, client = await self.busy()
        draining = start(self.site.drain(30))
        await turns()
        self.assertFalse(draining.called)
        self.assertEqual(self.site.in_flight, 1)
        held.go.callback(None)
        response = await client.response()
        self.assertEqual((response.status, response.body), (200, b"done"))
        self.assertEqual(response.headers["Connection"], "close")
        await client.closed()
        await draining
        self.assertEqual(self.fake.getDelayedCalls(), [])

    async def test_answer_that_has_begun_finishes(self) -> None:
        """Its head said nothing of a close; the connection ends with it all the same."""
        go: Deferred[None] = Deferred()

        async def handle(_: StreamingRequest, reply: Reply) -> None:
            await reply.write(b"begun, ")
            await go
            await reply.write(b"done")
            await reply.finish()

        fake, clock = fake_clock()
        await self.serve(handle, clock)
        client = await self.client()
        client.send(GET)
        await until(lambda: client.inbox)
        draining = start(self.site.drain(30))
        go.callback(None)
        response = await client.response()
        self.assertEqual(response.body, b"begun, done")
        self.assertNotIn("Connection", response.headers)
        await client.closed()
        await draining
        self.assertEqual(fake.getDelayedCalls(), [])

    async def test_late_one_is_cut(self) -> None:
        """After the time its handler is cancelled and its connection aborted."""
        held, client = await self.busy()
        draining = start(self.site.drain(30))
        self.fake.advance(30)
        await draining
        await client.closed()
        self.assertEqual((held.cancelled, self.site.in_flight), (1, 0))
        self.assertEqual(client.inbox, b"")

    async def test_new_connections_are_refused(self) -> None:
        """Once draining, a new connection is closed without a word."""
        await self.serve(Held())
        self.site.stop_accepting()
        client = await self.client()
        await client.closed()
        self.assertEqual(client.inbox, b"")

    async def test_half_sent_head_may_finish(self) -> None:
        """A request whose head is half here is answered before the end."""
        held = Held()
        held.go.callback(None)
        await self.serve(held)
        client = await self.client()
        client.send(GET[:20])
        await until(lambda: any(c.requests for c in self.site.connections))
        draining = start(self.site.drain(30))
        client.send(GET[20:])
        self.assertEqual((await client.response()).headers["Connection"], "close")
        await draining

    async def test_alpn(self) -> None:
        """Only HTTP/1.1 is offered over TLS."""
        site = await self.serve(Held())
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])
