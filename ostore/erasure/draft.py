"""The running account of a shard file that is being written."""

from __future__ import annotations

import hashlib

from ostore.erasure.framing import FRAME_HEADER, Frame, FrameHeader
from ostore.erasure.shardfile import INDEX_ROW, PROLOGUE, pack_trailer, table_of
from ostore.erasure.table import ROW, Table
from ostore.model.errors import ShardRefused
from ostore.model.layouts import Layout, ShardKey


class ShardDraft:
    """What was written so far; one for each temporary.

    Its user writes PROLOGUE, then for each frame what append() returns and the block,
    and at commit what trailer() returns.
    """

    def __init__(self) -> None:
        self.offset = len(PROLOGUE)
        """Bytes of the file so far."""
        self.block_bytes = 0
        """Bytes of the blocks so far."""
        self._rows = bytearray()
        self._headers = hashlib.sha256()

    @property
    def frames(self) -> int:
        """How many frames were appended."""
        return len(self._rows) // INDEX_ROW.size

    def append(self, frame: Frame) -> bytes:
        """Count the next frame in; returns its header. Raises ShardRefused.

        The block's crc is taken as it is: whoever received the frame has checked it.
        """
        return self.add(frame.head)

    def add(self, header: FrameHeader) -> bytes:
        """Count the next frame in by its header alone; as append()."""
        if header.number != self.frames:
            raise ShardRefused(f"frame {header.number} stands where {self.frames} must")
        packed = header.pack()
        self._rows += INDEX_ROW.pack(
            header.raw,
            header.stored,
            header.coding,
            header.stripe_crc,
            header.block_crc,
            header.length,
            self.offset,
        )
        self._headers.update(packed)
        self.offset += len(packed) + header.length
        self.block_bytes += header.length
        return packed

    def prefix(self, frames: int) -> ShardDraft:
        """The account as it was after so many frames."""
        draft = ShardDraft()
        packed = memoryview(self._rows)[: frames * INDEX_ROW.size]
        for number, row in enumerate(INDEX_ROW.iter_unpack(packed)):
            raw, stored, coding, stripe_crc, block_crc, length, _ = row
            draft.add(
                FrameHeader(number, raw, stored, coding, stripe_crc, block_crc, length)
            )
        return draft

    def rows(self, frames: int) -> bytes:
        """The packed rows of the first stripes, as in a table."""
        size = INDEX_ROW.size
        starts = range(0, min(frames, self.frames) * size, size)
        return b"".join(bytes(self._rows[at : at + ROW.size]) for at in starts)

    def span(self, number: int) -> tuple[int, int]:
        """Offset in the file, and length of header and block, of an appended frame."""
        row = INDEX_ROW.unpack_from(self._rows, number * INDEX_ROW.size)
        return row[-1], FRAME_HEADER.size + row[-2]

    def digest(self) -> bytes:
        """SHA-256 over the frame headers so far: the `Digest` of a framed body."""
        return self._headers.digest()

    def table(self, k: int, m: int) -> Table:
        """The stripe table of the frames so far, if they were cut that way.

        Raises ShardRefused.
        """
        try:
            return table_of(k, m, self._rows)
        except ValueError as error:
            raise ShardRefused(str(error)) from error

    def trailer(self, key: ShardKey, layout: Layout) -> bytes:
        """Index and footer. Raises ShardRefused when the frames are not of `layout`."""
        actual = self.table(layout.data, layout.parity).layout()
        if layout != actual or key.layout != actual.id:
            raise ShardRefused(f"the frames are of the layout {actual.header()}")
        if not 0 <= key.index < layout.shards:
            raise ShardRefused(f"there is no shard {key.index} among {layout.shards}")
        return pack_trailer(key, layout, self._rows)
