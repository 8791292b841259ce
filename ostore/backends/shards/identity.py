"""Who a storage root is: the file that says it, replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

import attrs

from ostore.backends.shards.files import Files
from ostore.backends.shards.paths import Paths
from ostore.model.errors import Malformed

FORMAT = 1
SIZE = 512
"""Bytes of an identity's file, whatever it says."""

_HEX = re.compile(r"[0-9a-f]{32}")
CLUSTER = re.compile(r"[0-9a-zA-Z-]{0,64}")


@attrs.frozen
class Identity:
    """What `node.json` says: permanent node id, starts counted, cluster and epoch."""

    node: str
    boot: int
    cluster: str = ""
    epoch: int = 0

    def to_bytes(self) -> bytes:
        """The file's bytes: SIZE of them."""
        text = json.dumps({"format": FORMAT, **attrs.asdict(self)})
        return text.encode().ljust(SIZE - 1) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """Read the file's bytes. Raises ValueError."""
        read = json.loads(data)
        if not isinstance(read, dict) or read.pop("format", None) != FORMAT:
            raise ValueError("unknown format")
        if set(read) != {"node", "boot", "cluster", "epoch"}:
            raise ValueError("unknown fields")
        found = cls(**read)
        numbers = type(found.boot) is int and type(found.epoch) is int
        if not numbers or found.boot < 1 or found.epoch < 0:
            raise ValueError("impossible numbers")
        if not _HEX.fullmatch(found.node) or not CLUSTER.fullmatch(found.cluster):
            raise ValueError("impossible ids")
        return found


class IdentityFile:
    """`node.json` of one root, which owns it; blocks. Raises OSError.

    `spares` are the names that files have on their way to or from that one.
    """

    def __init__(self, files: Files, paths: Paths) -> None:
        self.spares = (f"{paths.identity}.new", f"{paths.identity}.old")
        self._files = files
        self._paths = paths

    def read(self) -> Identity | None:
        """What it says; None when it is not there. Raises Malformed."""
        try:
            fd = self._files.open(self._paths.identity, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            size = self._files.fstat(fd).size
            return Identity.from_bytes(self._files.pread(fd, min(size, 4096), 0))
        except (ValueError, TypeError) as error:
            raise Malformed(
                f"{self._paths.identity} is not a node identity this version can read"
            ) from error
        finally:
            self._files.close(fd)

    def write(self, identity: Identity) -> None:
        """Replace the identity, durably; on a disk without any room left too.

        It is written into a spare file that had its room already, and gets the name.
        The file that it replaces keeps its own room, and is the next spare.
        """
        path, (new, old) = self._paths.identity, self.spares
        fd = self._spare()
        try:
            self._files.pwrite(fd, [identity.to_bytes()], 0)
            self._files.truncate(fd, SIZE)
            self._files.fsync(fd)
        finally:
            self._files.close(fd)
        with suppress(FileNotFoundError):
            self._files.remove(old)
        with suppress(FileNotFoundError):
            self._files.link(path, old)
        self._files.rename(new, path)
        self._files.fsync_folder(self._paths.root)
        with suppress(OSError):  # a spare is only needed when the disk is full by then
            self._reserve()

    def _reserve(self) -> None:
        fd = self._spare()
        try:
            if self._files.fstat(fd).size < SIZE:
                self._files.pwrite(fd, [b" " * SIZE], 0)
                self._files.fsync(fd)
        finally:
            self._files.close(fd)
        self._files.fsync_folder(self._paths.root)

    def _spare(self) -> int:
        """The file that is to be the next identity, open; not the one that is."""
        new, old = self.spares
        while True:
            if not self._there(new) and self._there(old):
                self._files.rename(old, new)
            fd = self._files.open(new, os.O_WRONLY | os.O_CREAT)
            if self._files.fstat(fd).links == 1:
                return fd
            self._files.close(fd)  # a power cut left it a second name
            self._files.remove(new)

    def _there(self, path: str) -> bool:
        try:
            self._files.stat(path)
        except FileNotFoundError:
            return False
        return True
