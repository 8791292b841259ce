"""Reading a shard to see whether it is what it was."""

from __future__ import annotations

from ostore.backends.shards.reading import Reader

STRIPES = 256
"""Stripes read for one call."""


async def read_through(reader: Reader, first: int) -> tuple[int, int]:
    """Bytes of up to STRIPES stripes from `first`, and the next stripe; 0 at the end.

    Each block is compared with its checksum. Closes the reader. Raises ShardRotten,
    ShardMissing, NodeUnreachable.
    """
    try:
        count = len(reader.table)
        stop = min(first + STRIPES, count)
        stream = reader.frames(first, stop)
        try:
            size = 0
            while (frame := await stream.read()) is not None:
                size += len(frame.block)
        finally:
            await stream.close()
        return size, stop if stop < count else 0
    finally:
        await reader.close()
