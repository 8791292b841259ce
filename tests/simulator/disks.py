"""Disks that die with their process, fail now and then, and hide nothing from the audit."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TypeVar

from ostore.backends.shards.paths import parse_shard
from ostore.model.layouts import ShardKey
from tests.support.disk import Inode, Operation, PowerCut, SimulatedDisk

T = TypeVar("T")
CAPACITY = 1 << 30


class SimDisk(SimulatedDisk):
    """The disk of one node; `on_dark` is called at the moment when it goes dark.

    Operations named in `failing` fail with that errno, if chance has it.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(now)
        self.capacity = CAPACITY
        self.on_dark: Callable[[], None] = lambda: None
        self.failing: dict[str, int] = {}
        self.chance: Callable[[], bool] = lambda: True
        self.fault = self._fault

    def cut_in(self, operations: int) -> None:
        """Go dark before the operation that comes so many later."""
        self.cut_before = len(self.operations) + operations

    def number(self, path: str) -> int:
        """The inode's number, which stays the same over power cuts."""
        return self._find(path).number

    def shards(self) -> Iterator[tuple[ShardKey, str, Inode]]:
        """Every shard whose name is durable, with its path."""
        root = self._root.durable_entries.get("data")
        objects = None if root is None else root.durable_entries.get("objects")
        if objects is None:
            return
        for fan, folder in objects.durable_entries.items():
            for name, inode in folder.durable_entries.items():
                key = parse_shard(name)
                if key is not None:
                    yield key, f"/data/objects/{fan}/{name}", inode

    def _fault(self, operation: Operation) -> int | None:
        number = self.failing.get(operation.name)
        return number if number is not None and self.chance() else None

    def _operate(self, name: str, path: str) -> None:
        try:
            super()._operate(name, path)
        except PowerCut:
            self.on_dark()
            raise

    def _after(self, result: T) -> T:
        try:
            return super()._after(result)
        except PowerCut:
            self.on_dark()
            raise


FAILURES = {
    "reads": ("open", "pread", "stat", "fstat", "scan"),
    "writes": ("pwrite", "fsync", "fsync_folder", "link", "truncate", "touch"),
    "syncs": ("fsync", "fsync_folder"),
    "names": ("link", "rename", "remove", "mkdir", "fsync_folder"),
    "stats": ("stat",),
}
"""What fails together."""
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
