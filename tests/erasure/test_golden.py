"""Bytes that must never change: what is on disks was written in them."""

from __future__ import annotations

import base64
import hashlib

from twisted.trial.unittest import SynchronousTestCase

from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Geometry
from tests.erasure.cases import (
    CODECS,
    encode,
    open_file,
    read_frames,
    shard_file,
    small_stripes,
)

FOUR_TWO = Geometry(4, 2)
TEXT = b"this object will be separate to 4+2 shards"
PATTERN = bytes(i % 251 for i in range(100_000))

# The parity rows of zfec's 4 + 2 matrix.
OUR_ROWS = ((119, 64, 56, 14), (199, 167, 13, 108))

# SHA-256, in base64, of the bare bytes of our six shards.
OURS = {
    TEXT: [
        "XVFHp5/5kZ89051XQo6UEkWW8OGzyXwLWS4Ln9f0Ncg=",
        "DjgCAigrm/BMDzVlPdjPp+LZMHY9ktSKNX9A9eQShAQ=",
        "pV2SP/i3jK9KGs5BtQS++TJEecq8Z7/YaUnSRPU1IX8=",
        "9cMmcwZQE+dlbz27iekkG2/L4raiYzUUSvcbfE9xUKw=",
        "JwUz+x6CQ9sPFXbtJYFGyh51E+AbRpToc4vCJ/p1o0c=",
        "svIT/2Qs0yoFluNndXkmy88UAcqxxA6nRr3zIaVx8hA=",
    ],
    PATTERN: [
        "GcstpcgL0+Yvz7XgBB+w4wN0zG2gbORAOq2dOJ2V62Q=",
        "mbcHIHoKGeEgFr4qy65o5TN+KEzBdiSpE6GFsHiw8fk=",
        "l6tg11hKQ+YYjwospTAYyF3YW8k45fTiyFSeVgFsjrI=",
        "Xb697qNhaHk20sF7YgIGttFdEPugJq4/aPcNc9BIrfw=",
        "SHVh/ejvbNFmVnUw1G4hugZQ2QI7Ju7X9mLmo6obT3U=",
        "oVTvNpaOfApVEHaBtabAbnC2j5W4NwIpczv74gaUEIk=",
    ],
}
LAYOUTS = {
    b"": "73cb343fa2921bc6af5e8db31b864849",
    TEXT: "de21d8b9f68cb0a11ea3560855ad3e51",
    PATTERN: "0bbe3b40b9ff0dea952b356fffbf06d2",
}
FRAME_HEX = "6f46010000000007000003e800000384000000e10102030405060708f51900dc"
TEXT_FRAME_HEX = "6f460000000000000000002a0000002a0000000bd196450ee694ca0169fbbeed"
TABLE_HEX = "4f53543104020000000000010000002a0000002a00d196450ee38d9b18"
FILE_HEX = (
    "896f73746f72650a00010000d73565266f460000000000000000001e0000001e"
    "0000000856b91c7c547cb6f205a20f218541e1870ddd74746f46000000000001"
    "0000000c0000000c00000003816965df3991dd05aee2bfb88330090000001e00"
    "00001e0056b91c7c547cb6f20000000800000000000000100000000c0000000c"
    "00816965df3991dd05000000030000000000000038301331587acf32cb8e05a5"
    "581e4c12719411c9344c43288aa76a1e9692d9cdaf000000000000002a07483f"
    "0ab8770c9064fec4e5dfde1a6c0402040100000002000000000000005b0471fb"
    "5a000000000000000b228b101f6f73746f7265890a"
)
EMPTY_HEX = (
    "896f73746f72650a00010000d7356526e3b0c44298fc1c149afbf4c8996fb924"
    "27ae41e4649b934ca495991b7852b855000000000000000073cb343fa2921bc6"
    "af5e8db31b864849040200010000000000000000000000100000000000000000"
    "00000000d737744c6f73746f7265890a"
)

# SHA-256, in base64, of the six shards that the Go implementation in the book on
# distributed object stores makes of the same contents.
BOOK = {
    TEXT: [
        "XVFHp5/5kZ89051XQo6UEkWW8OGzyXwLWS4Ln9f0Ncg=",
        "DjgCAigrm/BMDzVlPdjPp+LZMHY9ktSKNX9A9eQShAQ=",
        "pV2SP/i3jK9KGs5BtQS++TJEecq8Z7/YaUnSRPU1IX8=",
        "9cMmcwZQE+dlbz27iekkG2/L4raiYzUUSvcbfE9xUKw=",
        "i8xiyIwSO2cRJwnmkO4ieUV9v26H6e8tu5Y/3Op/4zE=",
        "wGW6r6pLkHAJC2GlYxfk45FdUTTv31c57INXIUjmhZ8=",
    ],
}
BOOK_ROWS = ((27, 28, 18, 20), (28, 27, 20, 18))


def product(a: int, b: int) -> int:
    """The product of two bytes in GF(2^8) with the polynomial 0x11D."""
    result = 0
    while b:
        if b & 1:
            result ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return result


def combined(row: tuple[int, ...], blocks: list[bytes]) -> bytes:
    """One parity block: the data blocks times a row of the matrix."""
    tables = [bytes(product(factor, value) for value in range(256)) for factor in row]
    result = 0
    for table, block in zip(tables, blocks, strict=True):
        result ^= int.from_bytes(block.translate(table), "big")
    return result.to_bytes(len(blocks[0]), "big")


def shards_of(data: bytes) -> list[bytes]:
    """The bare bytes of all six shards."""
    coded = encode(data, FOUR_TWO)
    return [b"".join(frame.block for frame in shard) for shard in coded.shards]


def digest(data: bytes) -> str:
    """SHA-256 in base64."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


class GoldenTests(SynchronousTestCase):
    """The format of record."""

    def test_blocks(self) -> None:
        """Known contents give known data and parity blocks."""
        for data, expected in OURS.items():
            self.assertEqual([digest(shard) for shard in shards_of(data)], expected)

    def test_parity_rows(self) -> None:
        """The 4 + 2 code is this matrix; any provider must have the same one."""
        units = [bytes(i == j for j in range(4)) for i in range(4)]
        rows = tuple(tuple(row) for row in CODECS.get(FOUR_TWO).encode(units))
        self.assertEqual(rows, OUR_ROWS)
        data = shards_of(TEXT)
        for row, parity in zip(OUR_ROWS, data[4:], strict=True):
            self.assertEqual(combined(row, data[:4]), parity)

    def test_frame_header(self) -> None:
        """A known frame has this header."""
        frame = Frame(7, 1000, 900, 1, 0x01020304, 0x05060708, b"x" * 225)
        self.assertEqual(frame.header().hex(), FRAME_HEX)
        header = encode(TEXT, FOUR_TWO).shards[5][0].header()
        self.assertEqual(header.hex(), TEXT_FRAME_HEX)

    def test_layout_ids(self) -> None:
        """Known contents have these layouts."""
        for data, expected in LAYOUTS.items():
            self.assertEqual(encode(data, FOUR_TWO).table.id, expected)

    def test_table(self) -> None:
        """The table of a known content travels as these bytes."""
        self.assertEqual(encode(TEXT, FOUR_TWO).table.to_bytes().hex(), TABLE_HEX)

    def test_shard_file(self) -> None:
        """A known content in stripes of 30 bytes gives this file, which can be read."""
        coded = small_stripes(TEXT, FOUR_TWO, 30)
        self.assertEqual(shard_file(coded, 4).hex(), FILE_HEX)
        file = bytes.fromhex(FILE_HEX)
        footer, index = open_file(file)
        self.assertEqual(footer.key.hash, hashlib.sha256(TEXT).hexdigest())
        self.assertEqual(read_frames(file, index), list(coded.shards[4]))

    def test_empty_file(self) -> None:
        """The shard 0 of an empty content is this file."""
        file = shard_file(encode(b"", FOUR_TWO), 0)
        self.assertEqual(file.hex(), EMPTY_HEX)


class BookTests(SynchronousTestCase):
    """The code of the Go implementation is another one than ours."""

    def test_same_data_other_parity(self) -> None:
        """Data shards are the same; parity comes from another matrix and differs."""
        for data, expected in BOOK.items():
            ours = shards_of(data)
            theirs = [*ours[:4], *(combined(row, ours[:4]) for row in BOOK_ROWS)]
            self.assertEqual([digest(shard) for shard in theirs], expected)
            for index in (4, 5):
                self.assertNotEqual(ours[index], theirs[index])
