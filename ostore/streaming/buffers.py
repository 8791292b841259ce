"""Memory for large pieces of bodies, used again as soon as nobody looks at it."""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from typing import Any
from weakref import ReferenceType, ref


class _Loan(ref[Any]):
    """A weak reference to what lends a memory out; knows which memory that is."""

    __slots__ = ("memory",)
    memory: mmap.mmap


class Buffers:
    """Lends out page-aligned memory of `size` bytes; made by the service, for all.

    A loan ends by itself, when its last view is gone, whoever holds that: a queue, a
    worker thread or a system call under way. So no memory is lent twice at a time, and
    nobody has to give it back. At most `spare` are kept for later. Any thread may ask.
    """

    def __init__(self, size: int, spare: int) -> None:
        self.size = size
        self._kind: Any = ctypes.c_char * size
        self._spare: deque[mmap.mmap] = deque(maxlen=spare)
        self._loans: dict[int, _Loan] = {}

    @property
    def lent(self) -> int:
        """Memories that are looked at."""
        return len(self._loans)

    def take(self, length: int) -> memoryview:
        """That many bytes, with whatever they held before; for one who fills them.

        Other memory, made for this, where it would be too much or mostly in vain.
        """
        if not self.size >> 3 <= length <= self.size:
            return memoryview(bytearray(length))
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = mmap.mmap(-1, self.size)
        lender = self._kind.from_buffer(memory)
        loan = _Loan(lender, self._ended)
        loan.memory = memory
        self._loans[id(loan)] = loan
        return memoryview(lender).cast("B")[:length]

    def _ended(self, loan: ReferenceType[Any]) -> None:
        found = self._loans.pop(id(loan))
        self._spare.append(found.memory)
