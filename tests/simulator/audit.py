"""What the cluster must keep: looked up on the platters, behind everybody's back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import attrs

from ostore.engine.recording import MARKING
from ostore.model.layouts import ShardKey
from ostore.model.versions import Version
from ostore.streaming.tasks import start
from tests.simulator.cluster import Cluster, NodeHost
from tests.simulator.contents import layouts
from tests.simulator.disks import Spot

DATA, PARITY = 4, 2
Mark = tuple[int, int]
"""What tells a shard from all others on its disk."""
Places = Mapping[int, Set[str]]
"""Index -> names of the nodes on which that shard is durable and right."""


def spread(places: Places) -> int:
    """How many indices can stand on nodes of their own."""
    taken: dict[str, int] = {}

    def give(index: int, tried: set[str]) -> bool:
        for node in sorted(places[index]):
            if node not in tried:
                tried.add(node)
                if node not in taken or give(taken[node], tried):
                    taken[node] = index
                    return True
        return False

    return sum(give(index, set()) for index in sorted(places))


@attrs.define
class Kept:
    """One content on all platters: places by layout id."""

    layouts: dict[str, dict[int, set[str]]] = attrs.field(factory=dict)

    def add(self, key: ShardKey, node: str) -> None:
        """One more shard."""
        places = self.layouts.setdefault(key.layout, {})
        places.setdefault(key.index, set()).add(node)

    def places(self, layout: str) -> dict[int, set[str]]:
        """Where the shards of one layout are."""
        return self.layouts.get(layout, {})

    def best(self, nodes: Iterable[str] | None = None) -> int:
        """The most shards of one layout on distinct nodes, of those if given."""
        wanted = None if nodes is None else set(nodes)
        most = 0
        for places in self.layouts.values():
            some = {
                index: on if wanted is None else on & wanted
                for index, on in places.items()
            }
            most = max(most, spread({i: on for i, on in some.items() if on}))
        return most


class Audit:
    """The model: which versions were acknowledged, and how many shards they had.

    `floor` is the number of shards that a content had on distinct nodes when it was
    looked at last: nothing but a fault of the story may lower it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.acknowledged: dict[tuple[str, int], str] = {}
        self._markers: set[tuple[str, int]] = set()
        self.floor: dict[str, int] = {}
        self.damaged: dict[str, float] = {}
        """When a fault last took a shard of a content, in ticks."""
        self.rotten: dict[tuple[str, Mark], ShardKey] = {}
        """The shards that a fault let rot, by node and mark."""
        self._verdicts: dict[tuple[str, Mark], tuple[bytes, bool]] = {}

    def platters(
        self, trusted: Sequence[int] = (), *, unread: bool = False
    ) -> dict[str, Kept]:
        """What is durable and right, by content.

        Shards of `trusted` indices are taken for right when a fault let them rot: as
        whoever opens a shard and checks its two ends does. When `unread` so are those
        that stand elsewhere too: a read is content with one of the two.
        """
        found: dict[str, Kept] = {}
        rotten: list[tuple[ShardKey, str]] = []
        for host in self._cluster.nodes:
            for spot in host.disk.shards():
                if spot.row is not None and not host.counts(spot.row):
                    continue
                key, known = spot.key, (host.name, spot.mark) in self.rotten
                if (known and key.index in trusted) or self.good(host, spot):
                    found.setdefault(key.hash, Kept()).add(key, host.name)
                elif known:
                    rotten.append((key, host.name))
        for key, node in rotten if unread else ():
            kept = found.setdefault(key.hash, Kept())
            if key.index in kept.places(key.layout):
                kept.add(key, node)
        return found

    def good(self, host: NodeHost, spot: Spot) -> bool:
        """Whether its bytes are what they ought to be."""
        mark, key = (host.name, spot.mark), spot.key
        data, verdict = self._verdicts.get(mark, (None, False))
        if data is not spot.data:
            files = layouts(key.hash, DATA, PARITY).get(key.layout)
            verdict = files is not None and files[key.index] == spot.data
            self._verdicts[mark] = spot.data, verdict
        return verdict

    def wanted(self) -> set[str]:
        """Contents of acknowledged versions that nobody asked to remove."""
        return set(self.acknowledged.values())

    def look(self) -> dict[str, Kept]:
        """See that nothing was lost since the last look."""
        found, floor = self.platters(), {}
        for hash in sorted(self.wanted()):
            now, before = found.get(hash, Kept()).best(), self.floor.get(hash, 0)
            if now < before:
                self._cluster.world.violated(
                    f"{hash[:6]}, which a version refers to, had {before} shards and "
                    f"has {now} (guarantees 1 and 6)"
                )
            floor[hash] = now
        self.floor = floor
        return found

    def harmed(self, before: Mapping[str, Kept]) -> None:
        """A fault has just destroyed something: what is left is what must be kept."""
        after = self.platters()
        for hash, kept in before.items():
            if kept != after.get(hash, Kept()):
                self.damaged[hash] = self._cluster.world.tick()
        for hash in self.wanted():
            self.floor[hash] = after.get(hash, Kept()).best()

    def spares(self, hash: str, kept: Kept) -> bool:
        """Whether a content that matters would have so much left."""
        return hash not in self.wanted() or kept.best() >= DATA

    def ack(self, version: Version, invoked: float, quorum: int) -> None:
        """A version was acknowledged: its shards are durable now."""
        self.acknowledged[version.name, version.number] = version.hash
        self.look()
        kept = self.platters(range(DATA + PARITY)).get(version.hash, Kept())
        world = self._cluster.world
        assert version.layout is not None
        places = kept.places(version.layout.id)
        if self.damaged.get(version.hash, -1.0) >= invoked:
            return
        what = f"{version.name}/{version.number} ({version.hash[:6]})"
        rotten = {
            key.index
            for key in self.rotten.values()
            if (key.hash, key.layout) == (version.hash, version.layout.id)
        }  # nobody knows yet, and garbage does not give it back
        if spread(places) + len(rotten - set(places)) < quorum:
            world.violated(
                f"{what} was acknowledged with {spread(places)} durable shards, "
                f"the quorum is {quorum} (guarantee 1)"
            )
        silent = set(range(version.layout.shards)) - set(places) - rotten
        said = self._said(version)
        excused = world.now - self._cluster.mood.unwell < 2 * MARKING
        if silent - said and not excused:
            world.violated(
                f"{what} lacks the shards {sorted(silent)} and says that it lacks "
                f"{sorted(said)} (guarantee 1)"
            )

    def _said(self, version: Version) -> Set[int]:
        """What the metadata says that it lacks; the store behind all lines is asked."""
        asked = self._cluster.metadata.version("", version.name, version.number)
        found: list[Version | None] = []
        _ = start(asked).addCallback(found.append)
        (now,) = found
        everything = range(DATA + PARITY)  # of a version that was removed by now
        return set(everything if now is None else now.degraded)

    def doubles(self, key: ShardKey) -> list[str]:
        """The two nodes that hold this shard and no other, of a content that matters."""
        kept = self.platters().get(key.hash, Kept())
        nodes = sorted(kept.places(key.layout).get(key.index, ()))
        held = [
            n for places in kept.layouts.values() for on in places.values() for n in on
        ]
        alone = all(held.count(node) == 1 for node in nodes)
        wanted = key.hash in self.wanted()
        return nodes if wanted and alone and len(nodes) == 2 else []

    def marked(self, name: str, number: int) -> None:
        """A delete marker was acknowledged."""
        self._markers.add((name, number))

    def knows(self, name: str, number: int) -> bool:
        """Whether it was acknowledged, and nobody asked to remove it."""
        return (name, number) in self.acknowledged or (name, number) in self._markers

    def newer(self, name: str, number: int) -> int:
        """How many versions of the name with a greater number are known."""
        known = [*self.acknowledged, *self._markers]
        return sum(each == name and other > number for each, other in known)

    def forget(self, name: str, number: int) -> None:
        """Somebody asked to remove the version."""
        self.acknowledged.pop((name, number), None)
        self._markers.discard((name, number))
