"""Which part of all contents is read next: the hashes in 256 slices, oldest first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import attrs

SLICES = 256
"""By the first byte of the hash."""
HASTE = 0.9
"""The part of a period in which all are read."""
ROW = 16
"""Most slices that are read in one go."""


@attrs.frozen
class Progress:
    """When each slice was read last, in seconds since 1970.

    `at` is up to when the work was planned.
    """

    read: tuple[float, ...]
    at: float

    @classmethod
    def begin(cls, now: float) -> Progress:
        """Of a store of which nothing was read yet."""
        return cls((now,) * SLICES, now)

    def oldest(self, now: float) -> float:
        """For how long the slice that waits longest was not read."""
        return max(0.0, now - min(self.read))

    def plan(self, now: float, period: float) -> tuple[Progress, Sequence[int]]:
        """The slices to read now, those first that wait longest.

        So many that all are read once in each period, and a little sooner; after a
        pause as many as it took.
        """
        share = period * HASTE / SLICES
        begin = min(now, max(self.at, now - share * SLICES))
        count = int((now - begin) / share)
        order = sorted(range(SLICES), key=lambda each: (self.read[each], each))
        planned = attrs.evolve(self, at=begin + count * share)
        return planned, sorted(order[:count])

    def done(self, numbers: Collection[int], now: float) -> Progress:
        """Those slices were read."""
        read = tuple(now if n in numbers else at for n, at in enumerate(self.read))
        return attrs.evolve(self, read=read)

    def to_json(self) -> dict[str, Any]:
        """As it is remembered."""
        return {"read": list(self.read), "at": self.at}

    @classmethod
    def from_json(cls, value: Any) -> Progress | None:
        """What was remembered; None for nothing."""
        return None if value is None else cls(tuple(value["read"]), value["at"])


def in_rows(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring slices together: the first and the last of each row."""
    rows: list[tuple[int, int]] = []
    for number in numbers:
        if rows and number == rows[-1][1] + 1 and number - rows[-1][0] < ROW:
            rows[-1] = rows[-1][0], number
        else:
            rows.append((number, number))
    return rows


def span(number: int) -> tuple[str, str]:
    """The hashes of a slice: those behind the first, up to the second."""
    first = number << 248
    after = f"{first - 1:064x}" if first else ""
    return after, f"{number:02x}" + "f" * 62
