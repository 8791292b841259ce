"""One listening port: the site behind it, its access log, its end."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

from ostore.service.failing import StartError
from ostore.service.falling import GRACE, LEAST
from ostore.service.kinds import Address
from ostore.service.settings import Settings
from ostore.streaming.clock import Clock
from ostore.streaming.site import Handle, StreamingSite
from ostore.streaming.wire import wired

REQUESTS = GRACE - LEAST
"""Seconds that requests under way have at the stop."""
BACKLOG = 1024


class Serving:
    """A site on a port; made and stopped by the service.

    The limits on clients are those of `settings`. With `tls` (a context factory of
    Twisted) it speaks HTTPS.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        handle: Handle,
        clock: Clock,
        entropy: Callable[[int], bytes],
        settings: Settings,
        tls: Any = None,
        listening: int | None = None,
    ) -> None:
        """Begins to listen, or goes on from a descriptor that is. Raises StartError."""
        self._site = StreamingSite(
            handle,
            clock,
            entropy,
            idle=settings.idle_timeout,
            head_time=settings.head_timeout,
            least_progress=settings.min_progress,
            max_head=settings.max_head,
            max_connections=settings.max_connections,
            max_per_address=settings.max_connections_per_address,
        )
        factory: Any = self._site
        if tls is not None:
            factory = TLSMemoryBIOFactory(tls, False, factory)
        with bind(address) if listening is None else _given(listening) as made:
            port: IListeningPort = reactor.adoptStreamPort(
                made.fileno(), made.family, factory
            )
        wired(port)
        self.port = port
        host: Any = port.getHost()
        self.address = Address(host.host, host.port)
        self.url = url_of(self.address, secure=tls is not None)

    async def stop(self) -> None:
        """Accept no more, finish what is under way."""
        self._site.stop_accepting()
        if (closing := self.port.stopListening()) is not None:
            await closing
        await self._site.drain(REQUESTS)


def bind(address: Address) -> socket.socket:
    """A socket that listens there. Raises StartError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address.host, address.port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise StartError(
            f"listen {address} cannot be used ({error.strerror}): "
            "allowed is a free address of this machine"
        ) from error
    return made


def url_of(address: Address, *, secure: bool) -> str:
    """Where clients reach what listens there."""
    return f"{'https' if secure else 'http'}://{address}"


def _given(descriptor: int) -> socket.socket:
    """A socket that another process has made; the descriptor stays open."""
    return socket.socket(fileno=os.dup(descriptor))


def say(line: str) -> None:
    """To standard output, whatever the log goes to."""
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)
