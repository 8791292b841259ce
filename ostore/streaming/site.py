"""The server's end of HTTP: connections, limits, and a graceful end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.protocol import ServerFactory

from ostore.streaming.clock import Clock
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest

Handle = Callable[[StreamingRequest, Reply], Awaitable[None]]


class StreamingSite(ServerFactory):
    """Makes a channel for each connection and hands each request to `handle`.

    A client that owes us bytes (or takes none of ours) for `idle` seconds is let go;
    the head of a request must come within `head_time` seconds.
    """

    in_flight: int
    """Requests whose `handle` has not returned."""

    def __init__(
        self,
        handle: Handle,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        idle: float = 60,
        head_time: float = 30,
        linger_time: float = 5,
        linger_bytes: int = 64 * 1024 * 1024,
        server: str = "ostore",
    ) -> None:
        raise NotImplementedError

    def stop_accepting(self) -> None:
        """Refuse new connections, close idle ones; busy ones end with their answer."""
        raise NotImplementedError

    async def drain(self, seconds: float) -> None:
        """stop_accepting, wait for what is under way, abort it after `seconds`."""
        raise NotImplementedError
