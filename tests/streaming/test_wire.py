"""Large bodies, whichever way they take between socket and memory."""

from __future__ import annotations

import gc
import hashlib
import os
import random

from twisted.internet.defer import Deferred

from ostore.erasure.geometry import Buffer
from ostore.model.errors import ClientGone
from ostore.streaming.buffers import Buffers
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.wire import PIECE, WORTH, Wire
from tests.streaming.wire import SiteCase, turns, until


class Keeper:
    """Keeps the pieces of a body as they came, and answers with their number."""

    def __init__(self) -> None:
        self.pieces: list[Buffer] = []
        self.error: Exception | None = None

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Read to the end."""
        try:
            while piece := await request.body.read():
                self.pieces.append(piece)
        except ClientGone as error:
            self.error = error
            raise
        reply.send(200, body=b"%d" % len(self.pieces))

    @property
    def body(self) -> bytes:
        """All that came."""
        return b"".join(self.pieces)


def put(length: int, more: bytes = b"") -> bytes:
    """The head of a PUT."""
    return b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (
        length,
        more,
    )


class InTests(SiteCase):
    """Bodies that come."""

    async def test_every_byte_in_order(self) -> None:
        """Bodies of all sizes around the limits come whole, however they are cut."""
        keeper = Keeper()
        await self.serve(keeper)
        client = await self.client()
        rolls = random.Random(7)
        for size in (
            WORTH - 1,
            WORTH,
            WORTH + 1,
            PIECE - 1,
            PIECE,
            PIECE + 1,
            3 * PIECE,
        ):
            keeper.pieces.clear()
            body = rolls.randbytes(size)
            client.send(put(size))
            at = 0
            while at < size:
                step = rolls.choice((1, 1000, 70_000, 400_000, 2_000_000))
                client.send(body[at : at + step])
                at += step
                await turns()
            self.assertEqual((await client.response()).status, 200)
            self.assertEqual(
                hashlib.sha256(keeper.body).digest(), hashlib.sha256(body).digest()
            )
        await self.still_alive(client)

    async def test_what_is_kept_does_not_change(self) -> None:
        """Pieces that a reader holds on to are as they came, whatever comes later."""
        keeper = Keeper()
        site = await self.serve(keeper)
        site.buffers = Buffers(PIECE, 1)
        bodies = [os.urandom(2 * PIECE + 17) for _ in range(3)]
        for body in bodies:
            client = await self.client()
            client.send(put(len(body)), body)
            self.assertEqual((await client.response()).status, 200)
        self.assertEqual(keeper.body, b"".join(bodies))

    async def test_next_request_behind_the_body(self) -> None:
        """What follows a body at once is the next request, not a part of it."""
        keeper = Keeper()
        await self.serve(keeper)
        client = await self.client()
        body = os.urandom(PIECE + WORTH)
        client.send(put(len(body)), body, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((await client.response()).status, 200)
        self.assertEqual((await client.response()).status, 200)
        self.assertEqual(keeper.body, body)

    async def test_cut_body(self) -> None:
        """Of a body that breaks off every byte that came is read, then ClientGone."""
        keeper = Keeper()
        site = await self.serve(keeper)
        client = await self.client()
        body = os.urandom(PIECE + 5000)
        client.send(put(4 * PIECE), body)
        await until(lambda: any(c._received > len(body) for c in site.connections))
        client.transport.loseConnection()
        await until(lambda: keeper.error)
        self.assertEqual(keeper.body, body)
        keeper.pieces.clear()
        keeper.error = None
        await until(lambda: not site.connections)
        gc.collect()  # its traceback
        self.assertEqual(site.buffers.lent, 0)

    async def test_answered_in_the_middle(self) -> None:
        """A body that nobody wants is read no further than the limits say."""

        async def refuse(request: StreamingRequest, reply: Reply) -> None:
            await request.body.read()
            reply.send(403)

        site = await self.serve(refuse)
        client = await self.client()
        client.send(put(40 * PIECE), bytes(8 * PIECE))
        self.assertEqual((await client.response()).status, 403)
        client.transport.loseConnection()
        await until(lambda: not site.connections)
        self.assertEqual(site.buffers.lent, 0)

    async def test_held_pieces_hold_the_client_up(self) -> None:
        """While a piece waits to be read no other is taken from the socket."""
        go: Deferred[None] = Deferred()
        seen: list[StreamingRequest] = []

        async def slow(request: StreamingRequest, reply: Reply) -> None:
            seen.append(request)
            await go
            size = 0
            while piece := await request.body.read():
                size += len(piece)
            reply.send(200, body=b"%d" % size)

        site = await self.serve(slow)
        client = await self.client()
        client.send(put(24 * PIECE), bytes(24 * PIECE))
        await until(lambda: seen and seen[0].body._gate.paused)
        await turns(50)
        self.assertLessEqual(seen[0].body.held, PIECE)
        self.assertLessEqual(site.buffers.lent, 1)
        go.callback(None)
        self.assertEqual((await client.response()).body, b"%d" % (24 * PIECE))


class OutTests(SiteCase):
    """Bodies that go."""

    async def test_many_pieces(self) -> None:
        """Pieces of all kinds and lengths go out in order, more than one call takes."""
        rolls = random.Random(3)
        pieces: list[Buffer] = []
        for _ in range(300):
            piece = rolls.randbytes(rolls.choice((0, 1, 10, 5000, 60_000)))
            pieces.append(rolls.choice((bytes, bytearray, memoryview))(piece))
        body = b"".join(pieces)

        async def handle(_: StreamingRequest, reply: Reply) -> None:
            reply.headers["Content-Length"] = str(len(body))
            await reply.write(*pieces[:1])
            await reply.write(*pieces[1:200])
            await reply.write()
            for piece in pieces[200:]:
                await reply.write(piece)
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((await client.response()).body, body)
        await self.still_alive(client)

    async def test_memory_is_kept_until_it_is_out(self) -> None:
        """A client that reads late gets what was written, though memory is used again."""
        buffers = Buffers(PIECE, 1)
        rounds = 24

        async def handle(_: StreamingRequest, reply: Reply) -> None:
            for number in range(rounds):
                piece = buffers.take(PIECE)
                piece[:] = bytes([number]) * PIECE
                await reply.write(piece[: PIECE // 2], piece[PIECE // 2 :])
                del piece
            await reply.finish()

        await self.serve(handle)
        client = await self.client()
        client.transport.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await turns(100)
        self.assertLessEqual(buffers.lent, 2)
        client.transport.resumeProducing()
        expected = b"".join(bytes([n]) * PIECE for n in range(rounds))
        self.assertEqual((await client.response()).body, expected)
        self.assertEqual(buffers.lent, 0)

    async def test_client_gone(self) -> None:
        """A client that leaves in the middle ends the writer; nothing stays lent."""
        buffers = Buffers(PIECE, 1)
        gone: list[Exception] = []

        async def handle(_: StreamingRequest, reply: Reply) -> None:
            try:
                while True:
                    await reply.write(buffers.take(PIECE))
            except ClientGone as error:
                gone.append(error)
                raise

        site = await self.serve(handle)
        client = await self.client()
        client.transport.pauseProducing()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: site.connections and buffers.lent)
        await turns(50)
        client.transport.abortConnection()
        await until(lambda: gone and not site.connections)
        gone.clear()
        gc.collect()  # its traceback
        self.assertEqual(buffers.lent, 0)

    async def test_others_have_their_turn(self) -> None:
        """One client that takes all it gets does not keep others from theirs."""
        busy: list[int] = []

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            if request.path != b"/large":
                reply.send(200, body=b"%d" % len(busy))
                return
            piece = bytes(PIECE)
            for number in range(400):
                busy.append(number)
                await reply.write(piece)
            await reply.finish()

        await self.serve(handle)
        large, small = await self.client(), await self.client()
        large.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: busy)
        small.send(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertLess(int((await small.response()).body), 400)

    async def test_its_own(self) -> None:
        """Only a connection that is without copies has a wire."""

        async def handle(request: StreamingRequest, reply: Reply) -> None:
            channel = request.channel
            assert channel is not None
            reply.send(200, body=b"%d" % isinstance(channel.transport, Wire))

        await self.serve(handle)
        client = await self.client()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wired = (await client.response()).body
        self.assertEqual(wired, b"1" if self.without_copies else b"0")
