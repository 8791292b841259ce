"""The blocking half of resumable uploads: the frames of their temporaries."""

from __future__ import annotations

import os
from contextlib import suppress

from ostore.backends.shards.files import ShortRead
from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.smallfiles import read_exactly, replace
from ostore.erasure.draft import ShardDraft
from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.erasure.shardfile import PROLOGUE
from ostore.model.errors import ShardRefused, ShardRotten

UNSYNCED = 64
"""Frames that may be written behind the last sync."""
PIECE = 1 << 20
"""Bytes that are copied at a time."""


class UploadFrames:
    """Reads and cuts temporaries for Uploads, one call for each upload at a time.

    Runs on worker threads. Raises NodeUnreachable and NodeFull for what the disk does.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._disk = shelf.disk
        self._shelf = shelf

    def scan(self, upload: str) -> ShardDraft:
        """What its temporary holds, and durably: all headers, and the last blocks, read.

        What stands behind the last good frame is cut off.
        """
        files, path = self._disk.files, self._disk.paths.upload(upload)
        with self._shelf.at_root():
            try:
                fd = files.open(path, os.O_RDWR)
            except FileNotFoundError:
                fd = self._disk.create(path)
                self._disk.sync_folder(self._disk.paths.temp)
            try:
                draft = self._checked(fd, self._headers(fd))
                facts = files.fstat(fd)
                end = draft.offset if draft.frames else 0
                if facts.links == 1 and facts.size > end:
                    files.truncate(fd, end)
                self._shelf.sync(fd)
            finally:
                self._shelf.close(fd)
        return draft

    def cut(self, upload: str, draft: ShardDraft, frames: int) -> ShardDraft:
        """Keep so many frames, durably. One that bears a shard's name too is copied."""
        files, path = self._disk.files, self._disk.paths.upload(upload)
        shorter = draft.prefix(frames)
        end = shorter.offset if frames else 0
        with self._shelf.at_root():
            fd = files.open(path, os.O_RDWR)
            try:
                if files.fstat(fd).links == 1:
                    files.truncate(fd, end)
                    self._shelf.sync(fd)
                else:
                    self._copy(fd, end, path)
            finally:
                self._shelf.close(fd)
        return shorter

    def _copy(self, source: int, end: int, path: str) -> None:
        files = self._disk.files

        def write(fd: int) -> None:
            for at in range(0, end, PIECE):
                piece = read_exactly(self._disk, source, min(PIECE, end - at), at)
                files.pwrite(fd, [piece], at)

        replace(self._shelf, path, write)

    def _headers(self, fd: int) -> ShardDraft:
        """The account of all frames whose headers are whole."""
        files, draft = self._disk.files, ShardDraft()
        with suppress(ShortRead, ShardRotten, ShardRefused):
            if files.pread(fd, len(PROLOGUE), 0) != PROLOGUE:
                return draft
            size = files.fstat(fd).size
            while True:
                head = files.pread(fd, FRAME_HEADER.size, draft.offset)
                header = Frame.parse_header(head)
                if draft.offset + FRAME_HEADER.size + header.length > size:
                    break
                draft.add(header)
        return draft

    def _checked(self, fd: int, draft: ShardDraft) -> ShardDraft:
        """Those before the first bad block among the last ones.

        Earlier blocks were synced before the last were written.
        """
        files = self._disk.files
        for number in range(max(0, draft.frames - 2 * UNSYNCED), draft.frames):
            at, length = draft.span(number)
            data = files.pread(fd, length, at)
            header = Frame.parse_header(data[: FRAME_HEADER.size])
            try:
                header.frame(data[FRAME_HEADER.size :]).check()
            except ShardRotten:
                return draft.prefix(number)
        return draft
