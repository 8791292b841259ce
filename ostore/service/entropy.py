"""Random bytes for ids, nonces and jitter, drawn from the system in larger pieces."""

from __future__ import annotations

import os

PIECE = 4096


class Entropy:
    """Gives bytes of the system's generator, each of them once; for one thread.

    A call to the system for every id costs more than the id.
    """

    def __init__(self) -> None:
        self._piece = b""
        self._used = 0

    def __call__(self, count: int) -> bytes:
        """`count` random bytes."""
        if count > PIECE:
            return os.urandom(count)
        end = self._used + count
        if end > len(self._piece):
            self._piece, self._used, end = os.urandom(PIECE), 0, count
        taken = self._piece[self._used : end]
        self._used = end
        return taken
