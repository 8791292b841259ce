"""From a content's bytes to the frames of its shards."""

from __future__ import annotations

from ostore.erasure.checksums import joined
from ostore.erasure.codec import Codec
from ostore.erasure.compressing import ZSTD
from ostore.erasure.framing import RAW, Frame, Table, TableBuilder, crc32c
from ostore.erasure.geometry import STRIPE, Buffer, Geometry
from ostore.erasure.table import ROW
from ostore.model.layouts import Layout


class Encoder:
    """Cuts one content into stripes and codes them; made by each PUT.

    feed() and finish() cut, code() codes: call it once for each stripe, in order.
    They share nothing, so code() may run on another thread. It ends with the last
    stripe; table() and layout() then describe the whole content.
    """

    def __init__(self, geometry: Geometry, codec: Codec) -> None:
        self._geometry = geometry
        self._codec = codec
        self._partial = bytearray()
        self._table = TableBuilder(geometry.data, geometry.parity)

    @classmethod
    def resumed(
        cls, geometry: Geometry, codec: Codec, rows: bytes, tail: Buffer
    ) -> Encoder:
        """One that goes on behind stripes of those packed rows and `tail`.

        Raises ValueError for rows that are none.
        """
        encoder = cls(geometry, codec)
        for row in ROW.iter_unpack(rows):
            encoder._table.append(*row)
        encoder._partial += tail
        return encoder

    @property
    def stripes(self) -> int:
        """Stripes coded so far."""
        return len(self._table)

    def rows(self) -> bytes:
        """Their packed rows."""
        return self._table.rows

    def partial(self, start: int) -> bytes:
        """The bytes of the stripe that is not complete, from `start` on."""
        return bytes(self._partial[start:])

    @property
    def held(self) -> int:
        """Bytes of the stripe that is not complete; always below STRIPE."""
        return len(self._partial)

    def feed(self, data: Buffer) -> list[memoryview]:
        """The raw stripes that `data` completes; they may refer to `data`."""
        view = memoryview(data)
        stripes: list[memoryview] = []
        if self._partial:
            missing = STRIPE - len(self._partial)
            self._partial += view[:missing]
            view = view[missing:]
            if len(self._partial) < STRIPE:
                return stripes
            stripes.append(self._take())
        whole = len(view) - len(view) % STRIPE
        stripes += (view[i : i + STRIPE] for i in range(0, whole, STRIPE))
        self._partial += view[whole:]
        return stripes

    def finish(self) -> memoryview | None:
        """The last, shorter stripe; None when the content ended with a whole one."""
        return self._take() if self._partial else None

    def code(self, raw: Buffer, compressed: bytes | None = None) -> tuple[Frame, ...]:
        """The k + m frames of the next stripe, by index; data blocks refer to it.

        `compressed` is what compress() made of it, if anything. Raises ValueError
        unless `raw` has 1 to STRIPE bytes.
        """
        stored, coding = (raw, RAW) if compressed is None else (compressed, ZSTD)
        length, number = len(stored), len(self._table)
        data = split(stored, self._geometry)
        crcs = [crc32c(block) for block in data]
        whole = length == STRIPE == len(data) * len(data[0])
        crc = joined(crcs, len(data[0])) if whole else crc32c(stored)
        self._table.append(len(raw), length, coding, crc)
        parity = self._codec.encode(data)
        crcs += [crc32c(block) for block in parity]
        return tuple(
            Frame(number, len(raw), length, coding, crc, own, block)
            for own, block in zip(crcs, (*data, *parity), strict=True)
        )

    def table(self) -> Table:
        """The table of the stripes coded so far."""
        return self._table.table()

    def layout(self) -> Layout:
        """The layout of the stripes coded so far."""
        return self.table().layout()

    def _take(self) -> memoryview:
        taken, self._partial = self._partial, bytearray()
        return memoryview(taken).toreadonly()


def split(stored: Buffer, geometry: Geometry) -> list[Buffer]:
    """The k data blocks of a stripe; only those that need zeros behind are copied."""
    view, length = memoryview(stored), geometry.block(len(stored))
    blocks: list[Buffer] = []
    for start in range(0, geometry.data * length, length):
        block: Buffer = view[start : start + length]
        if len(block) < length:
            block = bytes(block).ljust(length, b"\0")
        blocks.append(block)
    return blocks
