"""GET: a version's bytes, right or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from ostore.engine.cluster import Cluster
from ostore.engine.glancing import Glancing
from ostore.engine.looking import Looking
from ostore.engine.reading import StripeReader
from ostore.engine.repairs import Repairs
from ostore.engine.salvaging import Salvaging
from ostore.erasure.codec import Codecs
from ostore.erasure.framing import Table
from ostore.erasure.geometry import STRIPE, Buffer
from ostore.interfaces import INodes
from ostore.model.census import Census, Standing
from ostore.model.errors import ShardError, TooFewShards
from ostore.model.versions import Version
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import gather

GLANCED = 64 * 1024
"""Bytes of a content up to which a look whether it is there reads it."""


class Stripes(Protocol):
    """Reads a layout stripe by stripe, ascending."""

    def until(self, stop: int) -> None:
        """Nothing from stripe `stop` on will be wanted."""

    async def stripe(self, number: int) -> Sequence[Buffer]:
        """The raw bytes of one stripe, in pieces. Raises TooFewShards."""
        ...

    async def close(self) -> None:
        """Let go of every shard. Idempotent."""


class ByteStream:
    """The bytes start <= i < stop of a content; made by `OpenObject.read`.

    `read` gives the next piece and b"" at the end; whoever holds it closes it.
    """

    def __init__(self, reader: Stripes | None, table: Table | None) -> None:
        self.rescue: Callable[[], Awaitable[Stripes]] | None = None
        """Gives another reader of the same layout, should this one fail."""
        self._reader = reader
        self._table = table
        self._pieces: deque[Buffer] = deque()
        self._next = self._end = 0
        self._skip = self._left = 0

    @classmethod
    def of(cls, content: Sequence[Buffer], begin: int, stop: int) -> ByteStream:
        """The bytes begin <= i < stop of a content that is at hand in pieces."""
        stream = cls(None, None)
        stream._skip, stream._left = begin, stop - begin
        stream._take(content)
        return stream

    async def seek(self, begin: int, stop: int) -> None:
        """Go to `begin` and have the first stripe at hand. Raises TooFewShards."""
        self._left = stop - begin
        if self._reader is None or self._table is None or self._left <= 0:
            return
        self._next, self._end = self._table.stripes(begin, stop)
        self._skip = self._table.find(begin)[1]
        self._reader.until(self._end)
        await self._fill()

    async def read(self) -> Buffer:
        """The next bytes, at most a block; b"" behind the last."""
        if self._left <= 0:
            return b""
        if not self._pieces:
            await self._fill()
        return self._next_piece()

    async def pieces(self) -> Sequence[Buffer]:
        """The next bytes, at most a stripe, as they lie in memory; none at the end."""
        if self._left > 0 and not self._pieces:
            await self._fill()
        pieces: list[Buffer] = []
        while self._left > 0 and self._pieces:
            pieces.append(self._next_piece())
        return pieces

    def _next_piece(self) -> Buffer:
        piece = self._pieces.popleft()
        if len(piece) > self._left:
            piece = piece[: self._left]
        self._left -= len(piece)
        return piece

    async def close(self) -> None:
        """Let go of the shards. Idempotent."""
        reader, self._reader = self._reader, None
        self._pieces.clear()
        if reader is not None:
            await reader.close()

    async def _fill(self) -> None:
        if self._reader is None or self._next >= self._end:
            raise TooFewShards("the content ended early")
        try:
            pieces = await self._reader.stripe(self._next)
        except TooFewShards:
            rescue, self.rescue = self.rescue, None
            if rescue is None:
                raise
            failed, self._reader = self._reader, await rescue()
            await failed.close()
            self._reader.until(self._end)
            pieces = await self._reader.stripe(self._next)
        self._next += 1
        self._take(pieces)

    def _take(self, pieces: Sequence[Buffer]) -> None:
        skip, self._skip = self._skip, 0
        for piece in pieces:
            if skip >= len(piece):
                skip -= len(piece)
                continue
            self._pieces.append(piece[skip:] if skip else piece)
            skip = 0


class Getting:
    """Opens contents for reading."""

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        clock: Clock,
        codecs: Codecs,
        repairs: Repairs,
        workers: Workers,
        locate_timeout: float,
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._clock = clock
        self._codecs = codecs
        self._repairs = repairs
        self._workers = workers
        self._timeout = locate_timeout
        self._salvaging = Salvaging(cluster, nodes, clock, codecs)
        self._looking = Looking(cluster, clock, self._seen)
        self._glancing = Glancing(nodes, codecs, clock)

    async def read(self, version: Version, begin: int, stop: int) -> ByteStream:
        """A stream of those bytes, its first stripe decoded. Raises TooFewShards."""
        if begin >= stop:
            return ByteStream(None, None)
        try:
            return await self._read(version, begin, stop)
        except TooFewShards as error:
            why = error
        if await self._restore(version.hash):
            with suppress(TooFewShards):
                return await self._read(version, begin, stop)
        with suppress(TooFewShards):
            return await self._salvage(version, begin, stop)
        raise why

    async def reach(self, version: Version) -> None:
        """Return once enough shards for a read are known. Raises TooFewShards."""
        if not version.size or await self._opens(version):
            return
        try:
            await self._standings(version.hash)
        except TooFewShards as error:
            why = error
        else:
            return
        if await self._restore(version.hash):
            with suppress(TooFewShards):
                await self._standings(version.hash)
                return
        with suppress(TooFewShards):
            await (await self._salvaging.open(version.hash)).close()
            return
        raise why

    async def _salvage(self, version: Version, begin: int, stop: int) -> ByteStream:
        """The same from shards of which each is rotten somewhere."""
        salvage = await self._salvaging.open(version.hash)
        try:
            stream = ByteStream(salvage, salvage.table)
            await stream.seek(begin, stop)
        except BaseException:
            await salvage.close()
            raise
        return stream

    async def _read(self, version: Version, begin: int, stop: int) -> ByteStream:
        remembered = self._cluster.remembered(version.hash)
        if remembered is not None:
            content = await self._glance(version, remembered)
            if content is not None:
                return ByteStream.of(content, begin, stop)
            try:
                # nodes that hang are found out by a locate, and sooner than by waiting
                opening = self._stream(version, remembered, begin, stop)
                return await self._clock.within(self._timeout, opening)
            except (TooFewShards, TimedOut):
                self._cluster.places.forget(version.hash)
            finally:
                self._looking.soon(version.hash)
        last: Exception | None = None
        for standing in await self._standings(version.hash):
            try:
                return await self._stream(version, standing, begin, stop)
            except TooFewShards as error:
                last = error
        raise last or TooFewShards("too few shards of the content are within reach")

    async def _stream(
        self, version: Version, standing: Standing, begin: int, stop: int
    ) -> ByteStream:
        """The bytes from one layout. Raises TooFewShards."""
        reader = self.reader(version.hash, standing)
        try:
            stream = ByteStream(reader, await reader.table())
            await stream.seek(begin, stop)
        except BaseException:
            await reader.close()
            raise
        layout = standing.layout
        stream.rescue = partial(self._salvaging.open, version.hash, layout)
        return stream

    async def _opens(self, version: Version) -> bool:
        """Whether k shards can be opened where they are remembered to be."""
        remembered = self._cluster.remembered(version.hash)
        if remembered is None:
            return False
        if version.size <= GLANCED and await self._glance(version, remembered):
            return True
        reader = self.reader(version.hash, remembered)
        try:
            await self._clock.within(self._timeout, reader.table())
        except (TooFewShards, TimedOut):
            self._cluster.places.forget(version.hash)
            return False
        finally:
            await reader.close()
            self._looking.soon(version.hash)
        return True

    async def _glance(
        self, version: Version, remembered: Standing
    ) -> Sequence[Buffer] | None:
        """A content of one stripe, if it can be had without waiting."""
        if not remembered.layout.size == version.size <= STRIPE:
            return None
        content = await self._glancing.stripe(version.hash, remembered)
        if content is not None:
            self._looking.soon(version.hash)
        return content

    def _seen(self, hash: str, census: Census) -> None:
        """What all nodes say of a content that was read from memory."""
        for standing in census.standings()[:1]:
            if standing.readable:
                self._note(hash, census, standing)

    async def rotten(self, hash: str, layout: str) -> Mapping[int, str]:
        """Where bad shards of a layout lie: index -> node."""
        return {
            facts.index: node
            for node, facts in await self._salvaging.held(hash)
            if facts.layout.id == layout and facts.state == "bad"
        }

    def reader(self, hash: str, standing: Standing) -> StripeReader:
        """A reader of one layout of a content."""
        return StripeReader(
            self._nodes,
            self._clock,
            self._codecs,
            self._repairs,
            self._cluster,
            self._workers,
            hash,
            standing,
        )

    async def _standings(self, hash: str) -> Sequence[Standing]:
        """Readable layouts, best first; asks again until the time-out."""
        deadline = self._clock.monotonic() + self._timeout
        while True:
            census = await self._cluster.locate(hash, reading=True)
            readable = [s for s in census.standings() if s.readable]
            if readable:
                self._note(hash, census, readable[0])
                return readable
            if self._clock.monotonic() >= deadline or (
                census.certain and self._cluster.settled
            ):
                raise TooFewShards(self._why(census))
            await self._clock.sleep(min(0.1, self._timeout / 4))

    async def _restore(self, hash: str) -> bool:
        """Bring back what lies in garbage; whether any node holds shards now."""

        async def restore(node: str) -> bool:
            try:
                holding = await self._clock.within(
                    self._timeout, self._nodes.store(node).restore(hash)
                )
            except (ShardError, TimedOut):
                return False
            return bool(holding.shards)

        found = False
        for outcome in await gather(
            restore(member.beat.node) for member in self._cluster.live()
        ):
            if isinstance(outcome, Exception):
                raise outcome
            found = found or outcome
        return found

    def _note(self, hash: str, census: Census, best: Standing) -> None:
        """Queue what is missing, but not what nodes that are merely late may hold."""
        absent = best.absent
        if len(absent) > len(census.silent):
            self._cluster.places.forget(hash)
            self._repairs.found(hash, best.layout, dict.fromkeys(absent, ""))

    def _why(self, census: Census) -> str:
        most = max((len(s.places) for s in census.standings()), default=0)
        return (
            f"too few shards of the content are within reach: {most} found on "
            f"{len(census.asked)} live nodes"
        )
