"""What forbids every destructive job: doubt about whose metadata this is, or the time.

A store that lost its metadata, or was given an older copy or another cluster's, sees
only garbage in its nodes. It must never act on that.
"""

from __future__ import annotations

from collections.abc import Sequence

from ostore.model.identity import judge
from ostore.model.nodes import Heartbeat
from ostore.model.versions import ClusterFacts

MAX_SKEW = 60.0
"""Seconds that the clocks of services may lie apart."""
SHARE = 0.05
"""The part of all contents that one run may move,"""
FEW = 100
"""or so many, where that is more."""


Beats = Sequence[tuple[Heartbeat, float]]
"""The last heartbeats of the live nodes, and the seconds since then."""


def whose_metadata(known: ClusterFacts | None, beats: Beats) -> list[str]:
    """Why this may not be the cluster's metadata as it is now, a sentence each.

    The heartbeats must have been taken before `known` was read.
    """
    roots = {
        beat.node: ClusterFacts(beat.cluster, beat.epoch) if beat.cluster else None
        for beat, _ in beats
    }
    verdict = judge(known, roots)
    if verdict.refuse or known is None:
        return [f"cluster: {verdict.refuse or 'the metadata knows of no cluster'}"]
    return list(verdict.brakes)


def too_doubtful(beats: Beats, wall: float) -> list[str]:
    """Why the nodes and clocks of this moment are not to be relied on."""
    found = [
        f"nodes: {beat.node} still counts its shards"
        for beat, _ in beats
        if beat.state == "scanning"
    ]
    clocks = [0.0, *(beat.time + ago - wall for beat, ago in beats)]
    if (skew := max(clocks) - min(clocks)) > MAX_SKEW:
        found.append(f"clocks: those of the services lie {skew:.0f} s apart")
    return sorted(found)


def too_many(contents: int, of: int) -> bool:
    """Whether a run that would move so many contents must be asked for twice."""
    return contents > max(FEW, SHARE * of)
