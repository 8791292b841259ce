"""docs/shard-format.md tells the truth."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.shards.segments import form
from ostore.erasure import framing, shardfile, table
from ostore.erasure.geometry import STRIPE
from ostore.model.layouts import MAX_SHARDS, ShardKey

PAGE = Path(__file__).parents[2] / "docs" / "shard-format.md"
STRUCTS = {
    "Frame header": framing.FRAME_HEADER,
    "Table head": table.TABLE_HEAD,
    "Table row": table.ROW,
    "Prologue": shardfile.PROLOGUE_STRUCT,
    "Index row": shardfile.INDEX_ROW,
    "Footer": shardfile.FOOTER,
    "Segment header": form.HEADER,
    "Batch": form.BATCH,
    "Record": form.RECORD,
    "Segment index row": form.ROW,
    "Segment footer": form.FOOTER,
}


def sizes(form: struct.Struct) -> list[int]:
    """The length of each field of a struct."""
    items = re.findall(r"\d*[a-zA-Z]", form.format.removeprefix(">"))
    return [struct.calcsize(">" + item) for item in items]


class FormatPageTests(SynchronousTestCase):
    """The page and the structs say the same."""

    def setUp(self) -> None:
        """Read the page."""
        self.page = PAGE.read_text(encoding="utf-8")

    def fields(self, name: str, length: int) -> list[list[str]]:
        """The rows of the table under a heading that states this length."""
        heading = f"### {name} ({length} bytes)\n"
        self.assertIn(heading, self.page)
        section = self.page.split(heading)[1].split("\n#")[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]

    def test_every_field(self) -> None:
        """Every table has the struct's length, and its fields' sizes and offsets."""
        self.assertEqual(self.page.count(" bytes)\n"), len(STRUCTS))
        for name, packed in STRUCTS.items():
            fields = self.fields(name, packed.size)
            self.assertEqual([int(field[1]) for field in fields], sizes(packed), name)
            at = 0
            for offset, length, *_ in fields:
                self.assertEqual(int(offset), at, name)
                at += int(length)

    def test_magics(self) -> None:
        """The magic bytes are the ones in the code."""
        frame = framing.Frame(0, 1, 1, 0, 0, 0, b"x").header()
        empty = table.TableBuilder(1, 0).table()
        draft = shardfile.pack_trailer(
            ShardKey("0" * 64, 0, empty.id), empty.layout(), b""
        )
        for name, magic in (
            ("Frame header", frame[:2]),
            ("Table head", empty.to_bytes()[:4]),
            ("Prologue", shardfile.PROLOGUE[:8]),
            ("Footer", draft[-8:]),
            ("Segment header", form.Header(1, bytes(8)).to_bytes()[:8]),
            ("Segment footer", form.Index.of(()).trailer(1, bytes(8), 4096)[0][-8:]),
        ):
            rows = self.fields(name, STRUCTS[name].size)
            shown = [row[3] for row in rows if row[2] == "magic"]
            self.assertIn(f"`{magic.hex(' ')}`", shown[-1])

    def test_names(self) -> None:
        """The fields are named, in their order, as the code names them."""
        header = [row[2] for row in self.fields("Frame header", 32)]
        named = [name.replace(" ", "_") for name in header]
        self.assertEqual(
            sorted(framing.FrameHeader._fields),
            sorted(set(named) - {"magic", "reserved", "header_crc"}),
        )
        row = [row[2] for row in self.fields("Table row", 13)]
        self.assertEqual(row, ["raw", "stored", "coding", "stripe crc"])
        index = [row[2] for row in self.fields("Index row", 29)]
        self.assertEqual(index, [*row, "block crc", "length", "offset"])

    def test_numbers(self) -> None:
        """Limits and sums in the text are those of the code."""
        for number in (STRIPE, table.MAX_STORED):
            self.assertIn(f"{number:,} ", self.page)
        self.assertIn(f"k + m at most {MAX_SHARDS}", self.page)
        prologue, header = len(shardfile.PROLOGUE), framing.FRAME_HEADER.size
        row, footer = shardfile.INDEX_ROW.size, shardfile.FOOTER_SIZE
        self.assertIn(
            f"index offset = {prologue} + {header} x frames + block bytes", self.page
        )
        self.assertIn(f"index offset + {row} x frames + {footer};", self.page)
        self.assertIn(f"version {shardfile.VERSION}\n", self.page)
        self.assertIn(f"`{framing.crc32c(b'123456789'):x}`", self.page)
