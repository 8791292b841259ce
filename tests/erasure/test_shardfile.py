"""A shard file says what it is, and no changed byte of it goes unnoticed."""

from __future__ import annotations

import hashlib
import struct

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.draft import ShardDraft
from ostore.erasure.framing import FRAME_HEADER, Frame, crc32c
from ostore.erasure.geometry import STRIPE, Geometry
from ostore.erasure.shardfile import (
    FOOTER,
    FOOTER_SIZE,
    INDEX_ROW,
    PROLOGUE,
    Footer,
    check_prologue,
    pack_trailer,
    parse_footer,
    parse_index,
)
from ostore.model.errors import ShardRefused, ShardRotten
from ostore.model.layouts import Layout, ShardKey
from tests.erasure.cases import (
    content,
    encode,
    geometries,
    open_file,
    read_frames,
    shard_file,
    small_stripes,
    some,
    stream,
)

FOUR_TWO = Geometry(4, 2)
CODED = small_stripes(content(50), FOUR_TWO, 20)
FILE = shard_file(CODED, 5)
KEY = ShardKey(hashlib.sha256(CODED.data).hexdigest(), 5, CODED.table.id)
FIELDS = [
    "hash",
    "size",
    "layout",
    "k",
    "m",
    "index",
    "version",
    "frames",
    "offset",
    "index_crc",
    "blocks",
    "crc",
    "magic",
]


def forged(**change: bytes | int) -> bytes:
    """FILE's footer with some fields changed and its checksum made right again."""
    fields = dict(zip(FIELDS, FOOTER.unpack(FILE[-FOOTER_SIZE:]), strict=True))
    fields.update(change)
    packed = FOOTER.pack(*fields.values())
    return packed[:84] + struct.pack(">I", crc32c(packed[:84])) + packed[88:]


def with_index(rows: bytes, layout: Layout | None = None) -> Footer:
    """A footer that vouches for this index."""
    footer, _ = open_file(FILE)
    return attrs.evolve(
        footer,
        index_crc=crc32c(rows),
        frames=len(rows) // INDEX_ROW.size,
        layout=layout or footer.layout,
    )


class ShardFileTests(SynchronousTestCase):
    """Whole files."""

    @some
    @given(geometries, st.binary(max_size=120), st.integers(1, 50), st.data())
    def test_round_trip(
        self, geometry: Geometry, data: bytes, length: int, draw: st.DataObject
    ) -> None:
        """A file gives back its key, layout, table and every frame."""
        coded = small_stripes(data, geometry, length)
        index = draw.draw(st.integers(0, geometry.shards - 1))
        file = shard_file(coded, index)
        footer, opened = open_file(file)
        digest = hashlib.sha256(data).hexdigest()
        self.assertEqual(footer.key, ShardKey(digest, index, coded.table.id))
        self.assertEqual(footer.layout, coded.table.layout())
        self.assertEqual(opened.table, coded.table)
        self.assertEqual(len(opened), footer.frames)
        self.assertEqual(read_frames(file, opened), list(coded.shards[index]))
        blocks = sum(len(frame.block) for frame in coded.shards[index])
        self.assertEqual(footer.block_bytes, blocks)

    def test_the_wire_bytes_lie_in_the_file(self) -> None:
        """Between prologue and index stands the stream of frames as it travels."""
        footer, _ = open_file(FILE)
        frames = FILE[len(PROLOGUE) : footer.index_offset]
        self.assertEqual(frames, stream(CODED.shards[5]))

    def test_empty_content(self) -> None:
        """The shard of an empty content is a prologue and a footer."""
        file = shard_file(encode(b"", FOUR_TWO), 0)
        self.assertEqual(len(file), len(PROLOGUE) + FOOTER_SIZE)
        footer, index = open_file(file)
        self.assertEqual((footer.frames, footer.layout.size, len(index)), (0, 0, 0))
        self.assertRaises(IndexError, index.frame_span, 0)

    def test_every_flipped_bit(self) -> None:
        """Wherever a bit is flipped, opening the file or reading its frames raises."""
        for at in range(len(FILE)):
            flipped = bytearray(FILE)
            flipped[at] ^= 1 << at % 8
            with self.assertRaises(ShardRotten, msg=f"byte {at}"):
                read_frames(bytes(flipped), open_file(bytes(flipped))[1])

    def test_every_cut(self) -> None:
        """A file that lacks bytes at its end, or has some too many, is refused."""
        for stop in range(len(FILE)):
            self.assertRaises(ShardRotten, open_file, FILE[:stop])
        self.assertRaises(ShardRotten, open_file, FILE + b"\0")
        self.assertRaises(ShardRotten, open_file, FILE + FILE)

    def test_a_frame_in_anothers_place(self) -> None:
        """A whole frame that is not the one in the index is refused."""
        _, index = open_file(FILE)
        (one, length), (two, _) = index.frame_span(0), index.frame_span(1)
        self.assertRaises(ShardRotten, index.frame, 0, FILE[two : two + length])
        other = stream(CODED.shards[4][:1])
        self.assertRaises(ShardRotten, index.frame, 0, other)
        whole = FILE[one : one + length]
        self.assertEqual(index.frame(0, whole), CODED.shards[5][0])
        for cut in (b"", whole[:-1], whole[:8], whole + b"\0"):
            self.assertRaises(ShardRotten, index.frame, 0, cut)

    def test_frames_outside(self) -> None:
        """There is no frame before the first or behind the last."""
        _, index = open_file(FILE)
        for number in (-1, len(index)):
            self.assertRaises(IndexError, index.frame_span, number)
            self.assertRaises(IndexError, index.frame, number, b"")


class FooterTests(SynchronousTestCase):
    """Footers whose checksum is right and whose content is not."""

    def test_forgery_is_a_footer(self) -> None:
        """The forger of these tests gives the footer back when nothing is changed."""
        self.assertEqual(forged(), FILE[-FOOTER_SIZE:])
        self.assertEqual(parse_footer(forged(), len(FILE)), open_file(FILE)[0])

    def test_contradictions(self) -> None:
        """What cannot be together is refused, however right the checksum."""
        footer, _ = open_file(FILE)
        changes: list[dict[str, bytes | int]] = [
            {"version": 2},
            {"k": 0},
            {"m": 29},
            {"index": 6},
            {"frames": footer.frames + 1},
            {"frames": 0xFFFFFFFF},
            {"offset": footer.index_offset + 1},
            {"offset": 0},
            {"blocks": footer.block_bytes + 1},
            {"blocks": footer.block_bytes + 1, "offset": footer.index_offset + 1},
            {"size": footer.frames - 1},
            {"size": footer.frames * STRIPE + 1},
            {"magic": b"ostore!\n"},
        ]
        for change in changes:
            self.assertRaises(ShardRotten, parse_footer, forged(**change), len(FILE))

    def test_too_short(self) -> None:
        """Fewer bytes than a footer has are none."""
        self.assertRaises(ShardRotten, parse_footer, FILE[-FOOTER_SIZE + 1 :], 95)
        self.assertRaises(ShardRotten, parse_footer, b"", 0)

    def test_prologue(self) -> None:
        """A file begins with the one prologue of this version."""
        check_prologue(FILE[: len(PROLOGUE)])
        for wrong in (b"", PROLOGUE[:-1], PROLOGUE + b"\0", bytes(16)):
            self.assertRaises(ShardRotten, check_prologue, wrong)


class IndexTests(SynchronousTestCase):
    """Indexes whose checksum is right and whose content is not."""

    def test_contradictions(self) -> None:
        """Rows that are impossible, out of place or of another layout are refused."""
        footer, _ = open_file(FILE)
        index = FILE[footer.index_offset : -FOOTER_SIZE]
        first, rest = INDEX_ROW.unpack_from(index), index[INDEX_ROW.size :]
        raw, stored, coding, crc, block_crc, length, offset = first
        for row in (
            (raw + 1, stored, coding, crc, block_crc, length, offset),
            (raw, stored, coding, crc + 1, block_crc, length, offset),
            (raw, stored, coding, crc, block_crc, length + 1, offset),
            (raw, stored, coding, crc, block_crc, length, offset + 1),
            (raw, stored, 1, crc, block_crc, length, offset),
        ):
            rows = INDEX_ROW.pack(*row) + rest
            self.assertRaises(ShardRotten, parse_index, with_index(rows), rows)
        self.assertEqual(parse_index(with_index(index), index).table, CODED.table)

    def test_another_layout(self) -> None:
        """An index is of the layout in the footer: its size, k, m and id."""
        footer, _ = open_file(FILE)
        index = FILE[footer.index_offset : -FOOTER_SIZE]
        layout = footer.layout
        for wrong in (
            attrs.evolve(layout, size=51),
            attrs.evolve(layout, id="0" * 32),
            attrs.evolve(layout, parity=3),
            attrs.evolve(layout, data=2),
        ):
            self.assertRaises(ShardRotten, parse_index, with_index(index, wrong), index)

    def test_length(self) -> None:
        """An index of another length than the footer's count is refused."""
        footer, _ = open_file(FILE)
        index = FILE[footer.index_offset : -FOOTER_SIZE]
        for wrong in (index[:-1], index + b"\0", b""):
            self.assertRaises(ShardRotten, parse_index, footer, wrong)


class ShardDraftTests(SynchronousTestCase):
    """The account of a file that is being written."""

    def test_counts(self) -> None:
        """Offset, frames and block bytes follow what is written."""
        draft = ShardDraft()
        self.assertEqual((draft.offset, draft.frames), (len(PROLOGUE), 0))
        for frame in CODED.shards[5]:
            self.assertEqual(draft.append(frame), frame.header())
        self.assertEqual(draft.frames, 3)
        self.assertEqual(draft.block_bytes, 5 + 5 + 3)
        self.assertEqual(draft.offset, len(PROLOGUE) + len(stream(CODED.shards[5])))

    def test_digest(self) -> None:
        """The digest is SHA-256 over the frame headers alone."""
        draft = ShardDraft()
        for frame in CODED.shards[5]:
            draft.append(frame)
        headers = b"".join(frame.header() for frame in CODED.shards[5])
        self.assertEqual(draft.digest(), hashlib.sha256(headers).digest())

    def test_table(self) -> None:
        """The table is computed from the frames, of whichever shard."""
        for shard in CODED.shards:
            draft = ShardDraft()
            for frame in shard:
                draft.append(frame)
            self.assertEqual(draft.table(4, 2), CODED.table)
            self.assertRaises(ShardRefused, draft.table, 3, 2)
            self.assertRaises(ShardRefused, draft.table, 0, 2)

    def test_order(self) -> None:
        """Frames are taken in order, each once, and a refused one is not counted."""
        one, two, three = CODED.shards[5]
        draft = ShardDraft()
        self.assertRaises(ShardRefused, draft.append, two)
        draft.append(one)
        for frame in (one, three):
            self.assertRaises(ShardRefused, draft.append, frame)
        self.assertEqual((draft.frames, draft.block_bytes), (1, 5))

    def test_another_layout(self) -> None:
        """No trailer is given for a layout or key that the frames are not of."""
        draft = ShardDraft()
        for frame in CODED.shards[5]:
            draft.append(frame)
        layout = CODED.table.layout()
        self.assertEqual(
            FILE[-len(draft.trailer(KEY, layout)) :], draft.trailer(KEY, layout)
        )
        for key, wrong in (
            (KEY, attrs.evolve(layout, size=51)),
            (KEY, attrs.evolve(layout, parity=1)),
            (KEY, attrs.evolve(layout, data=5)),
            (KEY, attrs.evolve(layout, id="0" * 32)),
            (attrs.evolve(KEY, layout="0" * 32), layout),
            (attrs.evolve(KEY, index=6), layout),
            (attrs.evolve(KEY, index=-1), layout),
            (attrs.evolve(KEY, hash="ab"), layout),
            (attrs.evolve(KEY, hash="x" * 64), layout),
        ):
            self.assertRaises(ShardRefused, draft.trailer, key, wrong)

    def test_impossible_stripe(self) -> None:
        """A frame of a stripe that cannot be never gets a trailer."""
        draft = ShardDraft()
        draft.append(Frame(0, 5, 4, 0, 0, crc32c(b"x"), b"x"))
        self.assertRaises(ShardRefused, draft.table, 4, 2)

    def test_trailer_from_rows(self) -> None:
        """A trailer packed from the index rows alone is the one the draft gives."""
        footer, _ = open_file(FILE)
        rows = FILE[footer.index_offset : -FOOTER_SIZE]
        self.assertEqual(
            pack_trailer(KEY, CODED.table.layout(), rows), FILE[footer.index_offset :]
        )
        self.assertEqual(footer.index_length, len(rows))
        self.assertEqual(footer.frames * FRAME_HEADER.size, 96)
