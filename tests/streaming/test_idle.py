"""Clients that owe us something are let go; others are not."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as FakeTime

from ostore.model.errors import ClientGone
from ostore.streaming.channel import RECEIVE, StreamingChannel, unsent
from ostore.streaming.reply import Reply
from ostore.streaming.request import BODY_HIGH, StreamingRequest
from tests.streaming.test_request import GET, Slow, put
from tests.streaming.wire import RawClient, SiteCase, fake_clock, turns, until

IDLE, HEAD_TIME = 60, 30


class IdleCase(SiteCase):
    """The site's time moves by hand."""

    async def start(self, handle: object) -> tuple[FakeTime, RawClient]:
        """Serve under a clock moved by hand, with one client."""
        self.fake, clock = fake_clock()
        await self.serve(handle, clock, idle=IDLE, head_time=HEAD_TIME)  # type: ignore[arg-type]  # any handler
        client = await self.client()
        await until(lambda: self.site.connections)
        return self.fake, client

    def has_come(self, channel: StreamingChannel, client: RawClient, to: int) -> bool:
        """Whether so many bytes came, or never will."""
        return channel._received >= to or client.lost

    def pass_time(self, seconds: float) -> None:
        """Move in steps, as real time would."""
        for _ in range(int(seconds)):
            self.fake.advance(1)


class IdleTests(IdleCase):
    """Who is let go, and who is not."""

    async def test_silent_connection(self) -> None:
        """A connection that never says anything is closed."""
        _, client = await self.start(Slow())
        self.pass_time(IDLE - 1)
        self.assertFalse(client.lost)
        self.pass_time(IDLE / 4 + 2)
        await client.closed()
        await until(lambda: not self.site.connections)
        self.assertEqual(self.fake.getDelayedCalls(), [])

    async def test_idle_after_a_request(self) -> None:
        """A kept connection without a next request is closed."""
        _, client = await self.start(answer)
        client.send(GET)
        self.assertEqual((await client.response()).status, 200)
        self.pass_time(IDLE * 1.5)
        await client.closed()

    async def test_slow_head(self) -> None:
        """A head that dribbles in is cut off, however often bytes come."""
        slow = Slow()
        _, client = await self.start(slow)
        channel = next(iter(self.site.connections))
        client.send(b"GET / HTTP/1.1\r\n")
        for count in range(1, 9):
            client.send(b"X-A: b\r\n")
            came = 16 + 8 * count
            await until(partial(self.has_come, channel, client, came))
            self.pass_time(HEAD_TIME / 4)
        await client.closed()
        self.assertFalse(slow.begun.called)

    async def test_quick_heads_in_a_row(self) -> None:
        """Heads that each arrive in time never add up to a late one."""
        _, client = await self.start(answer)
        channel = next(iter(self.site.connections))
        for _ in range(10):
            client.send(GET[:-2])
            await until(lambda: channel.requests)
            self.pass_time(HEAD_TIME / 3)
            client.send(GET[-2:])
            self.assertEqual((await client.response()).status, 200)

    async def test_body_that_stops(self) -> None:
        """While we wait for body bytes, silence fails the reader."""
        slow = Slow()
        _, client = await self.start(slow)
        client.send(put(b"Content-Length: 100"), b"x")
        request = await slow.begun
        slow.go.callback(None)
        await until(lambda: request.body.received)
        self.pass_time(IDLE * 1.5)
        await client.closed()
        self.assertIsInstance(slow.error, ClientGone)

    async def test_slow_but_steady_body(self) -> None:
        """A body that trickles is progress."""
        slow = Slow()
        _, client = await self.start(slow)
        client.send(put(b"Content-Length: 10"))
        request = await slow.begun
        slow.go.callback(None)
        for count in range(10):
            self.pass_time(IDLE - IDLE / 4 - 1)
            client.send(b"x")
            await self.arrived(request, count + 1)
        self.assertEqual((await client.response()).body, b"10")

    async def test_our_own_pause_is_not_the_clients_fault(self) -> None:
        """While we pause no time runs out; afterwards the limit works again."""
        slow = Slow()
        _, client = await self.start(slow)
        size = 8 * 1024 * 1024
        client.send(put(b"Content-Length: %d" % size), b"x" * size)
        request = await slow.begun
        await until(lambda: request.body.held > BODY_HIGH)
        self.pass_time(IDLE * 10)
        await turns(20)
        self.assertFalse(client.lost)
        slow.go.callback(None)
        self.assertEqual((await client.response()).body, b"%d" % size)
        await self.still_alive(client)
        self.pass_time(IDLE * 1.5)
        await client.closed()

    async def test_withheld_100_is_not_the_clients_fault(self) -> None:
        """A client that waits for our 100 owes nothing."""
        slow = Slow()
        _, client = await self.start(slow)
        client.send(put(b"Content-Length: 1", b"Expect: 100-continue"))
        await slow.begun
        self.pass_time(IDLE * 10)
        await turns(20)
        self.assertFalse(client.lost)
        slow.go.callback(None)
        self.pass_time(IDLE * 1.5)
        await client.closed()

    async def test_computing_handler(self) -> None:
        """While the handler computes no time runs out."""
        go: Deferred[None] = Deferred()
        begun: list[Reply] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            begun.append(reply)
            await go
            reply.send(200)

        _, client = await self.start(handle)
        client.send(GET)
        await until(lambda: begun)
        self.pass_time(IDLE * 10)
        go.callback(None)
        self.assertEqual((await client.response()).status, 200)

    async def flood(self) -> tuple[RawClient, list[Exception]]:
        """A client with an answer under way that it does not read."""
        errors: list[Exception] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            try:
                for _ in range(320):
                    await reply.write(b"x" * 65536)
                await reply.finish()
            except ClientGone as error:
                errors.append(error)
                raise

        _, client = await self.start(handle)
        client.transport.pauseProducing()
        client.send(GET)
        channel = next(iter(self.site.connections))
        await until(lambda: channel._waitingForTransport)
        await self.settled(channel)
        return client, errors

    async def arrived(self, request: StreamingRequest, count: int) -> None:
        """Wait for that many bytes of the body."""
        await until(lambda: request.body.received >= count)

    async def taken(self, client: RawClient, count: int) -> None:
        """Wait for that many bytes at the client."""
        await until(lambda: len(client.inbox) >= count)

    async def settled(self, channel: object) -> None:
        """Wait until the kernel takes no more."""
        quiet, last = 0, -1
        while quiet < 50:
            left = len(channel.transport.dataBuffer) - channel.transport.offset  # type: ignore[attr-defined]  # Twisted's
            quiet = quiet + 1 if left == last else 0
            last = left
            await turns()

    async def test_client_that_reads_nothing(self) -> None:
        """A full write buffer that does not drain ends the connection."""
        _, errors = await self.flood()
        [channel] = self.site.connections
        queued = len(channel.transport.dataBuffer) - channel.transport.offset
        self.assertGreater(unsent(channel.transport), queued + RECEIVE)
        self.pass_time(IDLE * 1.5)
        await until(lambda: errors)
        await until(lambda: not self.site.connections)

    async def test_client_that_reads_slowly(self) -> None:
        """A reader that takes a little now and then is kept."""
        client, errors = await self.flood()
        total = 320 * 65536
        while len(client.inbox) < total:
            before = len(client.inbox)
            client.transport.resumeProducing()
            await self.taken(client, before + 1)
            client.transport.pauseProducing()
            if before < total // 40:
                self.pass_time(IDLE / 2)
        client.transport.resumeProducing()
        self.assertEqual(len((await client.response()).body), total)
        self.assertEqual(errors, [])


async def answer(request: StreamingRequest, reply: Reply) -> None:
    """200."""
    reply.send(200)
