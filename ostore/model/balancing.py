"""Which shards move: nodes fill up evenly, leaving nodes empty, zones are spread over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

TOLERANCE = 0.05
"""A node that is off its share by less than this part of it is left as it is."""


@attrs.frozen
class Bearer:
    """A node as balancing sees it: bytes of shards it has, and room for more.

    `takes`: whether it may be given shards; `leaving`: it is to hold none.
    """

    id: str
    zone: str
    used: int
    free: int
    takes: bool = True
    leaving: bool = False


def shares(bearers: Iterable[Bearer], width: int) -> dict[str, float]:
    """How many bytes each node shall hold, all together what they hold now.

    In proportion to the room that each has in all, but none more than one shard of
    each content can come to: the `width`-th part of everything.
    """
    everyone = list(bearers)
    total = float(sum(each.used for each in everyone))
    most = total / max(1, width)
    staying = [each for each in everyone if not each.leaving]
    room = {each.id: float(max(1, each.used + each.free)) for each in staying}
    found = {each.id: 0.0 for each in everyone}
    left = total
    while room:
        part = left / sum(room.values())
        capped = [node for node, size in room.items() if size * part > most]
        if not capped:
            return found | {node: size * part for node, size in room.items()}
        for node in capped:
            found[node] = most
            left -= most
            del room[node]
    return found


@attrs.define
class Balance:
    """Decides content by content; keeps count of what its decisions come to.

    Bytes go only from nodes above their share to nodes below it, so no more are moved
    than have to be, but for what leaves a node or a crowded zone.
    """

    bearers: Mapping[str, Bearer]
    share: Mapping[str, float]
    used: dict[str, float]
    uneven: bool

    @classmethod
    def of(cls, bearers: Mapping[str, Bearer], width: int) -> Balance:
        """As things are now."""
        share = shares(bearers.values(), width)
        used = {node: float(each.used) for node, each in bearers.items()}
        off = (abs(used[n] - share[n]) > TOLERANCE * max(share[n], 1.0) for n in share)
        return cls(bearers, share, used, any(off))

    @property
    def excess(self) -> float:
        """Bytes above their shares, of all nodes: the least that has to move."""
        return sum(max(0.0, self.used[n] - self.share[n]) for n in self.share)

    def moves(self, holders: Mapping[str, int]) -> Sequence[tuple[str, str]]:
        """From which node to which the shards of one content shall go.

        `holders` maps each node to the bytes of the one shard that it has.
        """
        found: list[tuple[str, str]] = []
        at = dict(holders)
        zones = Counter(self.bearers[n].zone for n in at if n in self.bearers)
        most = self._most(zones, len(at))
        order = sorted(at, key=lambda n: (-self._above(n), n))
        for node in order:
            bearer = self.bearers.get(node)
            if bearer is None:
                continue
            must = bearer.leaving or zones[bearer.zone] > most
            if not must and not (self.uneven and self._above(node) > at[node] / 2):
                continue
            target = self._target(at, zones, most, node, must=must)
            if target is None:
                continue
            size = at.pop(node)
            at[target.id] = size
            zones[bearer.zone] -= 1
            zones[target.zone] += 1
            self.used[node] -= size
            self.used[target.id] += size
            found.append((node, target.id))
        return found

    def _target(
        self,
        at: Mapping[str, int],
        zones: Counter[str],
        most: int,
        node: str,
        *,
        must: bool,
    ) -> Bearer | None:
        """The emptiest node without a shard of it, where the zones allow it."""
        size, zone = at[node], self.bearers[node].zone
        able = [
            each
            for each in self.bearers.values()
            if each.takes and not each.leaving and each.id not in at
            if each.free > size
        ]
        fitting = [
            each for each in able if each.zone == zone or zones[each.zone] < most
        ]
        if not must:
            fitting = [n for n in fitting if self._above(n.id) < -size / 2]
        elif self.bearers[node].leaving:
            fitting = fitting or able
        else:
            fitting = [each for each in fitting if each.zone != zone]
        return min(
            fitting, key=lambda each: (self._above(each.id), each.id), default=None
        )

    def _above(self, node: str) -> float:
        return self.used.get(node, 0.0) - self.share.get(node, 0.0)

    def _most(self, zones: Mapping[str, int], count: int) -> int:
        """How many shards of a content a zone shall have at most."""
        able = Counter(
            each.zone
            for each in self.bearers.values()
            if not each.leaving and (each.takes or each.id in zones)
        )
        most = 1
        while sum(min(most, size) for size in able.values()) < count and most < count:
            most += 1
        return most
