"""One resumable upload as the api that has claimed it writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping

from ostore.engine.intake import COMMIT_TIME, STALL, Body, Writing
from ostore.engine.polling import poll
from ostore.engine.readback import ReadBack
from ostore.engine.share import Share
from ostore.erasure.encoder import Encoder
from ostore.erasure.geometry import Geometry
from ostore.model.encodings import may_shrink
from ostore.model.errors import NoSpace, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.model.resuming import STRIPE, Busy, Paused, TooMuch, UploadRecord
from ostore.streaming.fanout import Fanout, QuorumLost

SYNC_EVERY = 64
"""Stripes after which a part is made durable in between."""
BEAT = 2.0
"""Seconds between two signs of life while an upload is read back."""


class Session:
    """What one claim stands for; made by Claiming, kept by Resuming between parts.

    `offset` bytes are durable on the write quorum. `hashed` bytes are in the running
    hash. After a failure in a step on the nodes it is no longer `whole`: only another
    claim knows what is there.
    """

    small = False

    def __init__(
        self,
        writing: Writing,
        upload: str,
        record: UploadRecord,
        epoch: int,
        rows: bytes,
        tail: bytes,
        nodes: dict[int, str],
    ) -> None:
        self.upload = upload
        self.record = record
        self.epoch = epoch
        self.whole = True
        self.touched = writing.clock.monotonic()
        self.hashed = 0
        self.hasher = hashlib.sha256()
        self._house = writing
        self._geometry = Geometry(record.data, record.parity)
        self._encoder = Encoder.resumed(
            self._geometry, writing.codecs.get(self._geometry), rows, tail
        )
        self._shrinking = may_shrink(record.headers)
        self._tail = (self._encoder.stripes, len(tail))
        self.offset = record.offset(*self._tail)
        shares = {
            index: Share(upload, epoch, node, writing.nodes.uploads(node))
            for index, node in nodes.items()
        }
        self._shares = shares
        self._dropped: list[Share] = []
        self._fanout: Fanout[Share] = Fanout(
            writing.clock,
            shares,
            record.quorum,
            writing.coding.laggard,
            STALL,
            self._left_out,
        )

    @property
    def cost(self) -> int:
        """Bytes that it keeps in memory, about."""
        return 4096 + self._encoder.held + 13 * self._encoder.stripes

    @property
    def left_out(self) -> list[str]:
        """The nodes of the upload that this claim does not write, or no longer."""
        standing = {share.node for share in self._standing()}
        return [node for node in self.record.everywhere if node not in standing]

    @property
    def reusable(self) -> bool:
        """Whether another part can follow: all that was received is acknowledged."""
        return self.whole and self.offset == self._received()

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self.offset == self.record.size

    def rows(self) -> bytes:
        """The packed rows of its stripes."""
        return self._encoder.rows()

    # A part

    async def again(self) -> bool:
        """Go on under the same claim; False when that does not stand everywhere."""
        stripes = self._encoder.stripes

        async def renew(share: Share) -> bool:
            return await share.uploads.renew(self.upload, self.epoch) == stripes

        self.touched = self._house.clock.monotonic()
        found = await poll(self._house.clock, self._standing(), renew)
        return not found.failures and all(found.answers.values())

    async def receive(self, body: Body) -> None:
        """Take in a part, to its end or as far as it comes. Raises TooMuch."""
        since = 0
        while chunk := await body.read():
            self.touched = self._house.clock.monotonic()
            if self._received() + len(chunk) > self.record.size:
                raise TooMuch("the upload was to have fewer bytes")
            self.hash(self._received(), chunk)
            for raw in self._encoder.feed(chunk):
                await self._send(raw)
                since += 1
            if since >= SYNC_EVERY:
                since = 0
                await self.save()
        if self._received() == self.record.size:
            last = self._encoder.finish()
            if last is not None:
                await self._send(last)

    async def save(self) -> None:
        """Make durable all that was received, and acknowledge it.

        Raises Busy when another has claimed the upload, Paused, NoSpace.
        """
        stripes, held = self._encoder.stripes, self._encoder.held
        at = self._tail[1] if self._tail[0] == stripes else 0
        tail = self._encoder.partial(at)
        await self._each(lambda _, share: share.save(stripes, at, tail))
        self._tail = stripes, held
        self.offset = self.record.offset(stripes, held)

    def hash(self, begin: int, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from `begin` into the running hash, if it has come so far."""
        if begin == self.hashed:
            self.hasher.update(data)
            self.hashed += len(data)

    async def catch_up(self) -> None:
        """Read what others wrote into the running hash. Raises Paused."""
        reader = ReadBack(
            self._house,
            self.upload,
            self._geometry,
            self._encoder.rows(),
            {index: self._shares[index].node for index in self._fanout.standing},
        )
        try:
            for number in range(self.hashed // STRIPE, self._encoder.stripes):
                at = number * STRIPE
                for piece in await reader.stripe(number):
                    skip = min(len(piece), max(0, self.hashed - at))
                    self.hash(at + skip, memoryview(piece)[skip:])
                    at += len(piece)
        finally:
            await reader.close()
        whole = self.record.offset(self._encoder.stripes)
        self.hash(self.hashed, self._encoder.partial(max(0, self.hashed - whole)))

    # The end

    def layout(self) -> Layout:
        """How the content was cut."""
        return self._encoder.layout()

    async def store(self, hash: str, layout: Layout) -> Mapping[int, str]:
        """Name all temporaries as shards; they stay temporaries too."""
        deadline = self._house.clock.wall() + COMMIT_TIME

        async def commit(index: int, share: Share) -> None:
            key = ShardKey(hash, index, layout.id)
            await share.uploads.commit(self.upload, self.epoch, key, layout, deadline)

        await self._each(commit)
        standing = self._fanout.standing
        return {index: self._shares[index].node for index in standing}

    async def finish(self, outcome: str) -> list[str]:
        """Leave nothing but the outcome; gives the nodes that did not take it."""

        async def finish(share: Share) -> None:
            await share.close()
            await share.uploads.finish(self.upload, self.epoch, outcome)

        found = await poll(self._house.clock, self._standing(), finish)
        return [share.node for share in found.failures]

    async def release(self) -> None:
        """Let others claim it at once, as far as the nodes can be reached."""
        dropped, self._dropped = self._dropped, []

        async def release(share: Share) -> None:
            await share.close()
            await share.uploads.release(self.upload, self.epoch)

        await poll(self._house.clock, [*self._standing(), *dropped], release)

    async def alive(self) -> None:
        """Tell the nodes now and then that the claim stands; until it is cancelled."""
        while True:
            await self._house.clock.sleep(BEAT)
            await self.again()

    # Its own

    def _received(self) -> int:
        return self.record.offset(self._encoder.stripes, self._encoder.held)

    async def _send(self, raw: memoryview) -> None:
        house, geometry = self._house, self._geometry
        self.whole = False  # the encoder has let go of these bytes
        cost = len(raw) * geometry.shards // geometry.data
        await house.budget.take(cost)
        try:
            compressed = await house.compressed(raw) if self._shrinking else None
            frames = self._encoder.code(raw, compressed)
            await self._each(lambda index, share: share.write(frames[index]))
        finally:
            house.budget.give(cost)

    async def _each(self, step: Callable[[int, Share], Awaitable[object]]) -> None:
        self.whole = False
        try:
            await self._fanout.each(step)
        except QuorumLost:
            causes = list(self._fanout.failures.values())
            if any(isinstance(cause, ShardRefused) for cause in causes):
                raise Busy(
                    "another request has taken the upload over", self.offset
                ) from None
            error = self._house.too_few(causes)
            if isinstance(error, NoSpace):
                raise error from None
            raise Paused(str(error), self.offset) from None
        self.whole = True

    def _left_out(self, _: int, share: Share, error: Exception) -> None:
        self._dropped.append(share)
        self._house.left_out(share.node, error)

    def _standing(self) -> list[Share]:
        return [self._shares[index] for index in self._fanout.standing]
