"""Who holds what of one content: answers in, a picture out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from ostore.model.layouts import Holding, Layout, ShardFacts


def distinct(pairs: Iterable[tuple[int, str]]) -> dict[int, str]:
    """The most indices that can stand on different nodes at once: index -> node.

    A node that holds two indices counts for one of them only, because it fails
    as a whole (maximum bipartite matching by augmenting paths).
    """
    holders: dict[int, list[str]] = {}
    for index, node in pairs:
        holders.setdefault(index, []).append(node)
    taken: dict[str, int] = {}

    def give(index: int, tried: set[str]) -> bool:
        for node in holders[index]:
            if node in tried:
                continue
            tried.add(node)
            if node not in taken or give(taken[node], tried):
                taken[node] = index
                return True
        return False

    for index in sorted(holders):
        give(index, set())
    return {index: node for node, index in sorted(taken.items(), key=lambda t: t[1])}


@attrs.frozen
class Standing:
    """The shards of one layout, wherever they are: index -> the nodes that hold it."""

    layout: Layout
    places: Mapping[int, tuple[str, ...]]
    oldest: float = 0.0

    @property
    def readable(self) -> bool:
        """Whether k different indices are there."""
        return len(self.places) >= self.layout.data

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices that nobody holds."""
        return tuple(i for i in range(self.layout.shards) if i not in self.places)

    @property
    def spread(self) -> dict[int, str]:
        """Distinct indices on distinct nodes, as many as there are."""
        return distinct(
            (index, node) for index, nodes in self.places.items() for node in nodes
        )

    @property
    def absent(self) -> tuple[int, ...]:
        """Indices without a node of their own: that nobody holds, or one with others."""
        spread = self.spread
        return tuple(i for i in range(self.layout.shards) if i not in spread)

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that holds some shard of this layout."""
        return frozenset(node for nodes in self.places.values() for node in nodes)


@attrs.define
class Census:
    """Collects the answers to one locate; made by the asker, dropped when it ends.

    `asked` are the live nodes; `suspects` those of them that nobody waits for
    unless a read would fail without them.
    """

    asked: frozenset[str]
    suspects: frozenset[str] = frozenset()
    answers: dict[str, Holding] = attrs.field(factory=dict)

    def answer(self, node: str, holding: Holding) -> None:
        """Take in what one node says; a stranger's answer counts as well."""
        self.answers[node] = holding

    @property
    def silent(self) -> frozenset[str]:
        """Live nodes that have not answered."""
        return self.asked - self.answers.keys()

    @property
    def unsure(self) -> frozenset[str]:
        """Nodes that could not say; never the same as none."""
        return frozenset(n for n, h in self.answers.items() if h.state == "unsure")

    @property
    def certain(self) -> bool:
        """Whether every live node has said have or none."""
        return not self.silent and not self.unsure

    def standings(self) -> list[Standing]:
        """One entry a layout: most indices first, then by layout id."""
        if not any(holding.shards for holding in self.answers.values()):
            return []
        layouts: dict[str, Layout] = {}
        places: dict[str, dict[int, list[str]]] = {}
        oldest: dict[str, float] = {}
        for node, shard in self._shards():
            key = shard.layout.id
            layouts[key] = shard.layout
            nodes = places.setdefault(key, {}).setdefault(shard.index, [])
            if node not in nodes:
                nodes.append(node)
            oldest[key] = max(oldest.get(key, 0.0), shard.age)
        found = [
            Standing(
                layouts[key],
                {index: tuple(nodes) for index, nodes in sorted(places[key].items())},
                oldest[key],
            )
            for key in places
        ]
        return sorted(found, key=lambda s: (-len(s.places), s.layout.id))

    def standing(self, layout: str) -> Standing | None:
        """The entry of that layout id, if any node has it."""
        return next((s for s in self.standings() if s.layout.id == layout), None)

    def whole(self) -> bool:
        """Whether all k+m shards of one layout are known."""
        return any(not s.missing for s in self.standings())

    def done(self) -> bool:
        """Whether a writer need not wait any longer."""
        return not (self.silent - self.suspects) or self.whole()

    def readable(self) -> bool:
        """Whether some layout has k shards."""
        return any(s.readable for s in self.standings())

    def _shards(self) -> Iterable[tuple[str, ShardFacts]]:
        for node in sorted(self.answers):
            for shard in self.answers[node].shards:
                yield node, shard
