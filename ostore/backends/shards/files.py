"""The file seam: every operation this room asks of an operating system.

All calls block and run on worker threads, `pread_cached` apart. They raise OSError;
`on_disk` turns that into the errors of the house. A test or a simulator passes
another object with the same methods.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs

from ostore.erasure.geometry import Buffer
from ostore.model.errors import NodeFull, NodeUnreachable, ShardError
from ostore.model.nodes import Space
from ostore.streaming.buffers import Buffers

_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
"""Linux's own, which Python does not wrap (sync_file_range(2))."""
if _sync_file_range is not None:
    _sync_file_range.argtypes = (
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_uint,
    )

PAGE = 4096
"""Offsets, lengths and addresses of direct writes are multiples of this."""

ALIGNED = 1 << 19
"""Bytes of one direct write at most."""

SPARE = 4
"""Aligned buffers that are kept."""

BLOCK = (256 << 10) + PAGE
"""Bytes of memory for a block: with its header, that of a stripe in four."""

BLOCKS = 32
"""Such memories that are kept while nothing is read."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class ShortRead(Exception):
    """A file ended before the bytes that were asked for."""


@attrs.frozen
class FileFacts:
    """What fstat and stat tell here; `modified` is in seconds since 1970."""

    device: int
    inode: int
    size: int
    links: int
    modified: float
    folder: bool


def node_error(error: OSError) -> ShardError:
    """What a failed file operation is called outside of this room."""
    if error.errno in FULL:
        return NodeFull("the node's disk is full")
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    return NodeUnreachable(f"the node's disk failed: {name}")


@contextmanager
def on_disk() -> Iterator[None]:
    """Translates OSError: NodeFull for a full disk, else NodeUnreachable."""
    try:
        yield
    except OSError as error:
        raise node_error(error) from error


def block_buffers() -> Buffers:
    """Memory for blocks that are read; one for all files of a process will do."""
    return Buffers(BLOCK, BLOCKS)


class Files:
    """The real file system."""

    def __init__(self, blocks: Buffers | None = None) -> None:
        """`blocks`, which others may share, is where pread_cached puts what it reads."""
        self._blocks = blocks or block_buffers()
        self._aligned: deque[mmap.mmap] = deque(maxlen=SPARE)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A file descriptor; never follows a symbolic link at the path's end."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def close(self, fd: int) -> None:
        """Give up a descriptor."""
        os.close(fd)

    def pwrite(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        """Write all parts one behind the other; gives the number of bytes."""
        total = sum(len(part) for part in parts)
        done = os.pwritev(fd, parts, offset)
        while done < total:
            rest = memoryview(b"".join(parts))[done:]
            done += os.pwritev(fd, [rest], offset + done)
        return total

    def direct(self, fd: int, *, on: bool) -> bool:
        """Have writes go past the page cache, or not; False where that cannot be."""
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        wanted = flags | os.O_DIRECT if on else flags & ~os.O_DIRECT
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, wanted)
        except OSError:
            return False
        return True

    def pwrite_pages(self, fd: int, parts: Sequence[Buffer], offset: int) -> bytes:
        """Write what fills pages of PAGE bytes; gives the rest, which is not written.

        For a file under direct(), at a multiple of PAGE.
        """
        try:
            buffer = self._aligned.pop()
        except IndexError:
            buffer = mmap.mmap(-1, ALIGNED)
        try:
            filled = 0
            for part in parts:
                view = memoryview(part)
                while view:
                    piece = view[: ALIGNED - filled]
                    buffer[filled : filled + len(piece)] = piece
                    filled += len(piece)
                    view = view[len(piece) :]
                    if filled == ALIGNED:
                        self._pages(fd, buffer, ALIGNED, offset)
                        offset += ALIGNED
                        filled = 0
            whole = filled - filled % PAGE
            if whole:
                self._pages(fd, buffer, whole, offset)
            return buffer[whole:filled]
        finally:
            self._aligned.append(buffer)

    def pwrite_room(self, fd: int, room: memoryview, offset: int) -> bytes:
        """As pwrite_pages(), of what stands in page-aligned memory."""
        whole = len(room) - len(room) % PAGE
        if whole:
            self._pages(fd, room, whole, offset)
        return bytes(room[whole:])

    def _pages(
        self, fd: int, buffer: mmap.mmap | memoryview, length: int, offset: int
    ) -> None:
        with memoryview(buffer) as view:
            done = 0
            while done < length:
                with view[done:length] as piece:
                    done += os.pwrite(fd, piece, offset + done)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Exactly `length` bytes. Raises ShortRead where the file ends before."""
        data = os.pread(fd, length, offset)
        if len(data) == length:
            return data
        parts = [data]
        missing = length - len(data)
        while missing:
            more = os.pread(fd, missing, offset + length - missing)
            if not more:
                raise ShortRead(f"{length - missing} of {length} bytes")
            parts.append(more)
            missing -= len(more)
        return b"".join(parts)

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        """Exactly `length` bytes if they lie in memory; None if it would block.

        The only operation that may be called in the reactor's thread.
        """
        buffer = self._blocks.take(length)
        try:
            done = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:
            return None
        return buffer if done == length else None

    def preallocate(self, fd: int, offset: int, length: int) -> None:
        """Reserve room, growing the file; nothing where that is not supported.

        Raises OSError only for a full disk.
        """
        try:
            os.posix_fallocate(fd, offset, length)
        except OSError as error:
            if error.errno in FULL:
                raise

    def write_behind(self, fd: int, offset: int, length: int) -> None:
        """Start writing these bytes to the disk, so that fsync has less to do.

        They stay in the page cache. Nothing where the system has no such call.
        """
        if _sync_file_range is not None:
            _sync_file_range(fd, offset, length, _START_WRITING)

    def truncate(self, fd: int, length: int) -> None:
        """Cut a file to its length."""
        os.ftruncate(fd, length)

    def touch(self, fd: int, modified: float) -> None:
        """Set the time of modification; durable after fsync."""
        moment = int(modified * 1_000_000_000)
        os.utime(fd, ns=(moment, moment))

    def fsync(self, fd: int) -> None:
        """Make a file's bytes, length and times durable."""
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        """Make a file's bytes durable, and its length; cheaper where that is as it was."""
        os.fdatasync(fd)

    def fsync_folder(self, path: str) -> None:
        """Make a folder's entries durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def link(self, source: str, target: str) -> None:
        """A second name for a file. Raises FileExistsError, never replaces."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: str, target: str) -> None:
        """Move a name, replacing what the target names."""
        os.rename(source, target)

    def remove(self, path: str) -> None:
        """Remove a file's name."""
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        """Make a folder for the owner alone. Raises FileExistsError."""
        os.mkdir(path, 0o700)

    def scan(self, path: str) -> Iterator[tuple[str, bool]]:
        """(name, whether it is a plain file) of each entry, in no order."""
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.name, entry.is_file(follow_symlinks=False)

    def fstat(self, fd: int) -> FileFacts:
        """Facts of an open file."""
        return _facts(os.fstat(fd))

    def stat(self, path: str) -> FileFacts:
        """Facts of what a path names, symbolic links followed."""
        return _facts(os.stat(path))

    def space(self, path: str) -> Space:
        """Free (to this user) and total bytes of the file system."""
        found = os.statvfs(path)
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def lock(self, fd: int) -> bool:
        """Take an exclusive lock that ends with the descriptor; False if held."""
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


def _facts(found: os.stat_result) -> FileFacts:
    return FileFacts(
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_nlink,
        found.st_mtime_ns / 1_000_000_000,
        stat.S_ISDIR(found.st_mode),
    )
