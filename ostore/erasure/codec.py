"""The one door to the coding of stripes; nothing else imports zfec.

The coding of record is zfec's systematic Reed-Solomon code over GF(2^8)/0x11D.
Whatever else stands in its place must give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import zfec

from ostore.erasure.geometry import Buffer, Geometry


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
        k, shards = self._geometry.data, self._geometry.shards
        for index in (*have, *want):
            if not 0 <= index < shards:
                raise ValueError(f"there is no block {index} among {shards}")
        # zfec overruns its stack when a block is wanted twice.
        parity = sorted({index for index in want if index >= k})
        data = self._data(have)
        coded = dict(zip(parity, self._parity(data, parity), strict=True))
        return [coded[i] if i in coded else bytes(data[i]) for i in want]

    def _data(self, have: Mapping[int, Buffer]) -> Sequence[Buffer]:
        k = self._geometry.data
        spare = [index for index in sorted(have) if index >= k]
        missing = k - (len(have) - len(spare))
        if missing > len(spare):
            raise ValueError(f"{len(have)} blocks are fewer than {k}")
        # zfec reorders, in place, what it is given unless data blocks stand at their
        # own index, so the gaps are filled with parity.
        fill = iter(spare)
        numbers = tuple(i if i in have else next(fill) for i in range(k))
        blocks = tuple(have[i] for i in numbers)
        length = _common_length(blocks)
        if not missing or not length:
            return blocks
        decoded: list[Buffer] = self._decoder.decode(blocks, numbers)
        return decoded

    def _parity(self, data: Sequence[Buffer], want: Sequence[int]) -> list[bytes]:
        if len(data) != self._geometry.data:
            raise ValueError(f"{len(data)} blocks are not {self._geometry.data}")
        if not _common_length(data):
            return [b""] * len(want)
        parity: list[bytes] = self._encoder.encode(tuple(data), tuple(want))
        return parity


def _common_length(blocks: Sequence[Buffer]) -> int:
    """The length of all blocks; zfec would read past the end of a shorter one."""
    length = len(blocks[0])
    if any(len(block) != length for block in blocks):
        raise ValueError("blocks of one stripe have one length")
    return length


_PROVIDERS = {ZfecCodec.name: ZfecCodec}


class Codecs:
    """Codecs by geometry, each made once; one of these serves a process."""

    def __init__(self, provider: str = ZfecCodec.name) -> None:
        """Raises ValueError for a provider that does not exist."""
        if provider not in _PROVIDERS:
            known = ", ".join(sorted(_PROVIDERS))
            raise ValueError(f"no codec {provider!r}; there is {known}")
        self.name = provider
        self._make = _PROVIDERS[provider]
        self._made: dict[Geometry, Codec] = {}

    def get(self, geometry: Geometry) -> Codec:
        """The codec of that geometry."""
        codec = self._made.get(geometry)
        if codec is None:
            codec = self._made.setdefault(geometry, self._make(geometry))
        return codec
