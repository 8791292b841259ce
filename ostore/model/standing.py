"""What the nodes of a resumable upload hold together, and what a claim goes on from.

Among the nodes that were settled under the highest epoch, one holds what the others
hold or more, and all that was ever acknowledged: see ostore.model.resuming.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import attrs

from ostore.model.resuming import ROW, Paused, UploadRecord, UploadState


@attrs.frozen
class Standing:
    """What a claim goes on from.

    `stripes` and `tail` bytes of the next one are held; `rows` are the stripes' rows.
    `prefix` gives for each shard index how many of these stripes its node has; `tails`
    has the indices that have the tail whole.
    """

    rows: bytes
    tail: int
    prefix: Mapping[int, int]
    tails: frozenset[int]

    @property
    def stripes(self) -> int:
        """Stripes that k nodes have."""
        return len(self.rows) // ROW

    def complete(self) -> frozenset[int]:
        """The indices whose nodes have every stripe."""
        return frozenset(i for i, has in self.prefix.items() if has >= self.stripes)

    def acknowledged(self, quorum: int) -> tuple[int, int]:
        """Stripes, and bytes of the tail, that so many nodes hold."""
        counts = sorted(self.prefix.values(), reverse=True)
        stripes = counts[quorum - 1] if len(counts) >= quorum else 0
        if stripes < self.stripes or len(self.tails) < quorum:
            return stripes, 0
        return stripes, self.tail

    def rebuild(self, quorum: int) -> list[int]:
        """The indices behind that have to catch up for a quorum, least work first."""
        behind = [i for i, has in self.prefix.items() if has < self.stripes]
        behind.sort(key=lambda index: (-self.prefix[index], index))
        return list(islice(behind, max(0, quorum - len(self.complete()))))


def newest(states: Mapping[str, UploadState]) -> str:
    """The record to believe: that of the highest settled epoch, then the highest."""
    best = max(states.values(), key=lambda each: (each.settled, each.epoch))
    return best.record


def standing(record: UploadRecord, states: Mapping[int, UploadState]) -> Standing:
    """What the nodes that answered hold, by index. Raises Paused.

    Paused when so many are silent that something acknowledged may lie there alone.
    """
    silent = record.shards - len(states)
    if len(states) < record.majority:
        raise Paused("too few nodes of the upload are within reach")
    settled = max(state.settled for state in states.values())
    leaders = [state for state in states.values() if state.settled == settled]
    rows = max((state.rows for state in leaders), key=len)
    common = {index: _common(state.rows, rows) for index, state in states.items()}
    counts = sorted(common.values(), reverse=True)
    stripes = counts[record.data - 1]
    further = sum(count > stripes for count in counts)
    if further and further + silent >= record.quorum:
        raise Paused("nodes that may hold more of the upload are out of reach")
    tail = max(state.tail(stripes) for state in leaders)
    return Standing(
        rows[: stripes * ROW],
        tail,
        {index: min(count, stripes) for index, count in common.items()},
        frozenset(
            index
            for index, state in states.items()
            if state.settled == settled and state.tail(stripes) == tail
        ),
    )


def _common(one: bytes, other: bytes) -> int:
    """How many rows both begin with."""
    count = min(len(one), len(other)) // ROW
    if one[: count * ROW] == other[: count * ROW]:
        return count
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if one[: middle * ROW] == other[: middle * ROW]:
            low = middle
        else:
            high = middle - 1
    return low
