"""Shards that are files of their own, by the names that the store knows."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import suppress
from heapq import merge
from itertools import groupby

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.ledger import Ledger
from ostore.backends.shards.looking import Doubtful, Look, look_at, look_twice
from ostore.backends.shards.reading import Opened
from ostore.backends.shards.root import Root, RootGone
from ostore.backends.shards.scan import Scan
from ostore.backends.shards.serial import handed_over
from ostore.backends.shards.shelf import Shelf
from ostore.model.errors import ShardError, ShardMissing, ShardRotten
from ostore.model.layouts import ShardFacts, ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers


class FiledShards:
    """What a store does with shards that are files; owned by it.

    What changes one, or strikes it off, is called in the content's turn. Where the
    count has not been it looks at the disk.
    """

    def __init__(
        self, disk: Disk, root: Root, shelf: Shelf, workers: Workers, clock: Clock
    ) -> None:
        self._disk = disk
        self._root = root
        self._shelf = shelf
        self._workers = workers
        self._clock = clock
        self.count(Ledger())

    def count(self, ledger: Ledger) -> None:
        """Know nothing but what this ledger will hold: see scan.run()."""
        self.ledger = ledger
        self.scan = Scan(
            self._disk,
            self._root.check,
            self._workers,
            self._clock,
            ledger.shards,
            ledger.garbage,
        )

    def __len__(self) -> int:
        return len(self.ledger.shards)

    async def any(self) -> bool:
        """Whether any is here, garbage included; looks at the disk if need be."""
        if len(self.ledger.shards) or len(self.ledger.garbage):
            return True
        return not self.scan.done and await self._workers.run(self._shelf.any)

    def hashes(self, after: str) -> Iterator[str]:
        """Contents with a hash greater than `after`, ascending."""
        ledger = self.ledger
        found = merge(ledger.shards.hashes(after), ledger.garbage.hashes(after))
        return (hash for hash, _ in groupby(found))

    def without(self, hash: str) -> bool:
        """Whether it is known that there is nothing of that content outside garbage."""
        return self.scan.knows(hash) and not self.ledger.shards.holds(hash)

    async def keys(self, hash: str, *, bad: bool = False) -> Sequence[ShardKey]:
        """The shards of a content outside garbage; the bad ones only with `bad`."""
        if self.without(hash):
            return ()
        if self.scan.knows(hash):
            found = [key for key, _ in self.ledger.shards.of(hash)]
        else:
            found = await self._workers.run(self._shelf.shards_of, hash)
        return [key for key in found if bad or key not in self.ledger.bad]

    async def facts(self, hash: str) -> Sequence[ShardFacts]:
        """All that is counted of a content, garbage included."""
        kept = [(key, key in self.ledger.bad) for key, _ in self.ledger.shards.of(hash)]
        garbage = self.ledger.garbage.of(hash)
        if not kept and not garbage:
            return ()
        return await self._workers.run(self._shelf.describe, kept, garbage)

    async def discarded(self, hash: str) -> Sequence[tuple[ShardKey, int]]:
        """What garbage has of a content: shard and copy number."""
        if self.scan.knows_garbage:
            return self.ledger.garbage.of(hash)
        return await self._workers.run(self._shelf.discarded_of, hash)

    # Reading

    async def find(self, hash: str) -> tuple[Sequence[ShardFacts], Doubtful]:
        """Open those that are not known to be bad, and check both their ends."""
        return await look_at(self._workers, await self.keys(hash), self._shelf.look)

    async def settled(
        self, keys: Sequence[ShardKey], look: Look
    ) -> Sequence[ShardFacts]:
        """What is whole of these; the others are struck off. In turn."""
        found, doubtful = await look_twice(self._workers, keys, look)
        for key, rotten in doubtful:
            if rotten:
                self.ledger.rot(key)
            else:
                self.ledger.gone(key)
        return found

    async def look(self, hash: str) -> Sequence[ShardFacts]:
        """The whole shards of a content. In turn."""
        return await self.settled(await self.keys(hash), self._shelf.look)

    async def open(self, key: ShardKey) -> Opened:
        """One shard. Raises ShardMissing, ShardRotten: see doubt()."""
        if self.scan.knows(key.hash) and (key, 0) not in self.ledger.shards.of(
            key.hash
        ):
            raise ShardMissing("there is no such shard here")
        return await handed_over(
            self._workers.run(self._shelf.open, key),
            lambda late: late.source.close(),
        )

    # Changing

    async def renew(self, hash: str, layout: str) -> Sequence[ShardFacts]:
        """Give a new age to the shards of a layout; those that have it."""
        keys = [key for key in await self.keys(hash) if key.layout == layout]
        return await self.settled(keys, self._shelf.renew)

    async def refresh(self, key: ShardKey) -> bool:
        """Give it a new age if it is not known to be bad, and every byte is right."""
        if key in self.ledger.bad:
            return False
        return await self._workers.run(self._shelf.refresh, key)

    async def discard(self, key: ShardKey) -> bool:
        """Move it to garbage; False when it is not there."""
        try:
            copy = await self._workers.run(self._shelf.discard, key)
        except ShardMissing:
            await self.doubt(key)
            return False
        except ShardError:
            await self.interrupted(key)
            raise
        self.ledger.discarded(key, copy)
        return True

    async def give_back(
        self, hash: str, layout: str | None, standing: set[ShardKey], *, fresh: bool
    ) -> None:
        """Bring back from garbage what is whole and does not stand."""
        copies: dict[ShardKey, MutableSequence[int]] = {}
        for key, copy in await self.discarded(hash):
            if layout in (None, key.layout) and key not in standing:
                copies.setdefault(key, []).append(copy)
        for key, numbers in copies.items():
            try:
                given = await self._workers.run(
                    self._shelf.give_back, key, numbers, fresh=fresh
                )
            except ShardError:
                await self.interrupted(key)
                raise
            if given is not None:
                self.ledger.garbage.remove(key, given)
                self.ledger.whole(key)

    async def doubt(self, key: ShardKey) -> None:
        """Something is wrong with it: note what is there now."""
        try:
            await self._workers.run(self._shelf.inspect, key)
        except ShardMissing:
            self.ledger.gone(key)
            return
        except RootGone:
            return
        except ShardRotten:
            self.ledger.rot(key)
        except ShardError:
            pass
        self.ledger.shards.add(key)

    async def interrupted(self, key: ShardKey) -> None:
        """The disk failed while it was being moved: note where it is now."""
        await self.doubt(key)
        with suppress(ShardError):
            found = await self._workers.run(self._shelf.discarded_of, key.hash)
            for each, copy in found:
                self.ledger.garbage.add(each, copy)
