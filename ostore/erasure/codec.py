"""The one door to the coding of stripes; nothing else imports zfec or ISA-L.

The coding of record is zfec's systematic Reed-Solomon code over GF(2^8)/0x11D.
Whatever else stands in its place must give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import zfec

from ostore.erasure.geometry import Buffer, Geometry
from ostore.erasure.isal import Isal, Multiplier


class Codec(Protocol):
    """Codes the blocks of one geometry; has no state, so any thread may call it.

    Blocks 0 to k - 1 are data, k to k + m - 1 parity, all of one length.
    """

    name: str

    def encode(self, blocks: Sequence[Buffer]) -> list[bytes]:
        """The m parity blocks of k data blocks. Raises ValueError."""

    def rebuild(self, have: Mapping[int, Buffer], want: Sequence[int]) -> list[bytes]:
        """The blocks `want`, from any k blocks or more. Raises ValueError.

        Nothing is checked but count and length: wrong blocks give wrong blocks.
        """


class ZfecCodec:
    """The reference: zfec. It releases the GIL while it computes."""

    name = "zfec"

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._encoder = zfec.Encoder(geometry.data, geometry.shards)
        self._decoder = zfec.Decoder(geometry.data, geometry.shards)

    def encode(self, blocks: Sequence[Buffer]) -> list[bytes]:
        """The m parity blocks of k data blocks. Raises ValueError."""
        return self._parity(blocks, range(self._geometry.data, self._geometry.shards))

    def rebuild(self, have: Mapping[int, Buffer], want: Sequence[int]) -> list[bytes]:
        """The blocks `want`, from any k blocks or more. Raises ValueError."""
        k = self._geometry.data
        numbers, blocks = _chosen(self._geometry, have, want)
        # zfec overruns its stack when a block is wanted twice.
        parity = sorted({index for index in want if index >= k})
        data: Sequence[Buffer] = blocks
        if len(blocks[0]) and max(numbers) >= k:
            data = self._decoder.decode(blocks, numbers)
        coded = dict(zip(parity, self._parity(data, parity), strict=True))
        return [coded[i] if i in coded else bytes(data[i]) for i in want]

    def _parity(self, data: Sequence[Buffer], want: Sequence[int]) -> list[bytes]:
        if not _stripe_length(self._geometry, data):
            return [b""] * len(want)
        parity: list[bytes] = self._encoder.encode(tuple(data), tuple(want))
        return parity


class IsalCodec:
    """Intel's ISA-L with zfec's matrix: the same bytes, many times faster."""

    name = "isal"

    def __init__(self, geometry: Geometry, library: Isal) -> None:
        self._geometry = geometry
        self._zfec = ZfecCodec(geometry)
        self._data = tuple(range(geometry.data))
        self._parity = tuple(range(geometry.data, geometry.shards))
        self._multiplier = Multiplier(library, self._rows)

    def encode(self, blocks: Sequence[Buffer]) -> list[bytes]:
        """The m parity blocks of k data blocks. Raises ValueError."""
        _stripe_length(self._geometry, blocks)
        return self._multiplier.make(self._data, blocks, self._parity)

    def rebuild(self, have: Mapping[int, Buffer], want: Sequence[int]) -> list[bytes]:
        """The blocks `want`, from any k blocks or more. Raises ValueError."""
        numbers, blocks = _chosen(self._geometry, have, want)
        found = {
            i: bytes(block)
            for i, block in zip(numbers, blocks, strict=True)
            if i in want
        }
        lost = tuple(sorted({index for index in want if index not in found}))
        made = self._multiplier.make(numbers, blocks, lost)
        found.update(zip(lost, made, strict=True))
        return [found[index] for index in want]

    def _rows(self, have: tuple[int, ...], want: tuple[int, ...]) -> list[bytes]:
        """The factors that zfec uses: what it makes of unit vectors in the place of blocks."""
        k = len(have)
        units = {i: bytes(n == at for n in range(k)) for at, i in enumerate(have)}
        return self._zfec.rebuild(units, want)


def _chosen(
    geometry: Geometry, have: Mapping[int, Buffer], want: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Buffer, ...]]:
    """The k blocks to rebuild from, with their numbers: data first. Raises ValueError.

    zfec reorders, in place, what it is given unless data blocks stand at their own
    index, so the gaps are filled with parity.
    """
    for index in (*have, *want):
        if not 0 <= index < geometry.shards:
            raise ValueError(f"there is no block {index} among {geometry.shards}")
    spare = iter(sorted(index for index in have if index >= geometry.data))
    if len(have) < geometry.data:
        raise ValueError(f"{len(have)} blocks are fewer than {geometry.data}")
    numbers = tuple(i if i in have else next(spare) for i in range(geometry.data))
    blocks = tuple(have[i] for i in numbers)
    _common_length(blocks)
    return numbers, blocks


def _stripe_length(geometry: Geometry, data: Sequence[Buffer]) -> int:
    """The length of all k data blocks. Raises ValueError."""
    if len(data) != geometry.data:
        raise ValueError(f"{len(data)} blocks are not {geometry.data}")
    return _common_length(data)


def _common_length(blocks: Sequence[Buffer]) -> int:
    """The length of all blocks; zfec would read past the end of a shorter one."""
    length = len(blocks[0])
    if any(len(block) != length for block in blocks):
        raise ValueError("blocks of one stripe have one length")
    return length


AUTO = "auto"
_PROVIDERS = (ZfecCodec.name, IsalCodec.name)
_TRIED = (1, 15, 16, 31, 33, 64, 300)
"""Block lengths with which a library has to prove itself."""


class Codecs:
    """Codecs by geometry, each made once; one of these serves a process."""

    def __init__(self, provider: str = ZfecCodec.name) -> None:
        """`auto` is the fastest that works here.

        Raises ValueError for a provider that does not exist or does not work here.
        """
        if provider not in (*_PROVIDERS, AUTO):
            known = ", ".join(_PROVIDERS)
            raise ValueError(f"no codec {provider!r}; there is {known}")
        self._make: Callable[[Geometry], Codec] = ZfecCodec
        self.name = ZfecCodec.name
        self._made: dict[Geometry, Codec] = {}
        if provider != ZfecCodec.name:
            try:
                self._make = _isal()
                self.name = IsalCodec.name
            except OSError as error:
                if provider != AUTO:
                    raise ValueError(str(error)) from error

    def get(self, geometry: Geometry) -> Codec:
        """The codec of that geometry."""
        codec = self._made.get(geometry)
        if codec is None:
            codec = self._made.setdefault(geometry, self._make(geometry))
        return codec


def _isal() -> Callable[[Geometry], Codec]:
    """Makes codecs on ISA-L. Raises OSError where it is not, or not as it should be."""
    library = Isal()
    for parity in range(1, 13):
        geometry = Geometry(4, parity)
        ours, reference = IsalCodec(geometry, library), ZfecCodec(geometry)
        for length in _TRIED:
            blocks = [bytes((i * n) % 255 for n in range(length)) for i in range(3, 7)]
            if ours.encode(blocks) != reference.encode(blocks):
                raise OSError("ISA-L does not compute what zfec does on this machine")
    return lambda geometry: IsalCodec(geometry, library)
