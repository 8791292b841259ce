"""Where a change may begin without reading: a head as it was last seen, or a guess."""

from __future__ import annotations

from collections import OrderedDict

from ostore.backends.metadata.elastic_names import Seen, weight_of
from ostore.model.heads import Change, Head

_HEADS = 1024
_WEIGHT = 16 * 1024
_MOSTLY = 0.5
_STEP = 1 / 16
"""How much the newest case counts in the share of new names."""


class Memory:
    """The heads that were written or read for a change last; owned by Changes.

    All of it may be out of date: only a compare-and-set tells. A name that is not here
    is guessed to be new while at least half of those that were written without being
    here have been new, lately. So new names need no read; and where names are mostly
    written again, few of them cost a write in vain. Nothing is guessed between a write
    whose answer was lost and one that went well: a read that fails leaves no doubt.
    """

    def __init__(self) -> None:
        self._heads: OrderedDict[str, Seen | None] = OrderedDict()
        self._new = 1.0
        self._well = True

    def __contains__(self, key: str) -> bool:
        return key in self._heads

    def take(self, key: str, bucket: str, name: str) -> Seen | None:
        """Forget the head, and give it; None when it must be read."""
        if key in self._heads:
            return self._heads.pop(key)
        guess = self._well and self._new >= _MOSTLY
        return Seen(Head(bucket, name), None) if guess else None

    def keep(self, key: str, seen: Seen) -> None:
        """Remember the head; of a heavy one, no more than that it exists."""
        heavy = weight_of(seen.head) > _WEIGHT
        self._heads[key] = None if heavy else seen
        if len(self._heads) > _HEADS:
            self._heads.popitem(last=False)

    def learn(self, known: bool, seen: Seen, change: Change) -> None:
        """A name was changed so; of a PUT that was not `known`, note whether it was new."""
        self._well = True
        if not known and change.head.live and change.head.high > seen.head.high:
            self._new += ((seen.position is None) - self._new) * _STEP

    def lost(self) -> None:
        """Whether a change was made is not known."""
        self._well = False
