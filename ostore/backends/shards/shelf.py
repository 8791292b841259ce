"""The blocking half of a store: what happens to the files of one shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import on_disk
from ostore.backends.shards.garbage import Garbage
from ostore.backends.shards.gathering import rooms
from ostore.backends.shards.paths import FANS, parse_garbage, parse_shard
from ostore.backends.shards.reading import Opened, open_source
from ostore.backends.shards.root import Root
from ostore.backends.shards.shardfiles import is_whole, opened, read_index, shard_facts
from ostore.erasure.geometry import Buffer
from ostore.model.errors import (
    NodeUnreachable,
    ShardError,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import Layout, ShardFacts, ShardKey
from ostore.model.nodes import Space

EXTENT = 8 << 20
"""Bytes that a growing temporary reserves, and hands to the disk, at a time."""


@attrs.frozen
class Naming:
    """What a commit asks for.

    `deadline` is in seconds since 1970, `age` in seconds. `standing_bad`: whatever
    bears the name already is known to be rotten. `lasting`: the temporary keeps its own
    name as well.
    """

    key: ShardKey
    deadline: float | None
    age: float
    standing_bad: bool = False
    lasting: bool = False


class Shelf:
    """Files of shards by their keys; shared by a store, its sinks and its scan.

    Runs on worker threads and holds nothing open between calls. All of it raises
    NodeUnreachable and NodeFull for what the disk does. Nothing is acknowledged
    before the root was found to be the one that was opened, and the file in it.
    """

    def __init__(self, disk: Disk, root: Root, wall: Callable[[], float]) -> None:
        self.disk = disk
        self._root = root
        self.wall = wall
        self.rooms = rooms()
        self._garbage = Garbage(disk)

    # Writing

    def create(self, upload: str) -> int:
        """A new temporary, open. Raises ShardRefused when the upload has one."""
        self._root.check()
        with self.at_root():
            try:
                return self.disk.create(self.disk.paths.upload(upload))
            except FileExistsError:
                raise ShardRefused("there is a temporary of this upload") from None

    def reopen(self, upload: str) -> int:
        """A temporary that was closed, open again. Raises ShardMissing."""
        with self.at_root():
            try:
                return self.disk.files.open(self.disk.paths.upload(upload), os.O_RDWR)
            except FileNotFoundError:
                raise ShardMissing("the temporary's file is gone") from None

    def write(self, fd: int, parts: Sequence[Buffer], offset: int, end: int) -> None:
        """Write at `offset`; with an `end`, reserve the room up to there before.

        There is none once the disk has no more than its head-room left: NodeFull.
        """
        with self.at_root():
            self._reserve(fd, offset, end)
            self.disk.append(fd, parts, offset)

    def write_room(self, fd: int, room: memoryview, offset: int, end: int) -> None:
        """As write(), what begins with the page of `offset`."""
        with self.at_root():
            self._reserve(fd, offset, end)
            self.disk.append_room(fd, room, offset)

    def _reserve(self, fd: int, offset: int, end: int) -> None:
        if end:
            self._root.admit()
            self.disk.files.preallocate(fd, offset, end - offset)
            self.disk.files.write_behind(fd, 0, offset)

    def finish(
        self, fd: int, upload: str, trailer: bytes, offset: int, naming: Naming
    ) -> int | None:
        """End the temporary with its trailer, name it and close it: see name().

        It stays open when that fails.
        """
        self._in_time(naming)
        with self.at_root():
            self.disk.append(fd, [trailer], offset)
            self.disk.flush(fd)
            self.disk.files.truncate(fd, offset + len(trailer))
        discarded = self.name(fd, upload, naming)
        self.close(fd)
        return discarded

    def put(self, upload: str, parts: Sequence[Buffer], naming: Naming) -> int | None:
        """Write and name a whole file; no temporary stays when that fails."""
        fd = self.create(upload)
        try:
            self.write(fd, parts, 0, 0)
            return self.name(fd, upload, naming)
        except ShardError:
            self.drop(upload)
            raise
        finally:
            self.disk.close(fd)

    def name(self, fd: int, upload: str, naming: Naming) -> int | None:
        """Make a complete temporary durable under its shard's name; it goes.

        A whole shard of that name is renewed instead; a bad one is moved to garbage,
        and its copy number there returned. Raises ShardRefused behind the deadline.
        """
        disk, key = self.disk, naming.key
        temporary, target = disk.paths.upload(upload), disk.paths.shard(key)
        with self.at_root():
            if naming.age:  # else the age is that of the last write: none
                disk.files.touch(fd, self.wall() - naming.age)
            disk.sync(fd)
            self._in_time(naming)
            discarded = None
            try:
                disk.name(temporary, target)
            except FileExistsError:
                if not naming.standing_bad and is_whole(disk.files, target, key):
                    self.renew(key)
                    if not naming.lasting:
                        disk.drop(temporary)
                    return None
                with suppress(ShardMissing):
                    discarded = self._garbage.take(key, self.wall())
                disk.name(temporary, target)
            if not naming.lasting:
                disk.drop(temporary)
            self.acknowledge(fd)
        return discarded

    def drop(self, upload: str) -> None:
        """Remove a temporary, as far as the disk lets it be removed."""
        with suppress(OSError):
            self.disk.drop(self.disk.paths.upload(upload))

    def give_up(self, fd: int, upload: str) -> None:
        """Close a temporary and remove it."""
        self.close(fd)
        self.drop(upload)

    def close(self, fd: int) -> None:
        """Give up a descriptor."""
        with suppress(OSError):
            self.disk.close(fd)

    # What stands

    def open(self, key: ShardKey) -> Opened:
        """Open it for reading. Raises ShardMissing, ShardRotten."""
        path = self.disk.paths.shard(key)
        with self.at_root():
            return open_source(self.disk.files, path, key, self.wall())

    def look(self, key: ShardKey) -> ShardFacts:
        """Open the shard and check both its ends. Raises ShardMissing, ShardRotten."""
        with (
            self.at_root(),
            opened(self.disk.files, self.disk.paths.shard(key), key) as it,
        ):
            return it.facts(self.wall())

    def inspect(self, key: ShardKey) -> None:
        """Check its index too. Raises ShardMissing, ShardRotten."""
        files = self.disk.files
        with self.at_root(), opened(files, self.disk.paths.shard(key), key) as found:
            read_index(files, found)

    def renew(self, key: ShardKey) -> ShardFacts:
        """Give the shard a new age, durably. Raises ShardMissing, ShardRotten.

        Its name is made durable too: a process that died may not have come to that.
        """
        disk = self.disk
        with self.at_root(), opened(disk.files, disk.paths.shard(key), key) as found:
            now = self.wall()
            disk.files.touch(found.fd, now)
            disk.sync(found.fd)
            disk.need(disk.paths.fan(key.hash))
            disk.sync_folder(disk.paths.fan(key.hash))
            self.acknowledge(found.fd)
            return attrs.evolve(found.facts(now), age=0.0)

    def refresh(self, key: ShardKey) -> bool:
        """Give the shard a new age if every byte of it is right."""
        with self.at_root():
            if not is_whole(self.disk.files, self.disk.paths.shard(key), key):
                return False
        self.renew(key)
        return True

    def discard(self, key: ShardKey) -> int:
        """Move to garbage; gives the copy number. Raises ShardMissing."""
        with self.at_root():
            copy = self._garbage.take(key, self.wall())
        self._root.check()
        return copy

    def give_back(
        self, key: ShardKey, copies: Sequence[int], *, fresh: bool
    ) -> int | None:
        """Bring back a whole copy from garbage; its number, or None without any.

        `fresh`: with a new age.
        """
        with self.at_root(), suppress(FileExistsError):
            now = self.wall() if fresh else None
            copy = self._garbage.give_back(key, copies, now)
            self._root.check()
            return copy
        return None

    # Folders

    def shards_of(self, hash: str) -> list[ShardKey]:
        """The shards of a content by their names in its folder."""
        names = self._names(self.disk.paths.fan(hash))
        keys = (parse_shard(name) for name, plain in names if plain)
        return [key for key in keys if key is not None and key.hash == hash]

    def discarded_of(self, hash: str) -> list[tuple[ShardKey, int]]:
        """The shards of a content and their copy numbers in garbage."""
        names = self._names(self.disk.paths.garbage)
        found = (parse_garbage(name) for name, plain in names if plain)
        return [each for each in found if each is not None and each[0].hash == hash]

    def describe(
        self,
        kept: Sequence[tuple[ShardKey, bool]],
        discarded: Sequence[tuple[ShardKey, int]],
    ) -> list[ShardFacts]:
        """Facts of shards (and whether each is bad) and of copies in garbage."""
        paths = self.disk.paths
        named = [(k, paths.shard(k), "bad" if bad else "whole") for k, bad in kept]
        named += [(k, paths.discarded(k, copy), "garbage") for k, copy in discarded]
        with self.at_root():
            found = [self._describe(*each) for each in named]
        if None in found:
            self._root.check()
        return [each for each in found if each is not None]

    def any(self) -> bool:
        """Whether there is any shard, garbage included."""
        paths = self.disk.paths
        folders = [f"{paths.objects}/{fan}" for fan in FANS]
        return any(
            plain and parse_garbage(name) is not None
            for folder in (paths.garbage, *folders)
            for name, plain in self._names(folder)
        )

    def temporaries(self) -> list[str]:
        """The names of the files in temp/."""
        return [name for name, plain in self._names(self.disk.paths.temp) if plain]

    def sync(self, fd: int) -> None:
        """Make an open temporary durable."""
        with self.at_root():
            self.disk.sync(fd)
            self.acknowledge(fd)

    def space(self) -> Space:
        """Bytes of the file system."""
        with self.at_root():
            return self.disk.files.space(self.disk.paths.root)

    def _describe(self, key: ShardKey, path: str, state: str) -> ShardFacts | None:
        files, now = self.disk.files, self.wall()
        try:
            with opened(files, path, key) as found:
                return found.facts(now, state)
        except ShardMissing:
            return None
        except ShardRotten:
            state = "bad" if state == "whole" else state
        try:
            return shard_facts(
                key, Layout(0, 0, 0, key.layout), files.stat(path), now, state
            )
        except FileNotFoundError:
            return None

    @contextmanager
    def at_root(self) -> Iterator[None]:
        """on_disk(); nothing is missing below a root that is gone: RootGone then."""
        try:
            with on_disk():
                yield
        except (ShardMissing, NodeUnreachable):
            self._root.check()
            raise

    def _names(self, folder: str) -> Sequence[tuple[str, bool]]:
        """What is in a folder; nothing when there is no such folder."""
        for _ in range(2):  # a root may be back by the time that it is looked at
            with on_disk():
                try:
                    return list(self.disk.files.scan(folder))
                except FileNotFoundError:
                    self._root.check()
        return []

    def _in_time(self, naming: Naming) -> None:
        if naming.deadline is not None and self.wall() > naming.deadline:
            raise ShardRefused("the deadline of this commit has passed")

    def acknowledge(self, fd: int) -> None:
        """See that an open file still has a name below this root.

        Raises NodeUnreachable.
        """
        self._root.check()
        if not self.disk.files.fstat(fd).links:
            raise NodeUnreachable("the shard's folder was removed meanwhile")
