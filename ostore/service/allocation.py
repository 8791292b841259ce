"""How this process has its memory managed: what is given back, what is not looked at."""

from __future__ import annotations

import ctypes
import gc

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


def settle() -> None:
    """Keep the collector from what is here by now; for a service that has started.

    It is nearly all there will be for as long as the process lives, and is walked
    through otherwise each time that cycles are looked for.
    """
    gc.collect()
    gc.freeze()
