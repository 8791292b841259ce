"""How a content is cut: stripes of 1 MiB, each cut into k data and m parity blocks."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from ostore.model.layouts import MAX_SHARDS

STRIPE = 1 << 20
"""Raw bytes of a stripe; the last one of a content may be shorter."""

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes. Whoever gets one may keep it and must not change it."""


@attrs.frozen
class Geometry:
    """k data and m parity blocks a stripe: any k of the k + m give it back.

    Raises ValueError unless k >= 1, m >= 0 and k + m <= 32.
    """

    data: int
    parity: int

    def __attrs_post_init__(self) -> None:
        if self.data < 1 or self.parity < 0 or self.shards > MAX_SHARDS:
            raise ValueError(
                f"k must be at least 1, m at least 0 and k + m at most {MAX_SHARDS}, "
                f"not k={self.data} m={self.parity}"
            )

    @property
    def shards(self) -> int:
        """Blocks of a stripe, and shards of a content: k + m."""
        return self.data + self.parity

    def block(self, stored: int) -> int:
        """The length of each block of a stripe of `stored` bytes."""
        return -(-stored // self.data)

    def stripes(self, size: int) -> int:
        """How many stripes a content of `size` bytes has when it is cut by us."""
        return -(-size // STRIPE)
