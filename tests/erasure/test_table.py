"""The stripe table finds bytes, names its layout and survives its journey."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.framing import MAX_STORED, Row, Table, TableBuilder, crc32c
from ostore.erasure.geometry import STRIPE, Geometry
from ostore.model.errors import ShardRotten
from ostore.model.layouts import Layout
from tests.erasure.cases import geometries, rows, some


def built(geometry: Geometry, rows: list[tuple[int, int, int, int]]) -> Table:
    """A table of these rows."""
    builder = TableBuilder(geometry.data, geometry.parity)
    for row in rows:
        builder.append(*row)
    return builder.table()


def sealed(body: bytes) -> bytes:
    """A table's bytes with a checksum that is right."""
    return body + struct.pack(">I", crc32c(body))


class TableTests(SynchronousTestCase):
    """One content's stripes."""

    @some
    @given(geometries, rows)
    def test_offsets_are_found_as_a_naive_sum_finds_them(
        self, geometry: Geometry, rows: list[tuple[int, int, int, int]]
    ) -> None:
        """find() and stripes() agree with walking over stripes of any lengths."""
        table = built(geometry, rows)
        places = [(i, j) for i, row in enumerate(rows) for j in range(row[0])]
        self.assertEqual(table.size, len(places))
        self.assertEqual([table.find(at) for at in range(len(places))], places)
        for outside in (-1, len(places), len(places) + 1):
            self.assertRaises(IndexError, table.find, outside)
        for start in range(0, len(places), 97):
            for stop in range(start + 1, len(places) + 1, 89):
                found = table.stripes(start, stop)
                self.assertEqual(found, (places[start][0], places[stop - 1][0] + 1))
        self.assertRaises(IndexError, table.stripes, 0, len(places) + 1)
        self.assertEqual(table.stripes(5, 5), (0, 0))

    @some
    @given(geometries, rows)
    def test_round_trip(
        self, geometry: Geometry, rows: list[tuple[int, int, int, int]]
    ) -> None:
        """to_bytes() and back gives the same rows, size, id and layout."""
        table = built(geometry, rows)
        again = Table.from_bytes(table.to_bytes())
        self.assertEqual(again, table)
        self.assertEqual(hash(again), hash(table))
        self.assertEqual(again.layout(), table.layout())
        self.assertEqual(len(again), len(rows))
        self.assertEqual(
            [again.row(i) for i in range(len(rows))], [Row(*row) for row in rows]
        )
        for outside in (-1, len(rows)):
            self.assertRaises(IndexError, again.row, outside)

    def test_id_is_the_documented_hash(self) -> None:
        """The id is half of SHA-256 over head and rows, in network byte order."""
        table = built(Geometry(4, 2), [(STRIPE, 77, 1, 3), (5, 5, 0, 0xFFFFFFFF)])
        body = struct.pack(">4sBBHI", b"OST1", 4, 2, 0, 2)
        body += struct.pack(">IIBI", STRIPE, 77, 1, 3)
        body += struct.pack(">IIBI", 5, 5, 0, 0xFFFFFFFF)
        expected = hashlib.sha256(body).digest()[:16].hex()
        self.assertEqual(table.layout(), Layout(4, 2, STRIPE + 5, expected))
        self.assertEqual(table.to_bytes(), sealed(body))

    def test_whatever_differs_gives_another_id(self) -> None:
        """k, m, and each field of each row are part of the layout."""
        row = (9, 8, 1, 7)
        tables = [
            built(Geometry(4, 2), [row]),
            built(Geometry(4, 3), [row]),
            built(Geometry(5, 2), [row]),
            built(Geometry(4, 2), []),
            built(Geometry(4, 2), [row, row]),
            built(Geometry(4, 2), [(10, 8, 1, 7)]),
            built(Geometry(4, 2), [(9, 9, 1, 7)]),
            built(Geometry(4, 2), [(9, 8, 2, 7)]),
            built(Geometry(4, 2), [(9, 8, 1, 6)]),
        ]
        self.assertEqual(len({table.id for table in tables}), len(tables))
        self.assertEqual(len(set(tables)), len(tables))

    def test_equal_to_tables_only(self) -> None:
        """A table is not equal to something else."""
        table = built(Geometry(4, 2), [])
        self.assertNotEqual(table, b"")
        self.assertNotEqual(table, table.layout())

    def test_empty(self) -> None:
        """A content of no bytes has a table without rows, and an id."""
        table = built(Geometry(4, 2), [])
        self.assertEqual((len(table), table.size), (0, 0))
        self.assertEqual(len(table.id), 32)
        self.assertEqual(Table.from_bytes(table.to_bytes()), table)
        self.assertEqual(table.stripes(0, 0), (0, 0))

    def test_impossible_rows(self) -> None:
        """A builder takes no stripe that cannot be."""
        builder = TableBuilder(4, 2)
        for row in (
            (0, 0, 0, 0),
            (0, 1, 1, 0),
            (1, 0, 1, 0),
            (STRIPE + 1, 1, 1, 0),
            (STRIPE, MAX_STORED + 1, 1, 0),
            (5, 4, 0, 0),
        ):
            self.assertRaises(ValueError, builder.append, *row)
        builder.append(STRIPE, MAX_STORED, 9, 0)
        self.assertEqual(len(builder), 1)

    def test_a_table_stays_as_it_was(self) -> None:
        """What is appended later is not in a table taken before."""
        builder = TableBuilder(4, 2)
        before = builder.table()
        builder.append(1, 1, 0, 0)
        self.assertEqual((len(before), len(builder.table())), (0, 1))

    def test_every_flipped_byte(self) -> None:
        """A table in which any byte was changed, or that was cut, is refused."""
        whole = built(Geometry(4, 2), [(9, 8, 1, 7), (5, 5, 0, 1)]).to_bytes()
        for at in range(len(whole)):
            flipped = bytearray(whole)
            flipped[at] ^= 0x10
            self.assertRaises(ShardRotten, Table.from_bytes, flipped)
            self.assertRaises(ShardRotten, Table.from_bytes, whole[:at])

    def test_checksums_do_not_excuse(self) -> None:
        """A right checksum over nonsense is still nonsense."""
        row = struct.pack(">IIBI", 5, 5, 0, 1)
        for magic, k, m, zero, count, body in (
            (b"OST2", 4, 2, 0, 1, row),
            (b"OST1", 0, 2, 0, 1, row),
            (b"OST1", 4, 29, 0, 1, row),
            (b"OST1", 4, 2, 1, 1, row),
            (b"OST1", 4, 2, 0, 2, row),
            (b"OST1", 4, 2, 0, 0xFFFFFFFF, row),
            (b"OST1", 4, 2, 0, 1, row + b"x"),
            (b"OST1", 4, 2, 0, 1, struct.pack(">IIBI", 5, 4, 0, 1)),
        ):
            head = struct.pack(">4sBBHI", magic, k, m, zero, count)
            self.assertRaises(ShardRotten, Table.from_bytes, sealed(head + body))
