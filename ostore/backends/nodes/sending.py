"""Frames on their way to a data service, in as few requests as their pace allows."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ostore.backends.nodes.asking import Ask, Exchange, Peer, Told
from ostore.erasure.framing import Frame
from ostore.model.errors import NodeUnreachable, ShardError
from ostore.streaming.client import EarlyAnswer
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import shielded, start

REST = 20.0
"""Seconds without a frame after which the request ends; the next frame begins another."""


class Sending:
    """The part of a sink that sends; a subclass says how a request begins and ends.

    All frames go in one request as long as they come without long pauses; a node that
    stops to read is noticed by whoever writes the next. The first error stands.
    """

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._exchange: Exchange | None = None
        self._resting: IDelayedCall | None = None
        self._ending: Deferred[None] | None = None
        self._error: ShardError | None = None

    def _ask(self) -> Ask:
        """The request for the frames from now on."""
        raise NotImplementedError

    def _took(self, told: Told) -> None:
        """Look at its answer. Raises NodeUnreachable."""
        raise NotImplementedError

    async def _ready(self) -> None:
        """Wait until the next frame can be sent. Raises what failed."""
        self._stop_resting()
        if self._ending is not None:
            await self._settled()
        self._check()

    async def _send(self, header: bytes, frame: Frame) -> None:
        """Send it in the request under way, or in a new one."""
        try:
            if self._exchange is None:
                self._exchange = await self._peer.begin(self._ask())
                self._check()
            await self._exchange.send((header, frame.block))
        except EarlyAnswer:
            assert self._exchange is not None
            try:
                await self._exchange.told()
            except ShardError as error:
                raise self._failed(error) from None
            lost = NodeUnreachable("the node took less than was sent")
            raise self._failed(lost) from None
        except ShardError as error:
            raise self._failed(error) from None

    def _rest(self) -> None:
        """The frame was counted: end the request unless another comes soon."""
        self._resting = self._clock.call_later(REST, self._end)

    def _end(self) -> None:
        """Finish the request under way, beside whoever uses the sink."""
        if self._ending is None and self._exchange is not None:
            self._ending = start(self._finish(self._exchange))

    async def _finish(self, exchange: Exchange) -> None:
        try:
            exchange.end()
            self._took(await exchange.told())
        except ShardError as error:
            self._failed(error)
        else:
            self._exchange = None
            exchange.close()

    async def _settled(self) -> None:
        """Wait until no request is under way. Raises what failed."""
        self._end()
        if self._ending is not None:
            await shielded(self._ending)
            self._ending = None
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _failed(self, error: ShardError) -> ShardError:
        """Note the first error, which stands from now on, and cut the request."""
        self._error = self._error or error
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
        return self._error

    def _stop_resting(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and resting.active():
            resting.cancel()
