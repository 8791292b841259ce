"""Which node takes which shard: a pure decision that everyone makes alike.

Weighted rendezvous hashing (Thaler and Ravishankar 1998; weights after Mosch and
Schindelhauer): each node draws a number from the key and its own id, and the
greatest win. A node that comes or goes moves only what it gains or loses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256

import attrs

from ostore.model.errors import NoSpace, TooFewNodes
from ostore.model.nodes import Members

WRITABLE = frozenset({"up", "scanning"})
"""States in which a node takes new shards."""


@attrs.frozen
class Candidate:
    """A node as placement sees it; `state` is never `suspect`, that is a flag."""

    id: str
    zone: str
    free: int
    total: int
    state: str = "up"
    suspect: bool = False

    @property
    def writable(self) -> bool:
        """Whether its state lets it take new shards."""
        return self.state in WRITABLE


def candidates(members: Members, now: float) -> list[Candidate]:
    """Everyone who was ever heard, as of `now` (monotonic seconds)."""
    found = []
    for member in members.by_id.values():
        beat, state = member.beat, member.state(now, members.timeout)
        suspect = state == "suspect"
        found.append(
            Candidate(
                id=beat.node,
                zone=beat.zone,
                free=beat.free,
                total=beat.total,
                state=beat.state if suspect else state,
                suspect=suspect,
            )
        )
    return found


def takers(quorum: int, known: Sequence[Candidate]) -> list[Candidate]:
    """Those that may take shards: suspects only when there is no quorum without them.

    Raises TooFewNodes, or NoSpace when there are enough nodes but too many are full.
    """
    able = [each for each in known if each.writable]
    found = [each for each in able if not each.suspect]
    if len(found) < quorum:
        found = able
    if len(found) < quorum:
        full = sum(each.state == "full" for each in known)
        if full and len(found) + full >= quorum:
            raise NoSpace("too many nodes are full to take this content")
        raise TooFewNodes(
            f"{quorum} nodes are needed for a write, {len(found)} can take shards"
        )
    return found


def place(
    key: str,
    shards: int,
    quorum: int,
    candidates: Iterable[Candidate],
    exclude: frozenset[str] = frozenset(),
) -> dict[int, str]:
    """Shard index -> node, each node at most once, spread over zones first.

    With fewer nodes than shards the highest indices are left out. Suspects are
    taken only when there is no quorum without them, and then last. Raises
    TooFewNodes, or NoSpace when there are enough nodes but too many are full.
    """
    known = [each for each in candidates if each.id not in exclude]
    found = takers(quorum, known)
    best = sorted(found, key=lambda each: (each.suspect, -_score(key, each), each.id))
    # A node's turn is how many of its own zone are better: all firsts go before
    # any second, which fills the zones evenly.
    seen: Counter[str] = Counter()
    turns = []
    for each in best:
        turns.append((each.suspect, seen[each.zone]))
        seen[each.zone] += 1
    order = sorted(range(len(best)), key=turns.__getitem__)
    return {index: best[at].id for index, at in enumerate(order[:shards])}


def rank(key: str, candidates: Iterable[Candidate]) -> list[str]:
    """All these nodes, best first, by nothing but the key and their ids.

    Without regard to space, state or suspicion, on which two observers may differ.
    """
    return sorted(
        {each.id for each in candidates}, key=lambda node: (-_draw(key, node), node)
    )


def _draw(key: str, node: str) -> float:
    """A number in (0, 1), strictly: 52 bits and a half."""
    digest = sha256(f"{key}\0{node}".encode()).digest()
    return ((int.from_bytes(digest[:8]) >> 12) + 0.5) / (1 << 52)


def _score(key: str, each: Candidate) -> float:
    return -max(1, each.free) / math.log(_draw(key, each.id))
