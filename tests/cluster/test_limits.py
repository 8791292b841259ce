"""Limits against slow and many clients, as an operator sets them."""

from __future__ import annotations

from tests.support.http import Cut
from tests.support.standalone import StandaloneCase

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"


class LimitsCase(StandaloneCase):
    """Each test sets one limit tight; the others are the defaults."""

    async def again(self, **options: str) -> None:
        """Start anew with these."""
        await self.fall()
        await self.rise(**options)

    async def assert_cut(self, sent: bytes) -> None:
        """A client that sends this, and then nothing, is let go without an answer."""
        connection = await self.connected()
        connection.send(sent)
        await connection.ended()
        self.assertEqual(connection.held, 0)


class LimitsTests(LimitsCase):
    """From the option to the socket."""

    async def test_head_timeout(self) -> None:
        """A head that stops in the middle ends the connection."""
        await self.again(head_timeout="200ms")
        await self.assert_cut(GET)

    async def test_idle_timeout(self) -> None:
        """So does a body that stops, and a connection between requests."""
        await self.again(idle_timeout="200ms")
        head = b"PUT /objects/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        await self.assert_cut(head + b"half")
        connection = await self.connected()
        connection.send(GET + b"\r\n")
        self.assertEqual((await connection.answer()).status, 200)
        await connection.ended()
        self.assertEqual(self.temporaries(), [])
        self.assert_problem(await self.get("a"), 404)

    async def test_min_progress(self) -> None:
        """A body that comes in drops is let go, however steadily they fall."""
        await self.again(idle_timeout="400ms", min_progress="1MiB")
        connection = await self.connected()
        head = b"PUT /objects/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
        connection.send(head)

        def drop() -> bool:
            connection.send(b"x" * 100)
            return connection.lost is not None

        await self.until(drop, "the client is let go")

    async def test_max_head(self) -> None:
        """A larger head is 431; one that is as large is served."""
        for option, size, status in (("8KiB", 9000, 431), ("64KiB", 60_000, 200)):
            await self.again(max_head=option)
            connection = await self.connected()
            connection.send(GET + b"X-Long: " + b"x" * size + b"\r\n\r\n")
            self.assertEqual((await connection.answer()).status, status)

    async def test_max_connections(self) -> None:
        """What comes beyond, in all or from one address, is cut without an answer."""
        for option in ("max_connections", "max_connections_per_address"):
            await self.again(**{option: "2"})
            kept = [await self.connected() for _ in range(2)]
            for connection in kept:
                connection.send(GET + b"\r\n")
                self.assertEqual((await connection.answer()).status, 200)
            with self.assertRaises(Cut):
                beyond = await self.connected()
                await beyond.answer()
            for connection in kept:
                await connection.close()
            self.assertEqual((await self.ask("GET", "/health/live")).status, 200)
