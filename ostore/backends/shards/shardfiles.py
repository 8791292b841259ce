"""Reads shard files, and sees whether they are what their names say.

Blocks, for worker threads. Raises ShardMissing, ShardRotten, and OSError when the
disk failed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from ostore.backends.shards.files import FileFacts, Files, ShortRead
from ostore.erasure.geometry import Buffer
from ostore.erasure.shardfile import (
    FOOTER_SIZE,
    PROLOGUE,
    Footer,
    ShardIndex,
    check_prologue,
    parse_footer,
    parse_index,
)
from ostore.model.errors import ShardMissing, ShardRotten
from ostore.model.layouts import Layout, ShardFacts, ShardKey

SMALL = 512 * 1024
"""Files up to this size are read at once."""

_UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR})


@attrs.frozen
class OpenFile:
    """A shard file whose prologue and footer are right; its user closes `fd`."""

    fd: int
    footer: Footer
    file: FileFacts

    def facts(self, now: float, state: str = "whole") -> ShardFacts:
        """What a node says of the shard at the time `now` on the wall."""
        return shard_facts(self.footer.key, self.footer.layout, self.file, now, state)


def shard_facts(
    key: ShardKey, layout: Layout, file: FileFacts, now: float, state: str
) -> ShardFacts:
    """Facts of a shard from its file; a clock that went back gives the age 0."""
    age = max(0.0, now - file.modified)
    return ShardFacts(key.hash, key.index, layout, file.size, age, state)


@contextmanager
def opened(files: Files, path: str, key: ShardKey) -> Iterator[OpenFile]:
    """The file, open while the block runs."""
    found = open_shard(files, path, key)
    try:
        yield found
    finally:
        files.close(found.fd)


def open_shard(files: Files, path: str, key: ShardKey) -> OpenFile:
    """Open a file and check that it begins and ends like that shard."""
    try:
        fd = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise ShardMissing("there is no such shard here") from None
    except OSError as error:
        if error.errno in _UNREADABLE:
            raise ShardRotten("the shard's file cannot be opened") from error
        raise
    try:
        return OpenFile(fd, *_ends(files, fd, key))
    except BaseException:
        files.close(fd)
        raise


def read_index(files: Files, found: OpenFile) -> ShardIndex:
    """Where the frames lie, checked against the layout id."""
    footer = found.footer
    data = read(files, found.fd, footer.index_length, footer.index_offset)
    return parse_index(footer, data)


def read_whole(files: Files, found: OpenFile) -> None:
    """Read every frame; returns when all of them are right."""
    index = read_index(files, found)
    for number in range(len(index)):
        offset, length = index.frame_span(number)
        index.frame(number, read(files, found.fd, length, offset))


def read(files: Files, fd: int, length: int, offset: int) -> bytes:
    """Bytes of a shard file, which is rotten if it has not so many."""
    try:
        return files.pread(fd, length, offset)
    except ShortRead as error:
        raise ShardRotten("the shard's file is cut short") from error


def is_whole(files: Files, path: str, key: ShardKey) -> bool:
    """Whether the file at `path` is that shard with all its blocks right."""
    try:
        with opened(files, path, key) as found:
            read_whole(files, found)
    except (ShardRotten, ShardMissing):
        return False
    return True


def _ends(files: Files, fd: int, key: ShardKey) -> tuple[Footer, FileFacts]:
    file = files.fstat(fd)
    if file.size < len(PROLOGUE) + FOOTER_SIZE:
        raise ShardRotten("the shard's file is cut short")
    check_prologue(read(files, fd, len(PROLOGUE), 0))
    tail: Buffer = read(files, fd, FOOTER_SIZE, file.size - FOOTER_SIZE)
    footer = parse_footer(tail, file.size)
    if footer.key != key:
        raise ShardRotten("the file is another shard than its name says")
    return footer, file
