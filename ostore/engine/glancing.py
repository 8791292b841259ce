"""Contents of one stripe whose shards lie in this very process, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ostore.erasure.codec import Codecs
from ostore.erasure.decoder import decode
from ostore.erasure.framing import RAW, Row
from ostore.erasure.geometry import Buffer, Geometry
from ostore.interfaces import INodes
from ostore.model.census import Standing
from ostore.model.errors import ShardRotten
from ostore.model.layouts import ShardKey

INLINE = 64 * 1024
"""Raw bytes up to which a compressed stripe is expanded here."""


class Glancing:
    """Reads such contents without waiting for anything; owned by Getting.

    Whatever is not plain is left to the long way, which tells what is wrong and has
    it mended.
    """

    def __init__(self, nodes: INodes, codecs: Codecs) -> None:
        self._nodes = nodes
        self._codecs = codecs

    def stripe(self, hash: str, standing: Standing) -> Sequence[Buffer] | None:
        """The raw bytes, checked, in pieces; None: not so, or not known."""
        layout = standing.layout
        blocks: dict[int, Buffer] = {}
        row: Row | None = None
        for index in range(layout.data):
            nodes = standing.places.get(index)
            beside = self._nodes.beside(nodes[0]) if nodes else None
            if beside is None:
                return None
            frame = beside.glance(ShardKey(hash, index, layout.id))
            if frame is None:
                return None
            if row is None:
                row = frame.row
            blocks[index] = frame.block
        if row is None or (row.coding != RAW and row.raw > INLINE):
            return None
        geometry = Geometry(layout.data, layout.parity)
        try:
            return decode(row, geometry, self._codecs.get(geometry), blocks)
        except ShardRotten:
            return None
