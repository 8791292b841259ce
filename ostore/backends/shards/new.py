"""A whole shard that is to be kept."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ostore.erasure.geometry import Buffer
from ostore.model.layouts import Layout, ShardKey


@attrs.frozen
class NewShard:
    """The bytes of a shard's file, in parts, and how it is to be named.

    Not behind the `deadline` (seconds since 1970), and `age` seconds old.
    """

    key: ShardKey
    layout: Layout
    parts: Sequence[Buffer]
    deadline: float | None
    age: float
