"""Files that are read as a whole, and put in place as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import ShortRead
from ostore.backends.shards.shelf import Shelf
from ostore.model.errors import NodeUnreachable, ShardRotten

FRESH = ".new"
"""What the name of a file ends in until it takes the place of another."""


def read_whole(disk: Disk, path: str, limit: int) -> bytes:
    """The bytes of a file. Raises FileNotFoundError; ShardRotten above the limit."""
    fd = disk.files.open(path, os.O_RDONLY)
    try:
        size = disk.files.fstat(fd).size
        if size > limit:
            raise ShardRotten("a file of an upload is too long")
        return read_exactly(disk, fd, size, 0)
    finally:
        disk.files.close(fd)


def read_exactly(disk: Disk, fd: int, length: int, offset: int) -> bytes:
    """So many bytes. Raises NodeUnreachable when there are fewer."""
    try:
        return disk.files.pread(fd, length, offset)
    except ShortRead:
        raise NodeUnreachable("a file of an upload was cut meanwhile") from None


def replace(shelf: Shelf, path: str, write: Callable[[int], None]) -> None:
    """Put a file that `write(fd)` fills in the place of another, durably."""
    disk = shelf.disk
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    fd = disk.files.open(path + FRESH, flags)
    try:
        write(fd)
        disk.sync(fd)
        disk.files.rename(path + FRESH, path)
        disk.sync_folder(disk.paths.temp)
        shelf.acknowledge(fd)
    finally:
        shelf.close(fd)
