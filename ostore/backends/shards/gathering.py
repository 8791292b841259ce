"""Frames that go to the disk together, because others come right behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ostore.backends.shards.files import PAGE
from ostore.erasure.framing import FRAME_HEADER
from ostore.erasure.geometry import STRIPE, Buffer
from ostore.streaming.buffers import Buffers

GATHERED = 1 << 20
"""Bytes of frames that one write is made of."""

ROOM = PAGE + GATHERED + FRAME_HEADER.size + STRIPE
"""Bytes of memory for them: the last frame may be the largest."""

ALLOWED = 8
"""Such memories below one root that fill or are being written."""

HASTE = 0.25
"""Seconds since the frame before: a later one is of a slow writer, and does not wait."""


def rooms() -> Buffers:
    """Memory for the temporaries of one root."""
    return Buffers(ROOM, ALLOWED)


class Gathering:
    """What came of one temporary and is not with a worker thread; owned by its sink.

    It is put where the kernel takes it from: page-aligned memory that begins with the
    page in which the first byte lies in the file.
    """

    def __init__(self, rooms: Buffers, wall: Callable[[], float]) -> None:
        self._rooms = rooms
        self._wall = wall
        self._room: memoryview | None = None
        self._filled = 0
        self._offset = 0
        self._came = 0.0

    def __bool__(self) -> bool:
        return self._room is not None

    def may_wait(self, length: int) -> bool:
        """Whether a frame of so many bytes that came now may stay for others."""
        now, before = self._wall(), self._came
        self._came = now
        return (
            now - before <= HASTE
            and self._filled + length < GATHERED
            and (self._room is not None or self._rooms.lent < ALLOWED)
        )

    def add(self, offset: int, parts: Sequence[Buffer]) -> None:
        """Hold what stands at that offset, behind what is here."""
        room = self._room
        if room is None:
            room = self._room = self._rooms.take(ROOM)
            self._offset, self._filled = offset, offset % PAGE
        for part in parts:
            end = self._filled + len(part)
            room[self._filled : end] = part
            self._filled = end

    def take(self) -> tuple[memoryview, int]:
        """All that is here, behind what lies before it in its page; and its offset."""
        assert self._room is not None
        taken, self._room = self._room[: self._filled], None
        self._filled = 0
        return taken, self._offset

    def drop(self) -> None:
        """Forget what is here."""
        self._room, self._filled = None, 0
