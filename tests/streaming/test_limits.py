"""How much of a site slow or many clients can take."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.task import Clock as FakeTime

from ostore.model.errors import ClientGone
from ostore.streaming.channel import StreamingChannel
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from tests.streaming.test_request import GET, Slow, put
from tests.streaming.test_tls import TLSCase
from tests.streaming.wire import RawClient, SiteCase, fake_clock, turns, until

IDLE, LEAST = 60, 1000


async def answer(request: StreamingRequest, reply: Reply) -> None:
    """200, and the length of the body."""
    size = 0
    while piece := await request.body.read():
        size += len(piece)
    reply.send(200, body=b"%d" % size)


class HeadTests(SiteCase):
    """`max_head`."""

    async def test_bounds(self) -> None:
        """A head of so many bytes is served, a larger one is a bare 431."""
        await self.serve(answer)
        for most in (2048, 16384, 100_000):
            self.site.max_head = most
            line = b"X-Long: "
            # The request line counts without its end, header lines likewise.
            room = most - len(b"GET / HTTP/1.1") - len(b"Host: x") - len(line)
            for size, status in ((room, 200), (room + 1, 431)):
                client = await self.client()
                head = b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"x" * size
                client.send(head + b"\r\n\r\n")
                response = await client.response()
                self.assertEqual(response.status, status, (most, size))
                if status != 200:
                    await client.closed()

    async def test_one_long_line(self) -> None:
        """A line that never ends is refused at the limit, not gathered."""
        await self.serve(answer, max_head=4096)
        client = await self.client()
        client.send(b"GET /" + b"x" * 5000)
        self.assertEqual((await client.response()).status, 400)
        await client.closed()


class ProgressTests(SiteCase):
    """`least_progress` in each `idle`."""

    async def start(self, handle: Any) -> RawClient:
        """Serve under a clock moved by hand, with one client."""
        self.fake, clock = fake_clock()
        await self.serve(handle, clock, idle=IDLE, least_progress=LEAST)
        client = await self.client()
        await until(lambda: self.site.connections)
        return client

    @property
    def channel(self) -> StreamingChannel:
        """The one there is."""
        (channel,) = self.site.connections
        return channel

    async def trickle(self, client: RawClient, pieces: int, size: int) -> int:
        """Send pieces, 10 s apart; gives how many were sent before the cut."""
        for count in range(pieces):
            before = self.channel._received
            client.send(b"x" * size)
            await until(partial(self.came, client, before))
            pass_time(self.fake, 10)
            await turns(5)
            if client.lost:
                return count + 1
        return pieces

    def came(self, client: RawClient, before: int) -> bool:
        """Whether more came than before, or nothing will."""
        return client.lost or self.channel._received > before

    async def test_body_too_slow(self) -> None:
        """A body that trickles in below it is cut, and its reader told."""
        slow = Slow()
        client = await self.start(slow)
        client.send(put(b"Content-Length: 100000"))
        await slow.begun
        slow.go.callback(None)
        self.assertLess(await self.trickle(client, 30, 10), 12)
        await until(lambda: slow.error)
        self.assertIsInstance(slow.error, ClientGone)

    async def test_body_fast_enough(self) -> None:
        """A body that comes just fast enough is read to its end."""
        client = await self.start(answer)
        client.send(put(b"Content-Length: 6000"))
        self.assertEqual(await self.trickle(client, 30, 200), 30)
        self.assertEqual((await client.response()).body, b"6000")

    async def test_small_requests_now_and_then(self) -> None:
        """Small requests on a kept connection are progress, however small."""
        client = await self.start(answer)
        for _ in range(10):
            client.send(GET)
            self.assertEqual((await client.response()).status, 200)
            pass_time(self.fake, IDLE // 2)
            await turns(5)
        self.assertFalse(client.lost)

    async def test_answer_taken_too_slowly(self) -> None:
        """A reader that takes a few bytes now and then is cut."""
        errors: list[Exception] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            try:
                while True:
                    await reply.write(b"x" * 65536)
            except ClientGone as error:
                errors.append(error)
                raise

        client = await self.start(handle)
        self.site.least_progress = 1 << 40
        client.transport.pauseProducing()
        client.send(GET)
        rounds = 0
        while not errors and rounds < 30:
            before, rounds = len(client.inbox), rounds + 1
            client.transport.resumeProducing()
            await until(partial(self.took, client, before))
            if not client.lost:
                client.transport.pauseProducing()
            pass_time(self.fake, 10)
            await turns(5)
        self.assertGreater(rounds, 5)
        self.assertEqual(len(errors), 1)

    def took(self, client: RawClient, before: int) -> bool:
        """Whether it has more than before, or never will."""
        return client.lost or len(client.inbox) > before


class ConnectionsTests(SiteCase):
    """`max_connections` and `max_per_address`."""

    async def test_in_all(self) -> None:
        """What comes beyond is cut unread; a place that is free is taken again."""
        await self.serve(answer, max_connections=3)
        first = [await self.client() for _ in range(3)]
        await until(lambda: len(self.site.connections) == 3)
        beyond = await self.client()
        beyond.send(GET)
        await beyond.closed()
        self.assertEqual((beyond.inbox, self.site.turned_away), (b"", 1))
        for client in first:
            await self.still_alive(client)
        first[0].transport.loseConnection()
        await until(lambda: len(self.site.connections) == 2)
        await self.still_alive(await self.client())

    async def test_from_one_address(self) -> None:
        """One address takes no more than its part; others are served."""
        await self.serve(answer, max_connections=9, max_per_address=2)
        first = [await self.client() for _ in range(2)]
        await until(lambda: len(self.site.connections) == 2)
        beyond = await self.client()
        await beyond.closed()
        await self.still_alive(first[0])
        other = await self.client(from_address="127.0.0.2")
        await self.still_alive(other)
        for client in (*first, other):
            client.transport.loseConnection()
        await until(lambda: not self.site.connections)
        self.assertEqual(len(self.site._each), 0)
        await self.still_alive(await self.client())

    async def test_it_is_told(self) -> None:
        """One line tells how many were cut, not one for each."""
        fake, clock = fake_clock()
        await self.serve(answer, clock, max_connections=1)
        await self.client()
        await until(lambda: self.site.connections)
        for _ in range(3):
            await (await self.client()).closed()
        lines: list[str] = []
        self.patch(
            self.site._log,
            "warn",
            lambda text, **more: lines.append(text.format(**more)),
        )
        pass_time(fake, 30)
        self.assertEqual(lines, ["3 connections beyond the limits were cut"])


class ConnectionsOverTlsTests(TLSCase):
    """The same behind TLS."""

    async def test_in_all(self) -> None:
        """What comes beyond is cut before the handshake."""
        await self.serve(answer, max_connections=0)
        client = await self.client()
        await client.closed()
        self.assertEqual((client.inbox, self.site.turned_away), (b"", 1))


def pass_time(fake: FakeTime, seconds: int) -> None:
    """Move in steps, as real time would."""
    for _ in range(seconds):
        fake.advance(1)
