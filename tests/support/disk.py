"""A disk in memory that loses what was not synced, and fails when it is told to."""

# ruff: noqa: D102 - the seam itself says what its methods are

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Literal, TypeVar

import attrs

from ostore.backends.shards.files import PAGE, FileFacts, Files, ShortRead
from ostore.erasure.geometry import Buffer
from ostore.model.nodes import Space

T = TypeVar("T")
Entries = Literal["lost", "kept", "mixed"]
Data = Literal["lost", "torn"]


class PowerCut(BaseException):
    """The machine went dark; nothing may catch it but the test."""


@attrs.define(eq=False)
class Inode:
    """A file or a folder: what the kernel shows, and what the platter holds.

    `pending` are the writes since the last sync, oldest first; a cut to a shorter
    length is a write of None.
    """

    number: int
    device: int
    folder: bool
    links: int = 0
    modified: float = 0.0
    data: bytearray = attrs.field(factory=bytearray)
    entries: dict[str, Inode] = attrs.field(factory=dict)
    durable_data: bytes = b""
    durable_modified: float = 0.0
    durable_entries: dict[str, Inode] = attrs.field(factory=dict)
    pending: list[tuple[int, bytes | None]] = attrs.field(factory=list)
    owner: int | None = None


@attrs.frozen
class Operation:
    """One call of the seam: its number from 0, its name and what it was about."""

    number: int
    name: str
    path: str


Fault = Callable[[Operation], int | None]
"""Gives an errno for an operation that is to fail."""


class SimulatedDisk(Files):
    """The file seam over inodes in memory; the tests own it.

    Bytes are durable after fsync of their file, names after fsync_folder of their
    folder, and both orders of loss are possible. Set `cut_before` or `cut_after` to
    the number of an operation to go dark there, `fault` to fail some. `capacity`
    bounds the bytes of all files. Only paths that start with `/` exist.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.operations: list[Operation] = []
        self.cut_before: int | None = None
        self.cut_after: int | None = None
        self.fault: Fault | None = None
        self.capacity = 1 << 40
        self.cached = True
        self.knows_direct = True
        self._direct: set[int] = set()
        self.dark = False
        self._now = now
        self._numbers = 1
        self._devices = 1
        self._root = self._inode(folder=True, device=1)
        self._root.links = 1
        self._open: dict[int, tuple[Inode, str]] = {}
        self._fds = 3

    # What tests do to it

    def after_power_cut(
        self, rng: Random, entries: Entries = "lost", data: Data = "lost"
    ) -> SimulatedDisk:
        """The disk as the next start finds it.

        `entries`: names that were not synced are lost, kept, or each as chance has it.
        `data`: bytes that were not synced are lost, or some writes (in any order) made
        it and the last of them is torn.
        """
        disk = self._successor()
        copies: dict[int, Inode] = {}

        def copied(old: Inode) -> Inode:
            if old.number in copies:
                return copies[old.number]
            new = Inode(old.number, old.device, old.folder)
            copies[old.number] = new
            new.data = bytearray(_survivors(old, rng, data))
            new.modified = new.durable_modified = old.durable_modified
            for name, child in _names(old, rng, entries).items():
                new.entries[name] = copied(child)
                new.entries[name].links += 1
            new.durable_data = bytes(new.data)
            new.durable_entries = dict(new.entries)
            return new

        disk._root = copied(self._root)
        disk._root.links = 1
        return disk

    def after_kill(self) -> SimulatedDisk:
        """The disk as the next process finds it when this one is gone: nothing is lost.

        What was not synced is in the page cache still; this object goes dark.
        """
        disk = self._successor()
        disk._root, disk._fds = self._root, self._fds
        for inode in _walk(self._root):
            inode.owner = None
        self.dark = True
        return disk

    def copy(self) -> SimulatedDisk:
        """The same disk, all of it durable, as after a clean unmount."""
        self.sync()
        return self.after_power_cut(Random(0), "kept")

    def sync(self) -> None:
        """Make everything durable; no operation of anybody's."""
        for inode in _walk(self._root):
            _settle(inode)
            inode.durable_entries = dict(inode.entries)

    def flip(self, path: str, offset: int, mask: int = 1) -> None:
        """Change bits of one byte, on the platter and in memory."""
        inode = self._find(path)
        _settle(inode)
        inode.data[offset] ^= mask
        inode.durable_data = bytes(inode.data)

    def content(self, path: str) -> bytes:
        """All bytes of a file."""
        return bytes(self._find(path).data)

    def put(self, path: str, data: bytes) -> None:
        """A durable file as if somebody else had written it."""
        folder, name = self._parent(path)
        inode = self._inode(folder=False, device=folder.device)
        inode.data, inode.durable_data = bytearray(data), data
        inode.links = 1
        folder.entries[name] = folder.durable_entries[name] = inode

    def make(self, path: str) -> None:
        """A durable folder, with those above it."""
        inode = self._root
        for part in _parts(path):
            if part not in inode.entries:
                made = self._inode(folder=True, device=inode.device)
                made.links = 1
                inode.entries[part] = inode.durable_entries[part] = made
            inode = inode.entries[part]

    def names(self, path: str) -> list[str]:
        """What a folder shows, sorted; nothing for one that is not there."""
        try:
            return sorted(self._find(path).entries)
        except FileNotFoundError:
            return []

    def open_files(self) -> list[str]:
        """The paths under which the files now open were opened."""
        return [path for _, path in self._open.values()]

    def tree(self, path: str = "/") -> list[str]:
        """The paths of all files below, sorted."""
        found: list[str] = []
        for name in self.names(path):
            below = posixpath.join(path, name)
            if self._find(below).folder:
                found += self.tree(below)
            else:
                found.append(below)
        return sorted(found)

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it, durably."""
        folder, name = self._parent(path)
        gone = folder.entries.pop(name)
        folder.durable_entries.pop(name, None)
        for inode in list(_walk(gone)):
            inode.links = 0
            inode.entries.clear()

    def replace(self, path: str, source: str) -> None:
        """Let `path` name what `source` names, which loses its own name."""
        old, old_name = self._parent(source)
        new, new_name = self._parent(path)
        inode = old.entries.pop(old_name)
        old.durable_entries.pop(old_name, None)
        new.entries[new_name] = new.durable_entries[new_name] = inode

    def mount(self, path: str) -> None:
        """Make `path` a folder on a device of its own."""
        self.make(path)
        folder, name = self._parent(path)
        self._devices += 1
        inode = self._inode(folder=True, device=self._devices)
        inode.links = 1
        folder.entries[name] = folder.durable_entries[name] = inode

    # The seam

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._operate("open", path)
        folder, name = self._parent(path)
        inode = folder.entries.get(name)
        if inode is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            if not folder.links:
                raise _error(errno.ENOENT, path)
            inode = self._inode(folder=False, device=folder.device)
            inode.links = 1
            folder.entries[name] = inode
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        elif inode.folder:
            raise _error(errno.EISDIR, path)
        if flags & os.O_TRUNC:
            inode.data.clear()
            inode.pending.append((0, None))
        self._fds += 1
        self._open[self._fds] = (inode, path)
        return self._after(self._fds)

    def close(self, fd: int) -> None:
        inode, _ = self._open.pop(fd, (None, ""))
        self._direct.discard(fd)
        if inode is None:
            raise _error(errno.EBADF, str(fd))
        if inode.owner == fd:
            inode.owner = None

    def pwrite(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        inode = self._operate_on("pwrite", fd)
        data = b"".join(parts)
        if fd in self._direct and (offset % PAGE or len(data) % PAGE):
            raise _error(errno.EINVAL, "")
        grown = max(0, offset + len(data) - len(inode.data))
        if grown > self.space("/").free:
            raise _error(errno.ENOSPC, "")
        _apply(inode.data, offset, data)
        inode.pending.append((offset, data))
        inode.modified = self._now()
        return self._after(len(data))

    def direct(self, fd: int, *, on: bool) -> bool:
        self._operate_on("direct", fd)
        self._direct.discard(fd)
        if on and self.knows_direct:
            self._direct.add(fd)
        return self._after(self.knows_direct)

    def pwrite_pages(self, fd: int, parts: Sequence[Buffer], offset: int) -> bytes:
        data = b"".join(parts)
        whole = len(data) - len(data) % PAGE
        if whole:
            self.pwrite(fd, [data[:whole]], offset)
        return data[whole:]

    def pwrite_room(self, fd: int, room: memoryview, offset: int) -> bytes:
        return self.pwrite_pages(fd, [room], offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        inode = self._operate_on("pread", fd)
        data = bytes(inode.data[offset : offset + length])
        if len(data) < length:
            raise ShortRead(f"{len(data)} of {length} bytes")
        return self._after(data)

    def pread_cached(self, fd: int, length: int, offset: int) -> bytes | None:
        inode, _ = self._file(fd)
        data = bytes(inode.data[offset : offset + length])
        return data if self.cached and len(data) == length else None

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        inode = self._operate_on("preallocate", fd)
        grown = max(0, offset + length - len(inode.data))
        if grown > self.space("/").free:
            raise _error(errno.ENOSPC, "")
        if grown:
            zeros = bytes(grown)
            inode.pending.append((len(inode.data), zeros))
            inode.data += zeros
        self._after(None)

    def write_behind(self, fd: int, offset: int, length: int) -> None:
        self._operate_on("write_behind", fd)
        self._after(None)

    def truncate(self, fd: int, length: int) -> None:
        inode = self._operate_on("truncate", fd)
        del inode.data[length:]
        inode.pending.append((length, None))
        self._after(None)

    def touch(self, fd: int, modified: float) -> None:
        self._operate_on("touch", fd).modified = modified
        self._after(None)

    def fsync(self, fd: int) -> None:
        _settle(self._operate_on("fsync", fd))
        self._after(None)

    def fdatasync(self, fd: int) -> None:
        inode = self._operate_on("fdatasync", fd)
        times = inode.durable_modified
        _settle(inode)
        inode.durable_modified = times
        self._after(None)

    def fsync_folder(self, path: str) -> None:
        self._operate("fsync_folder", path)
        inode = self._folder(path)
        inode.durable_entries = dict(inode.entries)
        self._after(None)

    def link(self, source: str, target: str) -> None:
        self._operate("link", target)
        folder, name = self._parent(target)
        inode = self._find(source)
        if name in folder.entries:
            raise _error(errno.EEXIST, target)
        if not folder.links:
            raise _error(errno.ENOENT, target)
        folder.entries[name] = inode
        inode.links += 1
        self._after(None)

    def rename(self, source: str, target: str) -> None:
        self._operate("rename", target)
        inode = self._find(source)
        old, old_name = self._parent(source)
        new, new_name = self._parent(target)
        replaced = new.entries.get(new_name)
        if replaced is inode:
            return self._after(None)
        if replaced is not None:
            replaced.links -= 1
        del old.entries[old_name]
        new.entries[new_name] = inode
        return self._after(None)

    def remove(self, path: str) -> None:
        self._operate("remove", path)
        inode = self._find(path)
        if inode.folder:
            raise _error(errno.EISDIR, path)
        folder, name = self._parent(path)
        del folder.entries[name]
        inode.links -= 1
        self._after(None)

    def mkdir(self, path: str) -> None:
        self._operate("mkdir", path)
        folder, name = self._parent(path)
        if name in folder.entries:
            raise _error(errno.EEXIST, path)
        made = self._inode(folder=True, device=folder.device)
        made.links = 1
        folder.entries[name] = made
        self._after(None)

    def scan(self, path: str) -> Iterator[tuple[str, bool]]:
        self._operate("scan", path)
        found = [(n, not i.folder) for n, i in self._folder(path).entries.items()]
        return self._after(iter(found))

    def fstat(self, fd: int) -> FileFacts:
        return self._after(_facts(self._operate_on("fstat", fd)))

    def stat(self, path: str) -> FileFacts:
        self._operate("stat", path)
        return self._after(_facts(self._find(path)))

    def space(self, path: str) -> Space:
        used = sum(len(inode.data) for inode in _walk(self._root))
        return Space(max(0, self.capacity - used), self.capacity)

    def lock(self, fd: int) -> bool:
        inode = self._operate_on("lock", fd)
        if inode.owner is None:
            inode.owner = fd
        return self._after(inode.owner == fd)

    # Its own

    def _successor(self) -> SimulatedDisk:
        disk = type(self)(self._now)
        disk.capacity, disk.cached = self.capacity, self.cached
        disk._numbers, disk._devices = self._numbers, self._devices
        return disk

    def _operate(self, name: str, path: str) -> None:
        if self.dark:
            raise PowerCut(f"{name} in the dark")
        operation = Operation(len(self.operations), name, path)
        self.operations.append(operation)
        if operation.number == self.cut_before:
            self.dark = True
            raise PowerCut(f"before {operation}")
        number = self.fault(operation) if self.fault is not None else None
        if number is not None:
            raise _error(number, path)

    def _operate_on(self, name: str, fd: int) -> Inode:
        inode, path = self._file(fd)
        self._operate(name, path)
        return inode

    def _after(self, result: T) -> T:
        if len(self.operations) - 1 == self.cut_after:
            self.dark = True
            raise PowerCut(f"after {self.operations[-1]}")
        return result

    def _file(self, fd: int) -> tuple[Inode, str]:
        if fd not in self._open:
            raise _error(errno.EBADF, str(fd))
        return self._open[fd]

    def _inode(self, *, folder: bool, device: int) -> Inode:
        self._numbers += 1
        now = self._now()
        return Inode(self._numbers, device, folder, modified=now, durable_modified=now)

    def _find(self, path: str) -> Inode:
        inode = self._root
        for part in _parts(path):
            if not inode.folder:
                raise _error(errno.ENOTDIR, path)
            if part not in inode.entries:
                raise _error(errno.ENOENT, path)
            inode = inode.entries[part]
        return inode

    def _folder(self, path: str) -> Inode:
        inode = self._find(path)
        if not inode.folder:
            raise _error(errno.ENOTDIR, path)
        return inode

    def _parent(self, path: str) -> tuple[Inode, str]:
        return self._folder(posixpath.dirname(path)), posixpath.basename(path)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _facts(inode: Inode) -> FileFacts:
    return FileFacts(
        inode.device,
        inode.number,
        len(inode.data),
        inode.links,
        inode.modified,
        inode.folder,
    )


def _walk(inode: Inode) -> Iterator[Inode]:
    yield inode
    for child in inode.entries.values():
        yield from _walk(child)


def _settle(inode: Inode) -> None:
    inode.durable_data = bytes(inode.data)
    inode.durable_modified = inode.modified
    inode.pending.clear()


def _apply(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data += bytes(offset - len(data))
    data[offset : offset + len(piece)] = piece


def _survivors(inode: Inode, rng: Random, how: Data) -> bytes:
    data = bytearray(inode.durable_data)
    if how == "lost" or not inode.pending:
        return bytes(data)
    chosen = [write for write in inode.pending if rng.random() < 0.7]
    for position, (offset, piece) in enumerate(chosen):
        if piece is None:
            del data[offset:]
        elif position == len(chosen) - 1:
            _apply(data, offset, piece[: rng.randrange(len(piece) + 1)])
        else:
            _apply(data, offset, piece)
    return bytes(data)


def _names(inode: Inode, rng: Random, how: Entries) -> dict[str, Inode]:
    if how == "lost":
        return inode.durable_entries
    if how == "kept":
        return inode.entries
    names: dict[str, Inode] = {}
    for name in sorted({**inode.durable_entries, **inode.entries}):
        if rng.random() < 0.5:
            child = inode.entries.get(name)
        else:
            child = inode.durable_entries.get(name)
        if child is not None:
            names[name] = child
    return names
