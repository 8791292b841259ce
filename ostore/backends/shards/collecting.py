"""The way out of a store: condemned, moved to garbage, removed for good."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Sequence

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import on_disk
from ostore.backends.shards.root import Root
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

    An order names the age that it was decided upon. It is asked of the file itself, in
    the content's turn: what was renewed since then is younger. Until the wall clock was
    seen to run evenly for long enough no age counts.
    """

    def __init__(
        self, disk: Disk, root: Root, workers: Workers, clock: Clock, fence: Fence
    ) -> None:
        self._disk = disk
        self._root = root
        self._workers = workers
        self._clock = clock
        self._fence = fence
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
        old: dict[str, int] = {}
        if self._counts(age):
            paths = [self._disk.paths.shard(key)]
            old = await self._workers.run(self._older, paths, age)
        if not old:
            raise ShardRefused("the shard is younger than that, or its age is in doubt")

    async def erase(
        self, key: ShardKey, copies: Sequence[int], age: float
    ) -> dict[int, int]:
        """Remove those copies in garbage that are so old: copy number -> bytes."""
        if not self._counts(age):
            return {}
        paths = {self._disk.paths.discarded(key, copy): copy for copy in copies}
        gone = await self._workers.run(self._erase, list(paths), age)
        return {paths[path]: size for path, size in gone.items()}

    def _counts(self, age: float) -> bool:
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
