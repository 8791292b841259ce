"""The running account of a shard file that is being written."""

from __future__ import annotations

import hashlib

from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.erasure.shardfile import INDEX_ROW, PROLOGUE, pack_trailer, table_of
from ostore.erasure.table import Table
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
        if frame.number != self.frames:
            raise ShardRefused(f"frame {frame.number} stands where {self.frames} must")
        header = frame.header()
        length = len(frame.block)
        self._rows += INDEX_ROW.pack(
            frame.raw,
            frame.stored,
            frame.coding,
            frame.stripe_crc,
            frame.block_crc,
            length,
            self.offset,
        )
        self._headers.update(header)
        self.offset += len(header) + length
        self.block_bytes += length
        return header

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
