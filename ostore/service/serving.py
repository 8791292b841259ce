"""One listening port: the site behind it, its access log, its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from ostore.service.failing import StartError
from ostore.service.falling import GRACE, LEAST
from ostore.service.kinds import Address
from ostore.service.settings import Settings
from ostore.streaming.clock import Clock
from ostore.streaming.site import Handle, StreamingSite

REQUESTS = GRACE - LEAST
"""Seconds that requests under way have at the stop."""
BACKLOG = 1024


class Serving:
    """A site on a port; made and stopped by the service.

    The limits on clients are those of `settings`. With `tls` (a context factory of Twisted) it speaks HTTPS.
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
    ) -> None:
        """Begins to listen. Raises StartError."""
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
        try:
            if tls is None:
                port = reactor.listenTCP(
                    address.port, self._site, BACKLOG, interface=address.host
                )
            else:
                port = reactor.listenSSL(
                    address.port, self._site, tls, BACKLOG, interface=address.host
                )
        except CannotListenError as error:
            raise StartError(
                f"listen {address} cannot be used ({error.socketError.strerror}): "
                "allowed is a free address of this machine"
            ) from error
        self.port: IListeningPort = port
        host = port.getHost()
        self.address = Address(host.host, host.port)
        self.url = f"{'http' if tls is None else 'https'}://{self.address}"

    async def stop(self) -> None:
        """Accept no more, finish what is under way."""
        self._site.stop_accepting()
        if (closing := self.port.stopListening()) is not None:
            await closing
        await self._site.drain(REQUESTS)


def say(line: str) -> None:
    """To standard output, whatever the log goes to."""
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)
