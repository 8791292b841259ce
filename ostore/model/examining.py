"""What is wrong with one content, seen from everything that nodes hold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from ostore.model.census import Census, Standing, distinct
from ostore.model.collecting import Held, standing
from ostore.model.layouts import Holding, Layout, ShardKey


@attrs.frozen
class Finding:
    """The layout with most shards, what it lacks, and what is there beside it.

    `spots` maps each missing index to a node that has it in a bad state, or to "".
    `left` counts distinct shards on distinct nodes; `layout` is None when there is
    none. `surplus` counts shards that are not needed once nothing is missing.
    """

    layout: Layout | None = None
    spots: Mapping[int, str] = attrs.field(factory=dict)
    left: int = 0
    surplus: int = 0


def examine(shards: Sequence[Held]) -> Finding:
    """Count one content."""
    there = standing(shards)
    found = standings(there)
    if not found:
        return Finding()
    best = max(found, key=lambda each: (len(each.spread), each.layout.id))
    layout, spread = best.layout, best.spread
    bad = {
        facts.index: node
        for node, facts in there
        if facts.state == "bad" and facts.layout.id == layout.id
    }
    missing = [index for index in range(layout.shards) if index not in spread]
    return Finding(
        layout,
        {index: bad.get(index, "") for index in missing},
        len(spread),
        len(there) - len(spread),
    )


def standings(shards: Sequence[Held]) -> list[Standing]:
    """The whole shards by layout, most indices first."""
    census = Census(frozenset(node for node, _ in shards))
    for node in census.asked:
        whole = (f for n, f in shards if n == node and f.state == "whole")
        census.answer(node, Holding("have", tuple(whole)))
    return census.standings()


def keepers(
    shards: Sequence[Held], preferred: Sequence[str]
) -> Mapping[ShardKey, str] | None:
    """Which shards of one content are enough, each on a node of its own.

    None while no layout has all its shards. Of two alike the one on the node that comes
    first in `preferred` stays, whoever decides.
    """
    order = {node: number for number, node in enumerate(preferred)}
    for each in standings(standing(shards)):
        pairs = [(i, node) for i, nodes in each.places.items() for node in nodes]
        pairs.sort(key=lambda pair: (order.get(pair[1], len(order)), pair))
        spread = distinct(pairs)
        if len(spread) == each.layout.shards:
            hash = next(facts.hash for _, facts in shards)
            return {
                ShardKey(hash, index, each.layout.id): node
                for index, node in spread.items()
            }
    return None
