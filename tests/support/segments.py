"""The shards in a node's segments, read beside the node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import Files
from ostore.backends.shards.paths import Paths
from ostore.backends.shards.segments.folder import Folder
from ostore.backends.shards.segments.form import RECORD, STANDING, Row, unpacked
from ostore.backends.shards.segments.loader import contents_of
from ostore.backends.shards.segments.rows import Rows


def records(node: Path) -> dict[str, bytes]:
    """Name, as that of a shard file, -> bytes of each that stands in a segment.

    What is written or copied meanwhile may be missing.
    """
    folder = Folder(Disk(Files(), Paths(str(node))))
    numbers, _, _ = folder.names() if node.is_dir() else ([], (), 0)
    rows, changes = Rows(), list[Row]()
    for number in numbers:
        try:
            index = contents_of(folder, number).index
        except FileNotFoundError:
            continue
        for row in unpacked(index.shards):
            known = rows.get(row.hash, row.birth)
            if known is None or known.segment < row.segment:
                rows.set(row)
        changes += unpacked(index.changes)
    for change in changes:
        rows.change(change)
    return dict(_read(folder, [row for row in rows.all() if row.kind in STANDING]))


def _read(folder: Folder, rows: Sequence[Row]) -> list[tuple[str, bytes]]:
    found = []
    for row in rows:
        try:
            data = Path(folder.segment(row.segment)).read_bytes()
        except FileNotFoundError:
            continue
        at = row.offset + RECORD.size
        name = f"{row.key.hash}.{row.number}.{row.key.layout}"
        found.append((name, data[at : at + row.length]))
    return found
