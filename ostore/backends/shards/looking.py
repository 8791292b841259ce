"""Which of some shards are whole, by looking at each."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence

from ostore.model.errors import ShardMissing, ShardRotten
from ostore.model.layouts import Holding, ShardFacts, ShardKey
from ostore.streaming.pools import Workers

Look = Callable[[ShardKey], ShardFacts]
"""Blocks; raises ShardMissing, ShardRotten, NodeUnreachable."""

Doubtful = Sequence[tuple[ShardKey, bool]]
"""Shards that are not whole, and of each whether it is there, but rotten."""


async def look_at(
    workers: Workers, keys: Sequence[ShardKey], look: Look
) -> tuple[Sequence[ShardFacts], Doubtful]:
    """Facts of the whole ones, and the others."""
    found: MutableSequence[ShardFacts] = []
    doubtful: MutableSequence[tuple[ShardKey, bool]] = []
    for key in keys:
        try:
            found.append(await workers.run(look, key))
        except ShardMissing:
            doubtful.append((key, False))
        except ShardRotten:
            doubtful.append((key, True))
    return found, doubtful


async def look_twice(
    workers: Workers, keys: Sequence[ShardKey], look: Look
) -> tuple[Sequence[ShardFacts], Doubtful]:
    """The same, sure of what it doubts.

    A root that was away may come back between the look at a shard and the look at
    the root.
    """
    found, doubtful = await look_at(workers, keys, look)
    if doubtful:
        again = [key for key, _ in doubtful]
        more, doubtful = await look_at(workers, again, look)
        found = [*found, *more]
    return found, doubtful


def holding(found: Sequence[ShardFacts]) -> Holding:
    """What a node says that found these."""
    return Holding("have" if found else "none", tuple(found))
