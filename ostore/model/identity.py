"""Whether metadata and storage roots belong together, decided before anything else.

The cluster id and its epoch lie in the metadata and in every node's root. A
metadata store that lost its memory must never be taken for an empty one: to it,
every shard would be garbage.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ostore.model.versions import ClusterFacts


@attrs.frozen
class Verdict:
    """What to do with these roots.

    `refuse` is why nothing may start at all, or empty. `create`: neither side has an
    id, make one. `adopt` are roots that may take the metadata's id, `foreign` those
    that must not be used; `brakes` are sentences for /health/ready, each of which
    also forbids every destructive job.
    """

    refuse: str = ""
    create: bool = False
    adopt: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    brakes: tuple[str, ...] = ()


def judge(
    known: ClusterFacts | None, roots: Mapping[str, ClusterFacts | None]
) -> Verdict:
    """Compare the metadata's cluster with that of each root, by the root's name."""
    bearing = {name: facts for name, facts in roots.items() if facts is not None}
    if known is None:
        if bearing:
            name = min(bearing)
            return Verdict(
                refuse=f"{name} belongs to cluster {bearing[name].id}, but the metadata "
                "knows of no cluster: bring its file back, or start on an empty root"
            )
        return Verdict(create=True, adopt=tuple(roots))
    foreign = tuple(name for name, facts in bearing.items() if facts.id != known.id)
    brakes = [
        f"cluster: {name} belongs to another cluster ({bearing[name].id})"
        for name in foreign
    ]
    for name, facts in bearing.items():
        if name not in foreign and facts.epoch > known.epoch:
            brakes.append(
                f"cluster: {name} has seen epoch {facts.epoch}, the metadata only "
                f"{known.epoch}: it is an older copy"
            )
    behind = tuple(
        name
        for name, facts in roots.items()
        if facts is None or (name not in foreign and facts.epoch < known.epoch)
    )
    return Verdict(adopt=behind, foreign=foreign, brakes=tuple(brakes))
