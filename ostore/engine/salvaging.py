"""The last resort of a read: stripes from shards that are rotten in other places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import combinations, islice
from typing import TypeVar

from ostore.engine.cluster import Cluster
from ostore.engine.reading import PATIENCE, TRIES
from ostore.erasure.codec import Codecs
from ostore.erasure.decoder import decode
from ostore.erasure.framing import Row
from ostore.erasure.geometry import Buffer, Geometry
from ostore.interfaces import INodes, IShardReader
from ostore.model.errors import ShardError, ShardRotten, TooFewShards
from ostore.model.layouts import Layout, ShardFacts, ShardKey, before
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import gather

T = TypeVar("T")

Places = Mapping[tuple[int, str], IShardReader]
"""Open shards by index and node."""


class Salvage:
    """Stripes of one content in one layout, each from any k good blocks of it.

    Made by `Salvaging` for a GET, which closes it. Every shard is asked for every
    stripe: a block that is rotten says nothing about the others of its shard. All
    blocks and the stripe itself are checked as in any read.
    """

    def __init__(
        self, clock: Clock, codecs: Codecs, layout: Layout, readers: Places
    ) -> None:
        geometry = Geometry(layout.data, layout.parity)
        self.table = next(iter(readers.values())).table
        self._clock = clock
        self._geometry = geometry
        self._codec = codecs.get(geometry)
        self._readers = dict(readers)

    def until(self, stop: int) -> None:
        """Nothing is read ahead here."""

    async def stripe(self, number: int) -> Sequence[Buffer]:
        """The raw bytes of one stripe, in pieces. Raises TooFewShards."""
        row = self.table.row(number)
        blocks: dict[int, Buffer] = {}
        places = sorted(self._readers)
        answers = await gather(self._block(place, number, row) for place in places)
        for (index, _), block in zip(places, map(_sure, answers), strict=True):
            if block is not None:
                blocks.setdefault(index, block)
        chosen = combinations(sorted(blocks), self._geometry.data)
        for some in islice(chosen, TRIES):
            with suppress(ShardRotten):
                good = {index: blocks[index] for index in some}
                return decode(row, self._geometry, self._codec, good)
        raise TooFewShards("a part of the content is rotten in too many shards")

    async def close(self) -> None:
        """Let go of every shard. Idempotent."""
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            await reader.close()

    async def _block(
        self, place: tuple[int, str], number: int, row: Row
    ) -> Buffer | None:
        """One shard's block of a stripe if it is good; a node that hangs is dropped."""
        stream = self._readers[place].frames(number, number + 1)
        try:
            frame = await self._clock.within(PATIENCE, stream.read())
        except TimedOut:
            await self._readers.pop(place).close()
            return None
        except ShardError:
            return None
        finally:
            await stream.close()
        if frame is None or frame.number != number or frame.row != row:
            return None
        return frame.block


class Salvaging:
    """Finds what is left of a content, shards marked bad included; used by `Getting`."""

    def __init__(
        self, cluster: Cluster, nodes: INodes, clock: Clock, codecs: Codecs
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._clock = clock
        self._codecs = codecs

    async def open(self, hash: str, layout: Layout | None = None) -> Salvage:
        """What can be opened of that layout, or of the one with most shards left.

        Raises TooFewShards when it is less than k shards, or none of them is bad: that
        is what a read has tried already.
        """
        held: dict[Layout, list[tuple[int, str]]] = {}
        bad: set[Layout] = set()
        for node, facts in await self.held(hash):
            if facts.layout.data and layout in (None, facts.layout):
                held.setdefault(facts.layout, []).append((facts.index, node))
            if facts.state == "bad":
                bad.add(facts.layout)
        held = {one: places for one, places in held.items() if one in bad}
        for one, places in sorted(
            held.items(), key=lambda each: (-len(each[1]), each[0].id)
        ):
            readers = await self._open(hash, one, places)
            if len({index for index, _ in readers}) >= one.data:
                return Salvage(self._clock, self._codecs, one, readers)
            for reader in readers.values():
                await reader.close()
        raise TooFewShards("too few shards of the content are within reach")

    async def held(self, hash: str) -> Sequence[tuple[str, ShardFacts]]:
        """Node and shard, of all that are not in garbage: the bad ones too."""

        async def ask(node: str) -> Sequence[ShardFacts]:
            try:
                return await self._clock.within(
                    PATIENCE, self._nodes.store(node).list(before(hash), 1, hash)
                )
            except (ShardError, TimedOut):
                return ()

        nodes = sorted(member.beat.node for member in self._cluster.live())
        answers = await gather(ask(node) for node in nodes)
        return [
            (node, facts)
            for node, answer in zip(nodes, map(_sure, answers), strict=True)
            for facts in answer
            if facts.state in ("whole", "bad")
        ]

    async def _open(
        self, hash: str, layout: Layout, places: Sequence[tuple[int, str]]
    ) -> dict[tuple[int, str], IShardReader]:
        async def ask(index: int, node: str) -> IShardReader | None:
            key = ShardKey(hash, index, layout.id)
            try:
                return await self._clock.within(
                    PATIENCE, self._nodes.store(node).open(key, bad=True)
                )
            except (ShardError, TimedOut):
                return None

        answers = await gather(ask(*place) for place in places)
        opened = zip(places, map(_sure, answers), strict=True)
        return {place: reader for place, reader in opened if reader is not None}


def _sure(outcome: T | Exception) -> T:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
