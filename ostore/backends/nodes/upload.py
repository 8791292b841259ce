"""A shard on its way to a data service."""

from __future__ import annotations

import hashlib

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from ostore.backends.nodes.asking import COMMIT, Ask, Exchange, Peer
from ostore.backends.nodes.naming import checked, naming
from ostore.backends.nodes.protocol import FRAMES, HELD, LAYOUT, digest_header
from ostore.erasure.framing import Frame
from ostore.interfaces import IShardSink
from ostore.model.errors import NodeUnreachable, ShardError, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.streaming.client import EarlyAnswer
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks, shielded, start

REST = 20.0
"""Seconds without a frame after which the request ends; the next frame begins another."""
REMOVAL = 10.0
"""Seconds that the removal of a temporary may take."""


async def remove(peer: Peer, clock: Clock, upload: str) -> None:
    """Have a temporary removed: bounded in time, content with whatever comes."""
    ask = Ask("DELETE", f"/temp/{upload}", repeatable=True)
    try:
        await clock.within(REMOVAL, peer.ask(ask))
    except (ShardError, TimedOut):
        return  # a node removes what nobody claims when it starts again


@implementer(IShardSink)
class RemoteSink:
    """A temporary at a node, from the store's create() to commit() or abort().

    Used by one PUT. All frames go in one request as long as they come without long
    pauses; a node that stops to read is noticed by whoever writes the next.
    """

    def __init__(self, peer: Peer, upload: str, clock: Clock, tasks: Tasks) -> None:
        self._peer = peer
        self._upload = upload
        self._clock = clock
        self._tasks = tasks
        self._frames = 0
        self._bytes = 0
        self._headers = hashlib.sha256()
        self._exchange: Exchange | None = None
        self._resting: IDelayedCall | None = None
        self._ending: Deferred[None] | None = None
        self._removed: Deferred[None] | None = None
        self._error: ShardError | None = None

    async def write(self, frame: Frame) -> None:
        """Send one frame, once the one before has left."""
        self._stop_resting()
        if self._ending is not None:
            await self._settled()
        self._check()
        if frame.number != self._frames:
            raise ShardRefused(f"frame {frame.number} stands where {self._frames} must")
        header = frame.header()
        await self._send(header, frame)
        self._frames += 1
        self._bytes += len(frame.block)
        self._headers.update(header)
        self._resting = self._clock.call_later(REST, self._end)

    async def commit(
        self, key: ShardKey, layout: Layout, deadline: float | None, age: float
    ) -> None:
        """Name it; the temporary stays when that is refused."""
        self._stop_resting()
        await self._settled()
        name = checked(key, layout)
        query = await naming(self._peer, deadline, age)
        ask = Ask(
            "PUT",
            f"/temp/{self._upload}?as={name}{query}",
            {LAYOUT: layout.header(), "Digest": digest_header(self._headers.digest())},
            patience=COMMIT,
        )
        try:
            await self._peer.ask(ask)
        except ShardRefused:
            raise
        except ShardError as error:
            raise self._failed(error) from None
        self._error = ShardRefused("this temporary has ended")
        self._removed = Deferred()
        self._removed.callback(None)

    async def abort(self) -> None:
        """Cut what is under way and have the temporary removed.

        That goes on when the caller is cancelled.
        """
        self._stop_resting()
        self._failed(NodeUnreachable("the write was given up"))
        if self._removed is None:
            self._removed = self._removal()
        if not self._removed.called:
            await shielded(self._removed)

    def _removal(self) -> Deferred[None]:
        """Begin to remove the temporary; fires when that has ended."""
        ended: Deferred[None] = Deferred()
        begun = False

        async def work() -> None:
            nonlocal begun
            begun = True
            try:
                await remove(self._peer, self._clock, self._upload)
            finally:
                ended.callback(None)

        self._tasks.spawn("removing a temporary", work)
        if not begun:  # the service is stopping
            ended.callback(None)
        return ended

    async def _send(self, header: bytes, frame: Frame) -> None:
        """Send it in the request under way, or in a new one."""
        try:
            if self._exchange is None:
                at = {HELD: str(self._bytes), "Content-Type": FRAMES}
                target = f"/temp/{self._upload}"
                ask = Ask("PATCH", target, at, streams=True, patience=COMMIT)
                self._exchange = await self._peer.begin(ask)
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

    def _end(self) -> None:
        """Finish the request under way, beside whoever uses the sink."""
        if self._ending is None and self._exchange is not None:
            self._ending = start(self._finish(self._exchange))

    async def _finish(self, exchange: Exchange) -> None:
        try:
            exchange.end()
            told = await exchange.told()
            if told.headers.get(HELD.lower()) != str(self._bytes):
                raise NodeUnreachable("the node took less than was sent")
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
