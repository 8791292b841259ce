"""The blocking half of resumable uploads: the tails, raw bytes of unfinished stripes."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress

from ostore.backends.shards.paths import parse_tail
from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.smallfiles import read_exactly, read_whole
from ostore.erasure.framing import crc32c
from ostore.model.errors import ShardMissing, ShardRefused
from ostore.model.resuming import Tail

MAX_TAIL = 16 << 20
"""Bytes of a tail that is read: its chunks, which may be small, included."""

_CHUNK = struct.Struct(">II")
"""Length of a tail's next bytes, and the crc32c of the tail up to their end."""


class UploadTails:
    """Reads and appends to them for Uploads, one call for each upload at a time.

    Runs on worker threads. Raises NodeUnreachable and NodeFull for what the disk does.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._disk = shelf.disk
        self._shelf = shelf

    def all(self, upload: str) -> list[Tail]:
        """The tails that are there, and how many of their bytes are good."""
        found = []
        for name in self._shelf.temporaries():
            parsed = parse_tail(name)
            if parsed is not None and parsed[0] == upload:
                _, stripe, epoch = parsed
                length = len(self.read(upload, stripe, epoch))
                found.append(Tail(stripe, epoch, length))
        return found

    def durable(self, upload: str) -> list[Tail]:
        """The same, synced: who wrote them may have died before that."""
        found = self.all(upload)
        with self._shelf.at_root():
            for each in found:
                self._sync(self._disk.paths.tail(upload, each.stripe, each.epoch))
            if found:
                self._disk.sync_folder(self._disk.paths.temp)
        return found

    def read(self, upload: str, stripe: int, epoch: int) -> bytes:
        """The good bytes of one. Raises ShardMissing."""
        path = self._disk.paths.tail(upload, stripe, epoch)
        with self._shelf.at_root():
            try:
                return _read_tail(read_whole(self._disk, path, MAX_TAIL))[0]
            except FileNotFoundError:
                raise ShardMissing("there is no such tail here") from None

    def add(self, upload: str, stripe: int, epoch: int, at: int, data: bytes) -> None:
        """Append to one, durably. Raises ShardRefused unless it has `at` bytes."""
        files, path = self._disk.files, self._disk.paths.tail(upload, stripe, epoch)
        with self._shelf.at_root():
            try:
                fd = files.open(path, os.O_RDWR)
            except FileNotFoundError:
                fd = self._disk.create(path)
            try:
                held, end = _read_tail(
                    read_exactly(self._disk, fd, files.fstat(fd).size, 0)
                )
                if len(held) != at:
                    raise ShardRefused(f"the tail has {len(held)} bytes, not {at}")
                crc = crc32c(data, crc32c(held))
                files.truncate(fd, end)
                files.pwrite(fd, [_CHUNK.pack(len(data), crc), data], end)
                self._disk.sync(fd)
                if not at:  # whoever made the file may have failed behind that
                    self._disk.sync_folder(self._disk.paths.temp)
                self._shelf.acknowledge(fd)
            finally:
                self._shelf.close(fd)

    def drop(self, upload: str, tails: Sequence[Tail]) -> None:
        """Remove these, as far as the disk lets them be removed."""
        for each in tails:
            with suppress(OSError):
                path = self._disk.paths.tail(upload, each.stripe, each.epoch)
                self._disk.drop(path)

    def _sync(self, path: str) -> None:
        fd = self._disk.files.open(path, os.O_RDWR)
        try:
            self._disk.sync(fd)
        finally:
            self._shelf.close(fd)


def _read_tail(data: bytes) -> tuple[bytes, int]:
    """The good bytes, and where the chunk that holds the last of them ends."""
    good: list[bytes] = []
    crc = at = 0
    while len(data) - at >= _CHUNK.size:
        length, expected = _CHUNK.unpack_from(data, at)
        piece = data[at + _CHUNK.size : at + _CHUNK.size + length]
        if not length or len(piece) < length or crc32c(piece, crc) != expected:
            break
        good.append(piece)
        crc = expected
        at += _CHUNK.size + length
    return b"".join(good), at
