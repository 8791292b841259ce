"""Bodies coded on their way to a client."""

from __future__ import annotations

import zlib
from typing import Protocol

import zstandard

from ostore.erasure.geometry import Buffer
from ostore.streaming.pools import Workers

INLINE = 32 * 1024
"""Pieces up to this size are coded at once; larger ones by a worker thread."""
GZIP_LEVEL = 4
ZSTD_WINDOW = 19
"""Bits of the distance that zstd looks back; its level alone would take 21."""
ZSTD = zstandard.ZstdCompressionParameters.from_level(3, window_log=ZSTD_WINDOW)


class Compressor(Protocol):
    """What zlib and zstandard have in common."""

    def compress(self, data: Buffer, /) -> bytes:
        """What comes out for more of the body."""

    def flush(self) -> bytes:
        """The end."""


class Coder:
    """Codes one body piece by piece; made for one answer.

    Holds what its window holds (zstd 512 KiB, gzip 32 KiB) and at most one piece.
    """

    def __init__(self, coding: str, workers: Workers) -> None:
        """`coding` is `gzip` or `zstd`."""
        self._workers = workers
        self._compressor: Compressor = (
            zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            if coding == "gzip"
            else zstandard.ZstdCompressor(compression_params=ZSTD).compressobj()
        )

    async def feed(self, data: Buffer) -> bytes:
        """The coded bytes that are ready; may be none."""
        if len(data) <= INLINE:
            return self._compressor.compress(data)
        return await self._workers.run(self._compressor.compress, data)

    def finish(self) -> bytes:
        """The rest."""
        return self._compressor.flush()
