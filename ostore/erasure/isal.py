"""Intel's ISA-L, called with a matrix that is not its own.

PyECLib's wheel brings the library along; where a distribution has installed it, that
one is taken. Only two of its functions are used: one expands the factors of a matrix
into tables, the other multiplies blocks by them, with whatever the CPU has for it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cffi

from ostore.erasure.geometry import Buffer

Rows = Callable[[tuple[int, ...], tuple[int, ...]], list[bytes]]
"""Gives the matrix that makes the blocks `want` of the k blocks `have`: (have, want)."""

KEPT = 256
"""Matrices kept expanded for one geometry; each takes 32 * k bytes a row."""
_DECLARED = """
    void ec_init_tables(int k, int rows, unsigned char *a, unsigned char *tables);
    void ec_encode_data(int length, int k, int rows, unsigned char *tables,
                        unsigned char **data, unsigned char **coding);
"""
_INSTALLED = "libisal.so.2"
_fresh = ctypes.pythonapi.PyBytes_FromStringAndSize
_fresh.restype = ctypes.py_object
_fresh.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t)


class Isal:
    """The library, loaded; one of these serves a process. Raises OSError without it."""

    def __init__(self) -> None:
        self._ffi = cffi.FFI()
        self._ffi.cdef(_DECLARED)
        self._library: Any = self._load()
        self._block = self._ffi.typeof("unsigned char[]")
        self._blocks = self._ffi.typeof("unsigned char *[]")

    def _load(self) -> Any:
        for path in (*_bundled(), _INSTALLED):
            try:
                return self._ffi.dlopen(path)
            except OSError:
                continue
        raise OSError("ISA-L is not installed; the package pyeclib brings it")

    def expand(self, matrix: Sequence[bytes]) -> Any:
        """The tables of a matrix: so many rows of k factors."""
        rows, k = len(matrix), len(matrix[0])
        tables = self._ffi.new("unsigned char[]", 32 * k * rows)
        self._library.ec_init_tables(k, rows, b"".join(matrix), tables)
        return tables

    def multiply(self, tables: Any, rows: int, blocks: Sequence[Buffer]) -> list[bytes]:
        """That many blocks: the matrix times k blocks of one length above zero.

        The GIL is released meanwhile.
        """
        ffi, length = self._ffi, len(blocks[0])
        # New bytes without contents, which the interpreter lets its C extensions
        # fill before anybody else sees them: no copy of what is computed.
        made: list[bytes] = [_fresh(None, length) for _ in range(rows)]
        sources = [ffi.from_buffer(self._block, block) for block in blocks]
        sinks = [ffi.from_buffer(self._block, block) for block in made]
        self._library.ec_encode_data(
            length,
            len(blocks),
            rows,
            tables,
            ffi.new(self._blocks, sources),
            ffi.new(self._blocks, sinks),
        )
        return made


class Multiplier:
    """Makes blocks of one geometry of any k others; any thread may call it."""

    def __init__(self, library: Isal, rows: Rows) -> None:
        self._library = library
        self._rows = rows
        self._tables = lru_cache(maxsize=KEPT)(self._expanded)

    def make(
        self, numbers: tuple[int, ...], blocks: Sequence[Buffer], want: tuple[int, ...]
    ) -> list[bytes]:
        """The blocks `want` of the k blocks with these numbers, all of one length."""
        if not want:
            return []
        if not len(blocks[0]):
            return [b""] * len(want)
        return self._library.multiply(self._tables(numbers, want), len(want), blocks)

    def _expanded(self, numbers: tuple[int, ...], want: tuple[int, ...]) -> Any:
        return self._library.expand(self._rows(numbers, want))


def _bundled() -> list[str]:
    """Where PyECLib's wheel has the library; its own code is not imported."""
    spec = find_spec("pyeclib")
    if spec is None or spec.origin is None:
        return []
    beside = Path(spec.origin).parent.parent / "pyeclib.libs"
    return sorted(str(path) for path in beside.glob("libisal*"))
