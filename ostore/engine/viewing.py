"""Who is there at a moment, worked out once for all who ask before that changes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ostore.model.nodes import Member, Members
from ostore.model.placement import Candidate, candidates

UNTRUSTED = frozenset({"suspect", "down", "conflict"})
"""States of nodes on which nothing is looked for without asking first."""


@attrs.frozen
class View:
    """The nodes of ours as of one moment, and the seconds until which that holds.

    `live` were heard in time, suspects included; `asked` are their ids, `suspects`
    those of them that are suspect. On `trusted` ones things are looked for without
    asking first; `draining` ones are being emptied.
    """

    members: Members
    ours: tuple[bool, ...]
    until: float
    live: Sequence[Member]
    asked: frozenset[str]
    suspects: frozenset[str]
    trusted: frozenset[str]
    draining: frozenset[str]
    candidates: Sequence[Candidate]

    def holds(self, members: Members, ours: tuple[bool, ...], now: float) -> bool:
        """Whether it is what view() would give now."""
        return self.members is members and now <= self.until and self.ours == ours


def view(members: Members, ours: tuple[bool, ...], now: float) -> View:
    """What they come to at `now` (monotonic seconds); `ours` are those that belong.

    Nothing changes by itself but that a node falls silent.
    """
    timeout, everyone = members.timeout, members.by_id
    states = {node: member.state(now, timeout) for node, member in everyone.items()}
    mine = [node for node, one in zip(everyone, ours, strict=True) if one]
    live = [everyone[n] for n in mine if states[n] not in ("down", "conflict")]
    heard = (m.heard for node, m in everyone.items() if states[node] != "down")
    found = {each.id: each for each in candidates(members, now)}
    return View(
        members,
        ours,
        min(heard, default=float("inf")) + timeout,
        live,
        frozenset(m.beat.node for m in live),
        frozenset(m.beat.node for m in live if m.suspected is not None),
        frozenset(node for node in mine if states[node] not in UNTRUSTED),
        frozenset(node for node, state in states.items() if state == "draining"),
        [found[node] for node in mine],
    )
