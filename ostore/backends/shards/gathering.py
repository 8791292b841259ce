"""Frames that go to the disk together, because others come right behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ostore.erasure.geometry import Buffer

GATHERED = 1 << 20
"""Bytes of frames that one write is made of."""

PARTS = 512
"""Most buffers given to one write; the kernel takes 1024."""

HASTE = 0.25
"""Seconds since the frame before: a later one is of a slow writer, and does not wait."""

ALLOWED = 8 << 20
"""Bytes of frames below one root that wait for others or are being written so."""


@attrs.frozen
class Gathered:
    """One write: its parts, and where in the file it begins."""

    offset: int
    parts: Sequence[Buffer]
    length: int


class Allowance:
    """Counts what all temporaries of a root hold in memory; made by the shelf."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.held = 0
        self.wall = wall

    def give(self, length: int) -> None:
        """So many bytes are held no longer."""
        self.held -= length


class Gathering:
    """What came of one temporary and is not with a worker thread; owned by its sink.

    Held are at most GATHERED bytes, and one frame; what take() gave counts as held
    until the sink gives it back to the allowance.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._parts: list[Buffer] = []
        self._offset = self._length = 0
        self._came = 0.0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def may_wait(self, length: int) -> bool:
        """Whether a frame of so many bytes that came now may stay for others."""
        allowance = self._allowance
        now, before = allowance.wall(), self._came
        self._came = now
        return (
            self._length + length < GATHERED
            and len(self._parts) < PARTS
            and allowance.held + length <= ALLOWED
            and now - before <= HASTE
        )

    def add(self, offset: int, parts: Sequence[Buffer]) -> None:
        """Hold what stands at that offset, behind what is here."""
        if not self._parts:
            self._offset = offset
        length = sum(map(len, parts))
        self._parts += parts
        self._length += length
        self._allowance.held += length

    def take(self) -> Gathered:
        """All that is here."""
        taken = Gathered(self._offset, self._parts, self._length)
        self._parts, self._length = [], 0
        return taken

    def drop(self) -> None:
        """Forget what is here."""
        self._allowance.give(self.take().length)
