"""What the segments on a platter come to, read without the code that starts a node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import attrs

from ostore.backends.shards.segments.form import (
    HEADER_SIZE,
    RECORD,
    STANDING,
    Flawed,
    Header,
    Kind,
    Row,
    changed,
    parse_record,
)
from tests.support.disk import Inode

_NAME = re.compile(r"[0-9a-f]{8}\.seg")


@attrs.frozen
class Segment:
    """One segment's durable bytes and the records in them, in their order."""

    name: str
    inode: Inode
    data: bytes
    header: Header
    rows: Sequence[Row]


@attrs.frozen
class Packed:
    """A shard that stands in a segment, its bytes right or not."""

    row: Row
    segment: Segment

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        at = self.row.offset + RECORD.size
        return self.segment.data[at : at + self.row.length]


class Packs:
    """The segments of one disk; those that did not change are not read again."""

    def __init__(self) -> None:
        self._read: dict[int, Segment] = {}

    def standing(self, names: Mapping[str, Inode]) -> Iterator[Packed]:
        """Each shard that a start would find, and not in garbage."""
        segments = self.segments(names)
        shards: dict[tuple[bytes, int], Packed] = {}
        last: dict[tuple[bytes, int], Row] = {}
        for segment in segments:
            for row in segment.rows:
                about = row.hash, row.birth
                if row.length:
                    shards[about] = Packed(row, segment)
                last[about] = changed(last.get(about, row), row)
        for about, packed in shards.items():
            if last[about].kind in STANDING - {Kind.BAD}:
                yield packed

    def segments(self, names: Mapping[str, Inode]) -> list[Segment]:
        """Those that count: without what another replaces, or says was given up."""
        known = [
            segment
            for name, inode in sorted(names.items())
            if _NAME.fullmatch(name)
            and (segment := self._segment(name, inode)) is not None
        ]
        replaced = {source for each in known for source in each.header.sources}
        ends = {each.header.before: each.header.before_end for each in known}
        found = []
        for each in known:
            number = each.header.segment
            if number in replaced:
                continue
            end = ends.get(number, len(each.data))
            rows = [row for row in each.rows if row.offset < end]
            found.append(attrs.evolve(each, rows=rows))
        return found

    def _segment(self, name: str, inode: Inode) -> Segment | None:
        known = self._read.get(inode.number)
        data = inode.durable_data
        if known is not None and known.data is data:
            return known
        try:
            header = Header.from_bytes(data[:HEADER_SIZE])
        except Flawed:
            return None
        segment = Segment(name, inode, data, header, list(_rows(data, header)))
        self._read[inode.number] = segment
        return segment


def _rows(data: bytes, header: Header) -> Iterator[Row]:
    """Records by their marks; those with wrong bytes are damaged, and there."""
    at = data.find(header.mark, HEADER_SIZE)
    while at >= 0:
        with suppress(Flawed):
            row, _ = parse_record(data[at : at + RECORD.size], header.mark, at)
            if row.segment == header.segment and at + row.span <= len(data):
                yield row
        at = data.find(header.mark, at + 1)
