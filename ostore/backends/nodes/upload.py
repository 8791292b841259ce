"""A shard on its way to a data service."""

from __future__ import annotations

import hashlib

from twisted.internet.defer import Deferred
from zope.interface import implementer

from ostore.backends.nodes.asking import COMMIT, Ask, Peer, Told
from ostore.backends.nodes.naming import checked, naming
from ostore.backends.nodes.protocol import FRAMES, HELD, LAYOUT, digest_header
from ostore.backends.nodes.sending import Sending
from ostore.erasure.framing import Frame
from ostore.interfaces import IShardSink
from ostore.model.errors import NodeUnreachable, ShardError, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks, shielded

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
class RemoteSink(Sending):
    """A temporary at a node, from the store's create() to commit() or abort().

    Used by one PUT.
    """

    def __init__(self, peer: Peer, upload: str, clock: Clock, tasks: Tasks) -> None:
        super().__init__(peer, clock)
        self._upload = upload
        self._tasks = tasks
        self._frames = 0
        self._bytes = 0
        self._headers = hashlib.sha256()
        self._removed: Deferred[None] | None = None

    async def write(self, frame: Frame) -> None:
        """Send one frame, once the one before has left."""
        await self._ready()
        if frame.number != self._frames:
            raise ShardRefused(f"frame {frame.number} stands where {self._frames} must")
        header = frame.header()
        await self._send(header, frame)
        self._frames += 1
        self._bytes += len(frame.block)
        self._headers.update(header)
        self._rest()

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

    def _ask(self) -> Ask:
        at = {HELD: str(self._bytes), "Content-Type": FRAMES}
        return Ask("PATCH", f"/temp/{self._upload}", at, streams=True, patience=COMMIT)

    def _took(self, told: Told) -> None:
        if told.headers.get(HELD.lower()) != str(self._bytes):
            raise NodeUnreachable("the node took less than was sent")
