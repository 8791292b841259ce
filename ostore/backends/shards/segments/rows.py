"""Rows of shards in memory: bytes by the first two of the hash, no object for each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from struct import Struct
from sys import byteorder

from ostore.backends.shards.segments.form import (
    ROW,
    STANDING,
    Kind,
    Row,
    changed,
    unpacked,
)

FANS = 1 << 16
_SIZE = ROW.size
_KIND = _SIZE - 1
_BIRTH = slice(48, 56)
_HASHES = Struct(f"32s{_SIZE - 32}x")
_PREFIX = Struct(">H")


class Rows:
    """One row for each shard in any segment; owned by a log, used in one thread.

    Deleted ones stay until the segment that has their bytes is gone. A fan's rows lie
    behind each other in no order; a lookup is one search for the hash among them.
    """

    def __init__(self) -> None:
        self._fans: list[bytes] = [b""] * FANS
        self.standing = 0
        """Shards that bear their name."""
        self.total = 0
        """All rows."""

    def of(self, hash: bytes) -> list[Row]:
        """All rows of a content."""
        fan = self._fans[_fan(hash)]
        found = []
        at = fan.find(hash)
        while at >= 0:
            if at % _SIZE == 0:
                found.append(Row._make(ROW.unpack_from(fan, at)))
            at = fan.find(hash, at + 1)
        return found

    def holds(self, hash: bytes) -> bool:
        """Whether there is any row of a content, as far as one look can tell."""
        return hash in self._fans[_fan(hash)]

    def get(self, hash: bytes, birth: int) -> Row | None:
        """The row of that shard, or None."""
        fan = self._fans[_fan(hash)]
        at = _find(fan, hash, birth)
        return None if at < 0 else Row._make(ROW.unpack_from(fan, at))

    def set(self, row: Row) -> Row | None:
        """Add a row or replace the one of the same birth, which is returned."""
        number = _fan(row.hash)
        fan = self._fans[number]
        at = _find(fan, row.hash, row.birth)
        self.standing += row.kind in STANDING
        if at < 0:
            self._fans[number] = fan + row.packed()
            self.total += 1
            return None
        before = Row._make(ROW.unpack_from(fan, at))
        self.standing -= before.kind in STANDING
        self._fans[number] = b"".join((fan[:at], row.packed(), fan[at + _SIZE :]))
        return before

    def remove(self, row: Row) -> None:
        """Forget it."""
        number = _fan(row.hash)
        fan = self._fans[number]
        at = _find(fan, row.hash, row.birth)
        if at >= 0:
            self.standing -= fan[at + _KIND] in STANDING
            self.total -= 1
            self._fans[number] = fan[:at] + fan[at + _SIZE :]

    def hashes(self, after: bytes) -> Iterator[bytes]:
        """Contents with a hash greater than `after`, ascending; deleted ones too."""
        if not self.total:
            return
        for number in range(_fan(after) if after else 0, FANS):
            fan = self._fans[number]
            if fan:
                found = {hash for (hash,) in _HASHES.iter_unpack(fan)}
                yield from sorted(hash for hash in found if hash > after)

    # What a start does

    def load(self, rows: bytes) -> None:
        """Add packed rows in hash order, uncounted: see settle().

        None of them may be here already.
        """
        fans, at = self._fans, 0
        for number, count in Counter(_numbers(rows)).items():
            end = at + count * _SIZE
            fans[number] += rows[at:end]
            at = end

    def settle(self) -> Sequence[Row]:
        """Count all rows; gives those of deleted shards."""
        dead: list[Row] = []
        self.total = self.standing = 0
        for fan in self._fans:
            if not fan:
                continue
            kinds = fan[_KIND::_SIZE]
            deleted = kinds.count(Kind.DELETE)
            self.total += len(kinds)
            self.standing += len(kinds) - kinds.count(Kind.GARBAGE) - deleted
            if deleted:
                rows = unpacked(fan)
                dead += (row for row in rows if row.kind == Kind.DELETE)
        return dead

    def all(self) -> Iterator[Row]:
        """Every row, for tests."""
        for fan in self._fans:
            yield from unpacked(fan)

    def change(self, change: Row) -> tuple[Row, Row] | None:
        """Let a record's change happen: the row before and after; None without any."""
        row = self.get(change.hash, change.birth)
        if row is None:
            return None
        after = changed(row, change)
        if after is not row:
            self.set(after)
        return row, after


def _numbers(rows: bytes) -> array[int]:
    """The first two bytes of each row, as numbers."""
    pairs = bytearray(2 * (len(rows) // _SIZE))
    pairs[0::2], pairs[1::2] = rows[0::_SIZE], rows[1::_SIZE]
    numbers = array("H", bytes(pairs))
    if byteorder == "little":
        numbers.byteswap()
    return numbers


def _find(fan: bytes, hash: bytes, birth: int) -> int:
    born = birth.to_bytes(8, "big")
    at = fan.find(hash)
    while at >= 0:
        if at % _SIZE == 0 and fan[at + 48 : at + 56] == born:
            return at
        at = fan.find(hash, at + 1)
    return -1


def _fan(hash: bytes) -> int:
    number: int = _PREFIX.unpack_from(hash)[0]
    return number
