"""What may be garbage: decided from what nodes hold and what the metadata refers to.

These are only suspicions. Each is confirmed by the node (its age) and by the metadata
(nobody refers to it) at the moment when something is moved or removed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from ostore.model.layouts import ShardFacts

Held = tuple[str, ShardFacts]
"""A node, and a shard that it holds."""


@attrs.frozen
class Stretch:
    """All contents in one stretch of the hashes: what is held, what is referred to."""

    held: Mapping[str, Sequence[Held]]
    referred: Collection[str]


def standing(shards: Sequence[Held]) -> list[Held]:
    """Those outside garbage."""
    return [each for each in shards if each[1].state != "garbage"]


def orphans(stretch: Stretch, grace: float) -> dict[str, list[Held]]:
    """Contents that no version refers to, all of whose shards are that old.

    A single younger shard says that somebody is at work on the content.
    """
    found = {}
    for hash, shards in stretch.held.items():
        there = standing(shards)
        old = all(facts.age >= grace for _, facts in there)
        if there and old and hash not in stretch.referred:
            found[hash] = there
    return found


def expired(stretch: Stretch, expiry: float) -> dict[str, list[Held]]:
    """Contents of which something lies in garbage for that long, and what."""
    found = {}
    for hash, shards in stretch.held.items():
        old = [
            (node, facts)
            for node, facts in shards
            if facts.state == "garbage" and facts.age >= expiry
        ]
        if old:
            found[hash] = old
    return found
