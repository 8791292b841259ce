"""The queue of shards to put back: filled by reads and writes, drained by mending."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping

import attrs

from ostore.model.layouts import Layout


@attrs.define
class Repair:
    """One layout of one content that lacks shards.

    `spots` are the indices known to be missing; the value names a node that is up
    and ought to hold it (it lost or rotted there), or is empty where the shard was
    nowhere. `marks` are the `degraded` marks to clear when all is there. `due` is
    the monotonic second before which there is no use in trying (again).
    """

    hash: str
    layout: Layout
    spots: dict[int, str]
    marks: frozenset[tuple[str, str, int]] = frozenset()
    due: float = 0.0
    tries: int = 0

    @property
    def left(self) -> int:
        """How many shards are left: the fewer, the sooner."""
        return self.layout.shards - len(self.spots)


class Repairs:
    """Distinct repairs by (hash, layout id), at most `limit`; the fewest left first.

    What does not fit is forgotten here (and counted): the next read, the `degraded`
    marks and the scrubber find it again.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.forgotten = 0
        self.wake: Callable[[], None] = lambda: None
        self._limit = limit
        self._waiting: dict[tuple[str, str], Repair] = {}
        self._under_way: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def worst(self) -> int | None:
        """The fewest shards that any waiting content has left."""
        return min((repair.left for repair in self._waiting.values()), default=None)

    def found(
        self,
        hash: str,
        layout: Layout,
        spots: Mapping[int, str],
        *,
        rotten: bool = False,
        marks: frozenset[tuple[str, str, int]] = frozenset(),
    ) -> None:
        """Something is missing; `rotten` means it is worth trying at once."""
        key = (hash, layout.id)
        known = self._waiting.get(key)
        if known is None:
            if len(self._waiting) >= self._limit:
                self.forgotten += 1
                return
            known = self._waiting[key] = Repair(hash, layout, {})
        news = any(index not in known.spots for index in spots)
        for index, node in spots.items():
            known.spots[index] = node or known.spots.get(index, "")
        known.marks |= marks
        if rotten or news:
            known.due = 0.0
        self.wake()

    def done(self, repair: Repair) -> None:
        """A repair that was taken has ended well."""
        self._under_way.discard((repair.hash, repair.layout.id))

    def again(self, repair: Repair, due: float) -> None:
        """Put back what could not be mended now.

        What was found meanwhile waits as long: the repair itself may have found it.
        """
        repair.tries += 1
        repair.due = due
        key = (repair.hash, repair.layout.id)
        self._under_way.discard(key)
        newer = self._waiting.get(key)
        if newer is not None:
            newer.spots = {**repair.spots, **newer.spots}
            newer.marks |= repair.marks
            newer.tries = repair.tries
            newer.due = max(newer.due, due)
            return
        if len(self._waiting) >= self._limit:
            self.forgotten += 1
            return
        self._waiting[key] = repair

    def take(self, now: float, limit: int) -> list[Repair]:
        """The worst repairs that are due, at most `limit`, out of the queue.

        Each ends in `done` or `again`; until then nothing more of it is given.
        """
        due = (repair for repair in self._idle() if repair.due <= now)
        worst = heapq.nsmallest(limit, due, key=lambda r: (r.left, r.tries, r.hash))
        for repair in worst:
            key = (repair.hash, repair.layout.id)
            del self._waiting[key]
            self._under_way.add(key)
        return worst

    def next_due(self) -> float | None:
        """The earliest monotonic second at which `take` will give something."""
        return min((repair.due for repair in self._idle()), default=None)

    def _idle(self) -> Iterator[Repair]:
        waiting = self._waiting.items()
        return (repair for key, repair in waiting if key not in self._under_way)
