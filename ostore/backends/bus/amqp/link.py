"""The way to a broker, found again whenever it is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
)
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.backends.bus.amqp.brokers import Broker
from ostore.backends.bus.amqp.client import Client
from ostore.backends.bus.amqp.reasons import BrokerLost, lost
from ostore.streaming.clock import Clock, TimedOut

FIRST_PAUSE: Final = 0.2
GROWTH: Final = 1.7
LONGEST_PAUSE: Final = 3.0
"""Seconds: a broker that is back is found well within five."""
ATTEMPT_TIMEOUT: Final = 8.0
"""Seconds for one attempt: connection, login, all that is declared."""
BURIAL_TIMEOUT: Final = 1.0
"""Seconds in which a transport that was told to end has ended."""
STEADY: Final = 5.0
"""Seconds after which a connection counts as a good one."""
USUAL: Final = (BrokerLost, TimedOut, ConnectError, ConnectionClosed, DNSLookupError)

Way = tuple[Broker, IStreamClientEndpoint]


class _Making(Factory):
    """Gives the client of one attempt to its endpoint."""

    noisy = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Called by the endpoint."""
        made: Protocol = self._client
        return made


class Link:
    """Keeps one connection to one of several brokers until `run` is cancelled.

    Owned by the bus. `make` gives a client, `prepare` makes it ready, `failed` hears
    why an attempt or a connection ended.
    """

    def __init__(
        self,
        clock: Clock,
        entropy: Callable[[int], bytes],
        ways: Sequence[Way],
        make: Callable[[Broker], Client],
        prepare: Callable[[Client], Awaitable[None]],
        failed: Callable[[BrokerLost], None],
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._ways = ways
        self._make = make
        self._prepare = prepare
        self._failed = failed
        self._log = Logger()

    async def run(self) -> None:
        """Try the brokers in turn, for ever; rest longer after every round in vain."""
        failures = 0
        for way in cycle(self._ways):
            reason, lived = await self._visit(way)
            self._failed(reason)
            if lived > STEADY:
                failures = 0
            await self._clock.sleep(self._pause(failures // len(self._ways)))
            failures += 1

    def _pause(self, rounds: int) -> float:
        whole = min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH ** min(rounds, 20))
        return whole * (0.5 + int.from_bytes(self._entropy(2), "big") / 131_072)

    async def _visit(self, way: Way) -> tuple[BrokerLost, float]:
        """One connection: why it ended, and the seconds that it was of use."""
        try:
            client = await self._clock.within(ATTEMPT_TIMEOUT, self._connect(way))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the loop outlives every attempt
            if not isinstance(error, USUAL):
                self._log.failure("an attempt at the message bus failed", Failure())  # type: ignore[no-untyped-call]  # untyped in Twisted
            return lost(str(way[0]), error), 0.0
        began = self._clock.monotonic()
        try:
            await client.over.wait()
        except CancelledError:
            await self._bury(client)
            raise
        await self._bury(client)
        return lost(str(way[0]), client.ended), self._clock.monotonic() - began

    async def _connect(self, way: Way) -> Client:
        broker, endpoint = way
        client = self._make(broker)
        try:
            await endpoint.connect(_Making(client))
        except ConnectingCancelledError:
            raise CancelledError from None
        try:
            await self._prepare(client)
        except Exception:
            await self._bury(client)
            raise
        return client

    async def _bury(self, client: Client) -> None:
        """See to it that nothing of the client is left."""
        if client.ended is None:
            client.abort(BrokerLost(f"{client.broker} was given up"))
        for _ in range(2):
            try:
                await self._clock.within(BURIAL_TIMEOUT, client.disconnected.wait())
            except TimedOut:
                client.abort(BrokerLost(f"{client.broker} was given up"))
            else:
                return
        self._log.warn("{where} does not let go", where=str(client.broker))
