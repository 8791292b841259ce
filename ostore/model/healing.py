"""What to rebuild, where, and when to wait: decided from a census."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from ostore.model.census import Census, Standing


@attrs.frozen
class Plan:
    """What one look at a content calls for.

    `targets` maps each index to rebuild to the node that shall hold it; `later` are
    indices that may still come back by themselves or have no node to go to; `whole`
    says that all k+m shards stand on distinct nodes.
    """

    targets: Mapping[int, str]
    later: tuple[int, ...] = ()
    whole: bool = False
    hopeless: bool = False


def plan(
    census: Census,
    standing: Standing | None,
    spots: Mapping[int, str],
    ranked: Sequence[str],
    *,
    nodes_away: bool,
) -> Plan:
    """Decide the repair of one layout.

    `spots` are indices whose node is known to be up without them; `ranked` are nodes
    that may take shards, best first, so that racing repairers choose the same;
    `nodes_away` says that a node left too recently to be given up. Nothing is decided
    while any node is unsure or silent: what it holds is not missing. A node that holds
    none of the content is best; else one may take a shard whose own stand elsewhere
    too, or a content with such doubles could never be whole on as many nodes as it has
    shards.
    """
    if not census.certain:
        return Plan({}, () if standing is None else standing.missing)
    if standing is None or not standing.readable:
        return Plan({}, hopeless=True)
    absent = standing.absent
    if not absent:
        return Plan({}, whole=True)
    relied_on = set(standing.spread.values())
    free = [node for node in ranked if node not in standing.nodes]
    free += [n for n in ranked if n in standing.nodes and n not in relied_on]
    targets: dict[int, str] = {}
    later: list[int] = []
    for index in absent:
        own = spots.get(index, "")
        if own in free:
            targets[index] = own
            free.remove(own)
    for index in absent:
        if index in targets:
            continue
        if nodes_away or not free:
            later.append(index)
        else:
            targets[index] = free.pop(0)
    return Plan(targets, tuple(later))
