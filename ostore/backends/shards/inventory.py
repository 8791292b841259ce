"""What a store has of each content, as files and packed in segments together."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from heapq import merge
from itertools import groupby

from ostore.backends.shards.filed import FiledShards
from ostore.backends.shards.looking import holding
from ostore.backends.shards.segments.packed import PackedShards
from ostore.backends.shards.serial import Serial
from ostore.model.errors import NodeUnreachable
from ostore.model.layouts import Holding, ShardFacts, ShardKey, before


class Inventory:
    """Asks both kinds of shards and adds up what they say; owned by a store."""

    def __init__(
        self, filed: FiledShards, packed: PackedShards, serial: Serial
    ) -> None:
        self._filed = filed
        self._packed = packed
        self._serial = serial

    def lacks(self, hash: str) -> bool:
        """Whether it is known that nothing is here of that content."""
        return self._packed.without(hash) and self._filed.without(hash)

    async def find(self, hash: str) -> Holding:
        """All whole shards of a content; in its turn when the disk must be asked."""
        if self.lacks(hash):
            return holding(())
        filed, doubtful = await self._filed.find(hash)
        packed, doubted = await self._packed.find(hash)
        if not doubtful and not doubted:
            return self.holding(packed, filed)
        return await self._serial.run(hash, lambda: self.look(hash))

    async def look(self, hash: str) -> Holding:
        """The same, for whose turn it is: what is in doubt is settled."""
        filed = await self._filed.look(hash)
        return self.holding(await self._packed.settled(hash), filed)

    async def keys(self, hash: str, *, bad: bool = False) -> Sequence[ShardKey]:
        """The shards of a content outside garbage; the bad ones only with `bad`."""
        packed = self._packed.keys(hash, bad=bad)
        filed = await self._filed.keys(hash, bad=bad)
        return [*packed, *(key for key in filed if key not in packed)]

    async def page(self, after: str, limit: int, until: str) -> Sequence[ShardFacts]:
        """About `limit` shards behind `after`, all of a content; none behind `until`."""
        if until and after == before(until):  # one content: there is nothing to search
            return await self._facts(until)
        facts: MutableSequence[ShardFacts] = []
        hashes = merge(self._filed.hashes(after), self._packed.hashes(after))
        for hash, _ in groupby(hashes):
            if len(facts) >= limit or (until and hash > until):
                break
            facts += await self._facts(hash)
        return facts

    def holding(
        self, packed: Sequence[ShardFacts], filed: Sequence[ShardFacts]
    ) -> Holding:
        """What these come to; unsure when there are none and segments are not read."""
        found = list({each.key: each for each in (*filed, *packed)}.values())
        if not found and not self._packed.known:
            return Holding("unsure")
        return holding(found)

    def must_know(self) -> None:
        """Raise NodeUnreachable while nothing may be called missing."""
        if not self._packed.known:
            raise NodeUnreachable("the node is still counting its shards")

    async def _facts(self, hash: str) -> Sequence[ShardFacts]:
        """All of one content; a file that is packed too counts once."""
        packed = self._packed.facts(hash)
        standing = {each.key for each in packed if each.state != "garbage"}
        filed = await self._filed.facts(hash)
        return [
            *packed,
            *(f for f in filed if f.state == "garbage" or f.key not in standing),
        ]
