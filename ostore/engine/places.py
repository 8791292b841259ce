"""Where contents were a moment ago: memory that spares locates and vouches for nothing."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping

import attrs

from ostore.model.census import Standing
from ostore.model.layouts import Layout

KEPT = 16_384
"""Contents remembered; about 0.5 KiB each."""


@attrs.frozen
class _Place:
    """Node i holds shard i of that layout."""

    layout: Layout
    nodes: tuple[str, ...]


class Places:
    """Whole contents and the nodes that hold them, the last used first to stay.

    Owned by the cluster. Only what was seen whole is kept, each shard on a node of its
    own: whoever reads a content that lacks something asks the nodes, and sees what. An
    entry is a guess, proved by opening the shards, and goes with the first that fails.
    """

    def __init__(self, limit: int = KEPT) -> None:
        self._limit = limit
        self._known: OrderedDict[str, _Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, hash: str, layout: Layout, nodes: Mapping[int, str]) -> None:
        """Shards are there: index -> node. Less than whole is no news."""
        spread = tuple(
            sys.intern(nodes[index]) for index in range(layout.shards) if index in nodes
        )
        if len(set(spread)) < layout.shards:
            return
        self._known[hash] = _Place(layout, spread)
        self._known.move_to_end(hash)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def get(self, hash: str) -> Standing | None:
        """The shards of a content, if they are remembered."""
        place = self._known.get(hash)
        if place is None:
            return None
        self._known.move_to_end(hash)
        return Standing(
            place.layout, {index: (node,) for index, node in enumerate(place.nodes)}
        )

    def forget(self, hash: str) -> None:
        """Something of it is not where it was."""
        self._known.pop(hash, None)
