"""Fills a store's index from its folders, a slice at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import on_disk
from ostore.backends.shards.index import Index
from ostore.backends.shards.paths import FANS, parse_garbage
from ostore.model.errors import ShardError
from ostore.model.layouts import ShardKey
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers

SLICE = 1000
"""Names taken in at a time: what the reactor does in one go."""

AGAIN = 5.0
"""Seconds after which folders that could not be read are tried again."""


class Scan:
    """One count of everything below a root; ends when all folders were read.

    Made by the store at each start and when the root was exchanged. It looks at names
    only and takes nothing for granted: names that are not ours and things that are no
    plain files are counted in `strange` and left alone. Until a folder was read, the
    index may lack what is in it: ask `knows`. `check` raises when the root is not
    there, where nothing is missing.
    """

    def __init__(
        self,
        disk: Disk,
        check: Callable[[], None],
        workers: Workers,
        clock: Clock,
        shards: Index,
        garbage: Index,
    ) -> None:
        self.strange = 0
        self._disk = disk
        self._check = check
        self._workers = workers
        self._clock = clock
        self._shards = shards
        self._garbage = garbage
        self._listed = False
        self._waiting: set[str] = {"", *FANS}

    @property
    def done(self) -> bool:
        """Whether the index holds everything."""
        return not self._waiting

    def knows(self, hash: str) -> bool:
        """Whether the index holds all shards of that content outside garbage."""
        return hash[:2] not in self._waiting

    @property
    def knows_garbage(self) -> bool:
        """Whether the index of garbage holds everything."""
        return "" not in self._waiting

    def abandon(self) -> None:
        """End early: the index is no longer of use."""
        self._waiting.clear()

    async def run(self) -> None:
        """Read all folders, those that fail again and again until they are read."""
        while True:
            with suppress(ShardError):
                await self._skip_missing()
            for fan in sorted(self._waiting):
                if self.done:
                    return
                try:
                    await self._read(fan)
                except ShardError:
                    continue
                self._waiting.discard(fan)
            if self.done:
                return
            await self._clock.sleep(AGAIN)

    async def _skip_missing(self) -> None:
        """Most folders of a small node are not there: no need to try each."""
        found = await self._workers.run(self._list, self._disk.paths.objects)
        folders = {name for name, plain in found if not plain}
        missing = set(FANS) - folders
        if not self._listed:
            self.strange += len(found) - (len(FANS) - len(missing))
            self._listed = True
        self._waiting -= missing

    def _list(self, folder: str) -> list[tuple[str, bool]]:
        with on_disk():
            try:
                return list(self._disk.files.scan(folder))
            except FileNotFoundError:
                self._check()
        return []

    async def _read(self, fan: str) -> None:
        paths = self._disk.paths
        folder = f"{paths.objects}/{fan}" if fan else paths.garbage
        index = self._shards if fan else self._garbage
        names = await self._workers.run(self._open, folder)
        more = True
        while more:
            found, strange, more = await self._workers.run(self._take, names, fan)
            self.strange += strange
            for key, copy in found:
                index.add(key, copy)

    def _open(self, folder: str) -> Iterator[tuple[str, bool]]:
        with on_disk():
            try:
                return self._disk.files.scan(folder)
            except FileNotFoundError:
                self._check()
        return iter(())

    def _take(
        self, names: Iterator[tuple[str, bool]], fan: str
    ) -> tuple[list[tuple[ShardKey, int]], int, bool]:
        """The shards among the next names, how many are strange, whether more follow."""
        found: list[tuple[ShardKey, int]] = []
        seen = 0
        with on_disk():
            try:
                for name, plain in islice(names, SLICE):
                    seen += 1
                    each = parse_garbage(name) if plain else None
                    if each is not None and _belongs(each, fan):
                        found.append(each)
            except FileNotFoundError:
                self._check()
        return found, seen - len(found), seen == SLICE


def _belongs(found: tuple[ShardKey, int], fan: str) -> bool:
    key, copy = found
    return not fan or (copy == 0 and key.hash.startswith(fan))
