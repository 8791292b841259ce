"""The way out of a store: condemned, moved to garbage, removed for good."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Sequence

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.filed import FiledShards
from ostore.backends.shards.files import on_disk
from ostore.backends.shards.root import Root
from ostore.backends.shards.segments.packed import PackedShards
from ostore.model.ages import WallWatch
from ostore.model.errors import ShardRefused
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers

Fence = Callable[[int], Awaitable[None]]
"""Takes note of an order's epoch. Raises ShardRefused when a higher one was seen."""


async def no_fence(_: int) -> None:
    """For a store that belongs to no node: every epoch is welcome."""


class Exits:
    """What must hold before a shard of one root may go; owned by its store.

    An order names the age that it was decided upon. It is asked of the shard itself, in
    the content's turn: what was renewed since then is younger. Until the wall clock was
    seen to run evenly for long enough no age counts.
    """

    def __init__(
        self,
        disk: Disk,
        root: Root,
        workers: Workers,
        clock: Clock,
        fence: Fence,
        filed: FiledShards,
        packed: PackedShards,
    ) -> None:
        self._disk = disk
        self._root = root
        self._workers = workers
        self._clock = clock
        self._fence = fence
        self._filed = filed
        self._packed = packed
        self._watch = WallWatch()
        self.look()

    def look(self) -> None:
        """Watch the clocks."""
        self._watch.look(self._clock.wall(), self._clock.monotonic())

    async def admit(self, epoch: int | None) -> None:
        """Raise ShardRefused unless the order is of the highest epoch, or of none."""
        if epoch is not None:
            await self._fence(epoch)

    async def check_age(self, key: ShardKey, age: float) -> None:
        """Raise ShardRefused when the shard is younger, or its file is gone."""
        if not age:
            return
        old = self.counts(age)
        packed = key in self._packed.keys(key.hash, bad=True)
        if packed:
            old = old and not self._packed.younger(key, age)
        if old and (not packed or await self._is_filed(key)):
            paths = [self._disk.paths.shard(key)]
            old = bool(await self._workers.run(self._older, paths, age))
        if not old:
            raise ShardRefused("the shard is younger than that, or its age is in doubt")

    async def discard(self, key: ShardKey) -> bool:
        """Move the shard to garbage from wherever it stands; False for nowhere."""
        packed = await self._packed.discard(key)
        if packed and not await self._is_filed(key):
            return True
        return await self._filed.discard(key) or packed

    async def erase(self, key: ShardKey, age: float) -> int:
        """Remove what garbage has of it and is so old: bytes freed."""
        if not self.counts(age):
            return 0
        found = await self._filed.discarded(key.hash)
        paths = {
            self._disk.paths.discarded(key, copy): copy
            for each, copy in found
            if each == key
        }
        gone = await self._workers.run(self._erase, list(paths), age)
        for path in gone:
            self._filed.ledger.garbage.remove(key, paths[path])
        return sum(gone.values()) + await self._packed.erase(key, age)

    async def _is_filed(self, key: ShardKey) -> bool:
        return key in await self._filed.keys(key.hash, bad=True)

    def counts(self, age: float) -> bool:
        """Whether an age by the wall clock may be believed."""
        clock = self._clock
        return self._watch.counts(age, clock.wall(), clock.monotonic())

    def _older(self, paths: Sequence[str], age: float) -> dict[str, int]:
        """Blocks; path -> bytes of the files that are so old by the wall clock."""
        wall, found = self._clock.wall(), {}
        self._root.check()
        for path in paths:
            with on_disk():
                try:
                    facts = self._disk.files.stat(path)
                except FileNotFoundError:
                    continue
            if wall - facts.modified >= age:
                found[path] = facts.size
        return found

    def _erase(self, paths: Sequence[str], age: float) -> dict[str, int]:
        """Blocks; gives what was removed."""
        old = self._older(paths, age)
        with on_disk():
            for path in old:
                self._disk.drop(path)
            if old:
                self._disk.sync_folder(posixpath.dirname(next(iter(old))))
        return old
