"""Which k shards to read, what replaces a failed or late one, when to give up.

Facts in, orders out: the reader tells what happened, and is told whom to ask next.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

import attrs

from ostore.model.layouts import Layout

LEAST_PATIENCE = 0.05
"""Seconds before another shard is asked for, however fast the others were."""


@attrs.frozen
class Source:
    """One shard on one node."""

    index: int
    node: str


class Download:
    """Chooses the sources of one read; made for one layout, dropped with the read.

    Data shards come first, because reading those costs no decoding. A source that
    failed is never asked again; one that was merely late comes last.
    """

    def __init__(self, layout: Layout, places: Mapping[int, tuple[str, ...]]) -> None:
        self.layout = layout
        self.active: dict[int, Source] = {}
        self._known: set[Source] = set()
        self._spare: deque[Source] = deque()
        self._times: deque[float] = deque(maxlen=32)
        self.learn(places)

    def learn(self, places: Mapping[int, tuple[str, ...]]) -> bool:
        """Take in who holds what; whether that brought a source not known before."""
        by_index = sorted(places.items())
        first = [Source(index, nodes[0]) for index, nodes in by_index]
        more = [Source(i, node) for i, nodes in by_index for node in nodes[1:]]
        new = [source for source in first + more if source not in self._known]
        self._known.update(new)
        self._spare.extend(new)
        return bool(new)

    def start(self) -> list[Source]:
        """The first k sources; fewer than k means that the read cannot succeed."""
        while len(self.active) < self.layout.data and self.more() is not None:
            pass
        return list(self.active.values())

    def more(self) -> Source | None:
        """One more source to ask at once; None when there is none left."""
        for source in self._spare:
            if source.index not in self.active:
                self._spare.remove(source)
                self.active[source.index] = source
                return source
        return None

    def failed(self, source: Source) -> None:
        """The source is of no use: missing, rotten or out of reach."""
        if self.active.get(source.index) is source:
            del self.active[source.index]

    def late(self, source: Source) -> None:
        """The others were faster; it may be asked again when nobody else is left."""
        self.failed(source)
        self._spare.append(source)

    def took(self, seconds: float) -> None:
        """A block came after that long."""
        self._times.append(seconds)

    @property
    def patience(self) -> float:
        """Seconds to wait for a block before one more source is asked."""
        if not self._times:
            return LEAST_PATIENCE
        return max(LEAST_PATIENCE, 3 * statistics.median(self._times))
