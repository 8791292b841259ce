"""Stripes made smaller before they are coded, so that parity shrinks as well."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zstandard

from ostore.erasure.geometry import Buffer
from ostore.erasure.table import Row
from ostore.model.errors import ShardRotten

ZSTD = 1
"""Coding of a stripe that is one zstd frame (RFC 8878)."""

LEVEL = 1
LEAST = 256
"""Raw bytes below which a stripe stays as it is."""
SAVING = 0.97
"""A stripe stays raw unless it shrinks to this part of itself."""
SAMPLE, SAMPLES = 8192, 3
"""Bytes of one sample, and how many of a stripe are tried before all of it."""
DRAWN, DIVERSE = 512, 200
"""Bytes drawn from a small stripe, and how many different ones say that it is random.

Of 512 random bytes 221 differ, give or take five.
"""


def promising(raw: Buffer) -> bool:
    """Whether samples of a stripe shrink; costs some 50 µs, decides alike every time."""
    view, length = memoryview(raw), len(raw)
    if length < LEAST:
        return False
    if length <= SAMPLE * SAMPLES:
        return length < DRAWN or len(set(view[:: length // DRAWN][:DRAWN])) < DIVERSE
    step = (length - SAMPLE) // (SAMPLES - 1)
    sample = b"".join(view[i * step : i * step + SAMPLE] for i in range(SAMPLES))
    return len(_compress(sample)) <= SAVING * len(sample)


def compress(raw: Buffer) -> bytes | None:
    """The stripe as a zstd frame; None when it stays raw. Takes milliseconds."""
    stored = _compress(raw)
    return stored if len(stored) <= SAVING * len(raw) else None


def expand(row: Row, stored: Sequence[Buffer]) -> bytes:
    """The raw bytes of a stripe; never more than its row says. Raises ShardRotten."""
    frame = b"".join(stored)
    try:
        # What a frame says of itself decides what is allocated: it is checked first.
        if zstandard.frame_content_size(frame) != row.raw:
            raise ShardRotten("a stripe says another length than its row")
        raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=row.raw)
    except zstandard.ZstdError:
        raise ShardRotten("a stripe cannot be expanded") from None
    if len(raw) != row.raw:
        raise ShardRotten("a stripe expands to another length than its row says")
    return raw


class _Kept(threading.local):
    """A thread's own compressor: making one costs more than a small stripe does."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)


_kept = _Kept()


def _compress(raw: Buffer) -> bytes:
    return _kept.compressor.compress(raw)
