"""Moves shard files to garbage and back. Blocks, for worker threads.

A file bears both names for a moment, the new one made durable first: whatever a
power cut loses, one of them stays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.paths import MAX_COPY
from ostore.backends.shards.shardfiles import is_whole
from ostore.model.errors import ShardMissing, ShardRefused
from ostore.model.layouts import ShardKey


class Garbage:
    """The folder of what was discarded; used by the store of the same root."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def take(self, key: ShardKey, now: float) -> int:
        """Move the shard here, its age beginning anew; gives its copy number.

        A symbolic link that somebody put in its place is removed instead. Raises
        ShardMissing, ShardRefused when there are too many copies.
        """
        files, paths = self._disk.files, self._disk.paths
        source = paths.shard(key)
        try:
            fd = files.open(source, os.O_RDONLY)
        except FileNotFoundError:
            raise ShardMissing("there is no such shard here") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            self._disk.unname(source)
            raise ShardMissing("a link stood in the shard's place") from None
        try:
            files.touch(fd, now)
            self._disk.sync(fd)
        finally:
            files.close(fd)
        copy = self._place(source, key)
        self._disk.unname(source)
        return copy

    def give_back(
        self, key: ShardKey, copies: Sequence[int], now: float | None
    ) -> int | None:
        """Bring back the first copy that is whole; gives its number, None without.

        It bears the age that `now` gives, else the one it has. Create-only: raises
        FileExistsError when the shard stands.
        """
        files, paths = self._disk.files, self._disk.paths
        for copy in copies:
            source = paths.discarded(key, copy)
            if not is_whole(files, source, key):
                continue
            if now is not None:
                fd = files.open(source, os.O_RDONLY)
                try:
                    files.touch(fd, now)
                    self._disk.sync(fd)
                finally:
                    files.close(fd)
            self._disk.name(source, paths.shard(key))
            self._disk.unname(source)
            return copy
        return None

    def _place(self, source: str, key: ShardKey) -> int:
        for copy in range(MAX_COPY + 1):
            try:
                self._disk.name(source, self._disk.paths.discarded(key, copy))
            except FileExistsError:
                continue
            return copy
        raise ShardRefused("garbage holds too many copies of this shard")
