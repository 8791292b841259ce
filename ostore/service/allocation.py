"""Gives memory of large buffers back to the system, without paying for it each time."""

from __future__ import annotations

import ctypes

# mallopt(3); other C libraries than glibc lack it or ignore it.
_TOP_PAD, _MMAP_THRESHOLD = -2, -3

LARGE = 128 << 10
"""Bytes from which a buffer is a mapping of its own: freed, it is gone at once.

glibc would raise this after the first such buffer is freed; then stripes of 1 MiB lie
on the heap between small things, and many slow clients leave it full of holes.
"""
PAD = 16 << 20
"""Bytes that the heap grows by, and keeps free at its end: fewer system calls."""


def give_back_memory() -> None:
    """Set both; for a process at its start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
        mallopt(_TOP_PAD, PAD)
