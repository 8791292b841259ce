"""Values of the model to and from columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ostore.model.layouts import Layout
from ostore.model.versions import NO_HEADERS, NewVersion, Version

Row = tuple[Any, ...]

COLUMNS = (
    "bucket, name, number, hash, size, created, deleted, put_id, headers, "
    "data, parity, raw, layout, missing"
)
"""What `version_of` reads and `row_of` gives, in this order."""

GREATEST = 2**63 - 1
"""The greatest integer a column holds."""


def version_of(row: Row) -> Version:
    """The version in a row of COLUMNS."""
    (
        bucket, name, number, hash, size, created, deleted, put_id, headers,
        data, parity, raw, layout, missing,
    ) = row  # fmt: skip
    return Version(
        name=name,
        number=number,
        hash=hash,
        size=size,
        created=created,
        deleted=bool(deleted),
        put_id=put_id,
        bucket=bucket,
        headers=NO_HEADERS if headers == "{}" else json.loads(headers),
        layout=None if layout is None else Layout(data, parity, raw, layout),
        degraded=indices(missing),
    )


def row_of(new: NewVersion, number: int, created: int) -> Row:
    """The row of COLUMNS for what is about to be written."""
    layout = new.layout
    return (
        new.bucket,
        new.name,
        number,
        new.hash,
        new.size,
        created,
        int(new.deleted),
        new.put_id,
        json.dumps(dict(new.headers), separators=(",", ":")),
        *(
            (None, None, None, None)
            if layout is None
            else (layout.data, layout.parity, layout.size, layout.id)
        ),
        bits(new.degraded),
    )


def bits(indices: Iterable[int]) -> int:
    """Shard indices as a set of bits."""
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask


def indices(mask: int) -> tuple[int, ...]:
    """The shard indices in a set of bits, ascending."""
    if not mask:
        return ()
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def successor(prefix: str) -> str | None:
    """The least string behind all that begin with `prefix`, in UTF-8 order.

    None when there is none; so for the empty prefix.
    """
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1]) + 1
        if code == 0xD800:  # no UTF-8 for the surrogates
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[: end - 1] + chr(code)
    return None
