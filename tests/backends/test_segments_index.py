"""The index of a segment: what its records come to."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.segments.form import Index, Kind, Row, unpacked

CHANGES = (Kind.RENEW, Kind.RESTORE, Kind.GARBAGE, Kind.DELETE)


def records(rng: Random, count: int, share: float) -> list[Row]:
    """Shards and, `share` of them, changes of these or of other segments' shards."""
    rows: list[Row] = []
    for sequence in range(1, count + 1):
        hash = bytes([rng.randrange(4)]) * 32
        row = Row(
            hash,
            rng.randbytes(16),
            sequence,
            sequence,
            float(sequence),
            7,
            100 * sequence,
            rng.choice((1, 255, 256, 1 << 16, 1 << 24)),
            9,
            1,
            4,
            2,
            Kind.PUT,
        )
        if rng.random() < share:
            old = rng.choice(rows) if rows and rng.random() < 0.7 else row
            change = rng.choice(CHANGES)
            row = old._replace(sequence=sequence, time=9.0, kind=change, length=0)
        rows.append(row)
    return rows


class IndexTests(SynchronousTestCase):
    """Index.of() and Index.of_packed()."""

    @given(st.integers(0, 1000), st.integers(0, 40), st.sampled_from((0.0, 0.4)))
    @settings(deadline=None, max_examples=80)
    def test_both_ways(self, seed: int, count: int, share: float) -> None:
        """Packed records give the same index, and it is what they come to."""
        rows = records(Random(seed), count, share)
        found = Index.of_packed(bytearray(b"".join(row.packed() for row in rows)))
        self.assertEqual(found, Index.of(rows))
        last: dict[int, Row] = {}
        for row in rows:
            last[row.birth] = row
        born = {row.birth for row in rows if row.length}
        shards, changes = list(unpacked(found.shards)), list(unpacked(found.changes))
        self.assertEqual({row.birth for row in shards}, born)
        self.assertEqual({row.birth for row in changes}, last.keys() - born)
        for row in (*shards, *changes):
            told = last[row.birth]
            self.assertEqual((row.kind, row.sequence), (told.kind, told.sequence))
        for each in (shards, changes):
            order = [(row.hash, row.birth) for row in each]
            self.assertEqual(order, sorted(order))
        self.assertEqual(found.sequence, count)
