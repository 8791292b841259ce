"""The facts that name a shard: which content, which coding of it, which piece.

One content may be coded in more than one way (other k and m, other stripe
lengths, compressed or not). Shards of two such layouts must never be mixed, so
the layout's id goes wherever a shard is named.
"""

from __future__ import annotations

import re

import attrs

from ostore.model.errors import Malformed

MAX_SHARDS = 32
"""The greatest k + m."""
MAX_SIZE = (1 << 63) - 1
"""The greatest size of a content, in bytes."""

_HEADER = re.compile(
    r"k=([0-9]{1,2}); *m=([0-9]{1,2}); *size=([0-9]{1,19})(?:; *id=([0-9a-f]{32}))?"
)


@attrs.frozen
class Layout:
    """How one content was cut: k data and m parity shards of `size` raw bytes.

    `id` is 32 hex digits, the first half of SHA-256 over the stripe table.
    """

    data: int
    parity: int
    size: int
    id: str

    @property
    def shards(self) -> int:
        """The number of shards, k + m."""
        return self.data + self.parity

    def header(self) -> str:
        """The value of `X-Ostore-Layout`."""
        return f"k={self.data}; m={self.parity}; size={self.size}; id={self.id}"

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read `X-Ostore-Layout`; the id is empty where it was left out.

        Raises Malformed.
        """
        match = _HEADER.fullmatch(text.strip())
        if match is None:
            raise Malformed(
                "X-Ostore-Layout must read 'k=4; m=2; size=N; id=<32 hex digits>'"
            )
        data, parity = int(match[1]), int(match[2])
        if data < 1 or data + parity > MAX_SHARDS:
            raise Malformed(f"a layout has k >= 1 and k + m <= {MAX_SHARDS}")
        size = int(match[3])
        if size > MAX_SIZE:
            raise Malformed(f"a layout has size <= {MAX_SIZE}")
        return cls(data, parity, size, match[4] or "")


@attrs.frozen
class ShardKey:
    """What names one shard: content hash (64 hex), index from 0, layout id (32 hex)."""

    hash: str
    index: int
    layout: str


@attrs.frozen
class ShardFacts:
    """What a node knows of one shard it holds.

    `bytes` counts what it takes on disk; `age` is in seconds since it was last
    renewed; `state` is `whole`, `bad` (found rotten) or `garbage`.
    """

    hash: str
    index: int
    layout: Layout
    bytes: int
    age: float
    state: str = "whole"

    @property
    def key(self) -> ShardKey:
        """The shard's name."""
        return ShardKey(self.hash, self.index, self.layout.id)


@attrs.frozen
class Holding:
    """A node's answer to "what do you hold of this content?".

    `state` is `have`, `none` or `unsure` (still scanning: never taken for none).
    """

    state: str
    shards: tuple[ShardFacts, ...] = ()


def before(hash: str) -> str:
    """The hash just below that one (64 hex digits), "" for the least of all."""
    number = int(hash, 16)
    return f"{number - 1:064x}" if number else ""
