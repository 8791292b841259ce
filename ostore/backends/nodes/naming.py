"""What a caller writes into the target of a request: checked, never raw."""

from __future__ import annotations

import re

from ostore.backends.nodes.asking import Peer
from ostore.model.errors import Malformed, ShardRefused
from ostore.model.layouts import MAX_SHARDS, Layout, ShardKey

_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")


def checked_hash(hash: str) -> str:
    """The hash. Raises Malformed."""
    if not _HASH.fullmatch(hash):
        raise Malformed("a hash has 64 lower-case hex digits")
    return hash


def checked_id(id: str) -> str:
    """The id of a layout, an upload or a token. Raises Malformed."""
    if not _ID.fullmatch(id):
        raise Malformed("an id has 32 lower-case hex digits")
    return id


def shard_name(key: ShardKey) -> str:
    """`{hash}.{index}`; all of the key is checked. Raises Malformed."""
    checked_id(key.layout)
    if not 0 <= key.index < MAX_SHARDS:
        raise Malformed(f"a shard's index is at least 0 and below {MAX_SHARDS}")
    return f"{checked_hash(key.hash)}.{key.index}"


def checked(key: ShardKey, layout: Layout) -> str:
    """The name under which a shard is stored. Raises ShardRefused, Malformed."""
    name = shard_name(key)
    if key.layout != layout.id or key.index >= layout.shards:
        raise ShardRefused(f"the layout {layout.header()} has no such shard")
    return name


def old_enough(age: float) -> str:
    """The part of a query that says how old a shard must be; nothing for 0."""
    return f"&age={age:.3f}" if age else ""


def of_epoch(epoch: int | None) -> str:
    """The part of a query that says under which lease an order is given."""
    return "" if epoch is None else f"&epoch={epoch:d}"


async def naming(peer: Peer, deadline: float | None, age: float) -> str:
    """The part of a query that says until when, and how old, a shard may be named.

    `deadline` is by our own clock.
    """
    query = old_enough(age)
    if deadline is not None:
        by_its_clock = await peer.by_its_clock(deadline)
        query += f"&deadline={max(0, int(by_its_clock * 1000))}"
    return query
