"""Which versions may go: all but the newest of each name."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


def surplus(numbers: Sequence[int], keep: int) -> Sequence[int]:
    """Of the versions of a name, in ascending order, those that may go.

    Versions that exist are counted, delete markers among them; holes in the numbers
    mean nothing. The newest `keep` stay, so the latest always does; 0 keeps all.
    """
    return numbers[:-keep] if keep else ()


@attrs.define
class Counting:
    """Told of all versions, name by name; says which names have more than `keep`."""

    keep: int
    name: str | None = None
    _count: int = 0

    def exceeds(self, name: str) -> bool:
        """Take in the next version; True once for each name that has too many."""
        if name != self.name:
            self.name = name
            self._count = 0
        self._count += 1
        return self._count == self.keep + 1
