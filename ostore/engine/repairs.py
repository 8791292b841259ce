"""The queue of shards to put back: filled by reads and writes, drained by mending."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping

import attrs

from ostore.model.layouts import Layout

_Key = tuple[str, str]


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
        self.served = False
        """Whether anybody drains it."""
        self._limit = limit
        self._waiting: dict[_Key, Repair] = {}
        self._under_way: set[_Key] = set()
        # An entry of a heap counts while its ticket is the last of its key.
        self._tickets: dict[_Key, int] = {}
        self._ticket = 0
        self._ready: list[tuple[int, int, _Key, int]] = []
        self._later: list[tuple[float, _Key, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def worst(self) -> int | None:
        """The fewest shards that any waiting content has left."""
        return min((repair.left for repair in self._waiting.values()), default=None)

    def by_left(self) -> Mapping[int, int]:
        """How many contents wait with so many shards left."""
        return Counter(repair.left for repair in self._waiting.values())

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
            self._line_up(key)
        self.wake()

    def more_of(self, repair: Repair) -> bool:
        """Whether something was found of the content since this repair was taken."""
        return (repair.hash, repair.layout.id) in self._waiting

    def done(self, repair: Repair) -> None:
        """A repair that was taken has ended well."""
        key = (repair.hash, repair.layout.id)
        self._under_way.discard(key)
        self._line_up(key)

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
        elif len(self._waiting) >= self._limit:
            self.forgotten += 1
        else:
            self._waiting[key] = repair
        self._line_up(key)

    def take(self, now: float, limit: int) -> list[Repair]:
        """The worst repairs that are due, at most `limit`, out of the queue.

        Each ends in `done` or `again`; until then nothing more of it is given.
        """
        while self._later and self._later[0][0] <= now:
            _, key, ticket = heapq.heappop(self._later)
            if self._counts(key, ticket):
                self._make_ready(key, ticket)
        taken: list[Repair] = []
        while self._ready and len(taken) < limit:
            *_, key, ticket = heapq.heappop(self._ready)
            if self._counts(key, ticket):
                taken.append(self._waiting.pop(key))
                self._under_way.add(key)
        return taken

    def next_due(self) -> float | None:
        """The earliest monotonic second at which `take` will give something."""
        ready, later = self._ready, self._later
        while ready and not self._counts(*ready[0][2:]):
            heapq.heappop(ready)
        while later and not self._counts(*later[0][1:]):
            heapq.heappop(later)
        if ready:
            return self._waiting[ready[0][2]].due
        return later[0][0] if later else None

    def _line_up(self, key: _Key) -> None:
        """Its place may be another now."""
        repair = self._waiting.get(key)
        if repair is None or key in self._under_way:
            self._tickets.pop(key, None)
            return
        self._ticket += 1
        self._tickets[key] = self._ticket
        if repair.due:
            heapq.heappush(self._later, (repair.due, key, self._ticket))
        else:
            self._make_ready(key, self._ticket)

    def _make_ready(self, key: _Key, ticket: int) -> None:
        repair = self._waiting[key]
        heapq.heappush(self._ready, (repair.left, repair.tries, key, ticket))

    def _counts(self, key: _Key, ticket: int) -> bool:
        return self._tickets.get(key) == ticket and key in self._waiting
