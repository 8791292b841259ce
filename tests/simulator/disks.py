"""Disks that die with their process, fail now and then, and hide nothing from the audit."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TypeVar

import attrs

from ostore.backends.shards.paths import parse_shard
from ostore.backends.shards.segments.form import RECORD, Row
from ostore.model.layouts import ShardKey
from tests.simulator.packs import Packs
from tests.support.disk import Inode, Operation, PowerCut, SimulatedDisk

T = TypeVar("T")
CAPACITY = 1 << 30


@attrs.frozen
class Spot:
    """A shard whose name is durable: the bytes from `offset` on of the file at `path`.

    That file is its own, or a segment in which it is that record.
    """

    key: ShardKey
    path: str
    inode: Inode
    data: bytes
    """Its durable bytes."""
    offset: int = 0
    row: Row | None = None

    @property
    def mark(self) -> tuple[int, int]:
        """What tells it from all others on its disk."""
        return self.inode.number, 0 if self.row is None else self.row.birth


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
        self._packs = Packs()
        self.fault = self._fault

    def cut_in(self, operations: int) -> None:
        """Go dark before the operation that comes so many later."""
        self.cut_before = len(self.operations) + operations

    def shards(self) -> Iterator[Spot]:
        """Every shard whose name or record is durable."""
        root = self._root.durable_entries.get("data")
        if root is None:
            return
        for fan, folder in self._below(root, "objects"):
            for name, inode in folder.durable_entries.items():
                key = parse_shard(name)
                if key is not None:
                    path = f"/data/objects/{fan}/{name}"
                    yield Spot(key, path, inode, inode.durable_data)
        for packed in self._packs.standing(dict(self._below(root, "segments"))):
            row, segment = packed.row, packed.segment
            path, at = f"/data/segments/{segment.name}", row.offset + RECORD.size
            yield Spot(row.key, path, segment.inode, packed.data, at, row)

    def hashes(self, spot: Spot) -> set[str]:
        """The contents of which the file has anything to say."""
        if spot.row is None:
            return {spot.key.hash}
        name = spot.path.rpartition("/")[2]
        (segment,) = self._packs.segments({name: spot.inode})
        return {row.hash.hex() for row in segment.rows}

    def _below(self, root: Inode, name: str) -> Iterator[tuple[str, Inode]]:
        folder = root.durable_entries.get(name)
        return iter(() if folder is None else folder.durable_entries.items())

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
