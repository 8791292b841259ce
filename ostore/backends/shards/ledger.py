"""What a store knows of its shards: where they are, which are bad, which may go."""

from __future__ import annotations

from ostore.backends.shards.index import Index
from ostore.model.layouts import ShardKey


class Ledger:
    """The store's memory of one root; a new one begins with each count.

    `lost` counts files that vanished under the index, `rotten` those found not to be
    what they say.
    """

    def __init__(self, lost: int = 0, rotten: int = 0) -> None:
        self.lost = lost
        self.rotten = rotten
        self.shards = Index()
        self.garbage = Index()
        self.bad: set[ShardKey] = set()
        self.condemned: dict[ShardKey, str] = {}

    def whole(self, key: ShardKey) -> None:
        """Its file is there, and young."""
        self.shards.add(key)
        self.young(key)

    def young(self, key: ShardKey) -> None:
        """It is whole, wherever it is, and nothing holds of it that was said before."""
        self.bad.discard(key)
        self.condemned.pop(key, None)

    def rot(self, key: ShardKey) -> None:
        """It is there, and not what it says."""
        if key not in self.bad:
            self.rotten += 1
            self.bad.add(key)

    def gone(self, key: ShardKey) -> None:
        """It was expected, and is not there."""
        if self.shards.remove(key):
            self.lost += 1
        self.young(key)

    def discarded(self, key: ShardKey, copy: int) -> None:
        """It lies in garbage now."""
        self.shards.remove(key)
        self.young(key)
        self.garbage.add(key, copy)
