"""A bounded buffer between a source that pushes and a reader that awaits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred

from ostore.erasure.geometry import Buffer

SMALL = 4096
"""Pieces up to this size are joined, so that tiny ones cannot outweigh the limit."""

JOINED = 64 * 1024
"""Joined pieces do not grow beyond this."""


class GateClosed(Exception):
    """The gate was closed while, or before, somebody read from it."""


class Whole:
    """A gate whose source gave all it has and ended before anybody read."""

    paused = False

    def __init__(self, data: Buffer) -> None:
        self.closed = False
        self._data = data

    @property
    def held(self) -> int:
        """Bytes that nobody read yet."""
        return len(self._data)

    async def read(self) -> Buffer:
        """All of them at once, then b"". Raises GateClosed."""
        if self.closed:
            raise GateClosed
        data, self._data = self._data, b""
        return data

    def push(self, data: Buffer) -> None:
        """Dropped, as anything after the end."""

    def hold(self) -> None:
        """Nobody is to wait."""

    def end(self) -> None:
        """It has ended."""

    def fail(self, error: Exception) -> None:
        """Too late to break."""

    def close(self) -> None:
        """Drop what was not read."""
        self.closed = True
        self._data = b""


class Gate:
    """Owns the bytes between source and reader, and the source's pause and resume.

    Above `high` bytes it says `pause`, at `low` or fewer `resume`; neither twice in a
    row. It ends with `end`, `fail` or `close`, whichever comes first. One reader at a
    time.
    """

    def __init__(
        self,
        high: int,
        low: int,
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.held = 0
        self.paused = False
        self.closed = False
        self._high = high
        self._low = low
        self._pause = pause
        self._resume = resume
        self._pieces: deque[Buffer] = deque()
        self._ending: Exception | None = None
        self._ended = False
        self._reader: Deferred[Buffer] | None = None

    def push(self, data: Buffer) -> None:
        """Take bytes from the source; dropped after the end or after `close`."""
        if self._ended or not data:
            return
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.callback(data)
            return
        self.held += len(data)
        self._store(data)
        if self.held > self._high and not self.paused:
            self.paused = True
            self._pause()

    def hold(self) -> None:
        """Have the source wait until somebody reads what is not here yet."""
        if self._reader is None and not self._ended and not self.paused:
            self.paused = True
            self._pause()

    def end(self) -> None:
        """There is no more: readers get b"" behind what is held."""
        self._finish(None)

    def fail(self, error: Exception) -> None:
        """The source broke: readers get `error` behind what is held."""
        self._finish(error)

    async def read(self) -> Buffer:
        """The next bytes, b"" at the end; waits while there are none.

        Raises what `fail` was given, again at each call, or GateClosed. Cancelling
        the wait loses nothing.
        """
        if self._reader is not None:
            raise RuntimeError("a gate has one reader at a time")
        if self._pieces:
            return self._take()
        if self._ended:
            if self._ending is not None:
                raise self._ending
            return b""
        self._reader = Deferred(self._forget)
        self._welcome()
        return await self._reader

    def close(self) -> None:
        """Drop what is held and all that comes; the source may run freely."""
        if self.closed:
            return
        self.closed = True
        self._pieces.clear()
        self.held = 0
        self._ended = False
        self._finish(GateClosed())
        self._welcome()

    def _store(self, data: Buffer) -> None:
        if len(data) > SMALL:
            self._pieces.append(data)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) + len(data) <= JOINED:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def _take(self) -> Buffer:
        piece = self._pieces.popleft()
        self.held -= len(piece)
        if self.held <= self._low:
            self._welcome()
        return bytes(piece) if isinstance(piece, bytearray) else piece

    def _welcome(self) -> None:
        if self.paused:
            self.paused = False
            self._resume()

    def _forget(self, _: Deferred[Buffer]) -> None:
        self._reader = None

    def _finish(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._ending = error
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if error is None:
            reader.callback(b"")
        else:
            reader.errback(error)
