"""What befalls the cluster: a method for each kind of step."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.simulator.audit import DATA, Audit, Kept
from tests.simulator.cluster import HEARTBEAT, Cluster, NodeHost
from tests.simulator.contents import HASHES
from tests.simulator.disks import CAPACITY, FAILURES, Spot
from tests.simulator.excuses import Excuses
from tests.simulator.metadata import Mood
from tests.simulator.story import Step
from tests.simulator.wires import Weather
from tests.simulator.world import Process


class Faults:
    """Begins faults and ends them; what it destroys the guarantees can do without."""

    def __init__(
        self,
        cluster: Cluster,
        audit: Audit,
        excuses: Excuses,
        busy: Callable[[], bool],
    ) -> None:
        self.world = cluster.world
        self.cluster = cluster
        self.audit = audit
        self.trouble = excuses.trouble
        self._busy = busy
        self._ending: list[Callable[[], None]] = []

    def end(self) -> None:
        """Let all of them be over."""
        for each in list(self._ending):
            each()
        for node in self.cluster.nodes:
            node.set_skew(0.0)
        for engine in self.cluster.engines:
            engine.set_skew(0.0)

    def _for(self, seconds: float, end: Callable[[], None]) -> None:
        """Call `end` after so many seconds, or when the story is over."""

        def once() -> None:
            if once in self._ending:
                self._ending.remove(once)
                end()

        self._ending.append(once)
        self.world.later(seconds, once)

    def kill(
        self, step: Step, node: int, how: str, operations: int, seconds: float
    ) -> None:
        """A node's process is killed, or the machine loses its power."""
        self._fell(self.cluster.nodes[node], how, operations, seconds)

    def blackout(self, step: Step, operations: int, seconds: float) -> None:
        """All nodes and engines lose their power at about one moment."""
        for node in self.cluster.nodes:
            at = self.world.rng.randrange(operations + 1)
            self._fell(node, "power", at, seconds)
        for number in range(len(self.cluster.engines)):
            self.crash(step, number, seconds)

    def _fell(self, node: NodeHost, how: str, operations: int, seconds: float) -> None:
        self.trouble(node.name, seconds)
        node.down += 1
        if operations and node.store is not None:
            node.disk.cut_in(operations)
        else:
            node.die()
        chance = self.world.rng.random()

        def end() -> None:
            node.down -= 1
            node.die()
            rng = Random(f"{chance}")
            kept = self.cluster.kept if how == "kill" else None
            node.disk = kept(node.disk) if kept else self.cluster.cut(node.disk, rng)
            if not node.down:
                node.boot()

        self._for(seconds, end)

    def crash(self, step: Step, engine: int, seconds: float) -> None:
        """An engine dies with all its requests."""
        host = self.cluster.engines[engine]
        self.trouble(host.name, seconds + 2 * HEARTBEAT)
        host.down += 1
        host.die()

        def end() -> None:
            host.down -= 1
            if not host.down:
                host.boot()

        self._for(seconds, end)

    def freeze(self, step: Step, node: int, seconds: float) -> None:
        """A node stands still, and then goes on as if nothing had been."""
        host = self.cluster.nodes[node]
        self._freeze(host.name, host.process, seconds)

    def stop(self, step: Step, engine: int, seconds: float) -> None:
        """So does an engine."""
        host = self.cluster.engines[engine]
        self.trouble(host.name, seconds + 2 * HEARTBEAT)
        self._freeze(host.name, host.process, seconds)

    def _freeze(self, name: str, process: Process, seconds: float) -> None:
        self.trouble(name, seconds)
        if not process.frozen:
            process.freeze()
            self._for(seconds, process.thaw)

    def cut(self, step: Step, engine: int, node: int, how: str, seconds: float) -> None:
        """An engine does not reach a node, though both speak to the broker."""
        names = self.cluster.engines[engine].name, self.cluster.nodes[node].name
        links = getattr(self.cluster.net, how)
        self.trouble(" ".join(names), seconds)
        if names not in links:
            links.add(names)
            self._for(seconds, lambda: links.discard(names))

    def slow(self, step: Step, node: int, late: float, seconds: float) -> None:
        """Requests to a node are on their way for long."""
        name = self.cluster.nodes[node].name
        self.trouble(name, seconds + late)
        self._set(self.cluster.net.late, name, late, seconds)

    def deaf(self, step: Step, node: int, chance: float, seconds: float) -> None:
        """A node's answers get lost."""
        name = self.cluster.nodes[node].name
        self.trouble(name, seconds)
        self._set(self.cluster.net.deaf, name, chance, seconds)

    def _set(
        self, where: dict[str, float], key: str, value: float, seconds: float
    ) -> None:
        where[key] = value
        self._for(seconds, lambda: _drop(where, key))

    def bus(
        self, step: Step, lost: float, twice: float, late: float, seconds: float
    ) -> None:
        """Messages get lost, come twice, or late."""
        self.trouble("bus", seconds)
        self.cluster.bus.weather = Weather(lost, twice, late)

        def end() -> None:
            self.cluster.bus.weather = Weather()

        self._for(seconds, end)

    def broker(self, step: Step, seconds: float) -> None:
        """The broker is away."""
        self.trouble("bus", seconds)
        self.cluster.bus.away = True
        self.cluster.bus.changed()

        def end() -> None:
            self.cluster.bus.away = False
            self.cluster.bus.changed()

        self._for(seconds, end)

    def apart(self, step: Step, node: int, seconds: float) -> None:
        """A node does not reach the broker."""
        name, bus = self.cluster.nodes[node].name, self.cluster.bus
        self.trouble(name, seconds)
        bus.cut.add(name)
        bus.changed()

        def end() -> None:
            bus.cut.discard(name)
            bus.changed()

        self._for(seconds, end)

    def metadata(self, step: Step, how: str, seconds: float) -> None:
        """The metadata is away, loses its answers, or takes its time."""
        self.trouble("metadata", 2 * seconds)
        mood = self.cluster.mood
        if how == "away":
            mood.away = True
        elif how == "lose":
            mood.lose = 0.5
        elif how == "slow":
            mood.slow = seconds
        else:
            mood.stuck = seconds

        def end() -> None:
            well = Mood()
            mood.away, mood.lose = well.away, well.lose
            mood.slow, mood.stuck = well.slow, well.stuck

        self._for(seconds, end)

    def jump(self, step: Step, who: str, number: int, seconds: float) -> None:
        """A wall clock jumps."""
        hosts: Any = self.cluster.nodes if who == "node" else self.cluster.engines
        host = hosts[number]
        self.trouble(host.name, 0)
        host.set_skew(host.skew + seconds)

    def full(self, step: Step, node: int, seconds: float) -> None:
        """A node's disk fills up."""
        host = self.cluster.nodes[node]
        self.trouble(host.name, seconds)
        space = host.disk.space("/")
        host.disk.capacity = space.total - space.free + self.world.rng.randrange(6000)

        def end() -> None:
            host.disk.capacity = CAPACITY

        self._for(seconds, end)

    def failing(self, step: Step, node: int, what: str, seconds: float) -> None:
        """A node's disk fails in every other operation of a kind."""
        host = self.cluster.nodes[node]
        self.trouble(host.name, seconds)
        host.failing(dict.fromkeys(FAILURES[what], errno.EIO))
        self._for(seconds, lambda: host.failing({}))

    # Damage: only as much as the guarantees allow

    def rot(self, step: Step, node: int, which: int, where: float) -> None:
        """A byte of a shard changes on the platter."""
        host = self.cluster.nodes[node]

        def harm(spot: Spot) -> None:
            at = min(len(spot.data) - 1, int(where * len(spot.data)))
            host.disk.flip(spot.path, spot.offset + at)
            self.audit.rotten[host.name, spot.mark] = spot.key

        self._harm_one(host, which, harm)

    def lose(self, step: Step, node: int, which: int) -> None:
        """A shard's file vanishes, or a segment that is not being written."""
        host = self.cluster.nodes[node]
        self._harm_one(
            host, which, lambda spot: host.disk.delete(spot.path), whole=True
        )

    def _harm_one(
        self,
        host: NodeHost,
        which: int,
        harm: Callable[[Spot], None],
        *,
        whole: bool = False,
    ) -> None:
        """`whole` is for what befalls all that the file holds."""
        found = sorted(
            (
                spot
                for spot in host.disk.shards()
                if spot.inode.data
                and not spot.inode.pending
                and not (whole and host.writes(spot.row))
            ),
            key=lambda spot: (spot.path, spot.offset),
        )
        if not found:
            return
        spot = found[which % len(found)]
        before = self.audit.platters()
        hashes = host.disk.hashes(spot) if whole else {spot.key.hash}
        if self._bearable(before, host.name, hashes):
            self.trouble(host.name, 0)
            harm(spot)
            self.world.note(f"{host.name} {spot.path} is harmed")
            self.audit.harmed(before)

    def wipe(self, step: Step, node: int, seconds: float) -> None:
        """A machine is lost with its disk, and replaced after a while by an empty one."""
        host = self.cluster.nodes[node]
        before = self.audit.platters()
        if host.down or not self._bearable(before, host.name, set(before)):
            return
        self.trouble(host.name, seconds)
        host.down += 1
        host.die()
        host.replace()
        self.audit.harmed(before)

        def end() -> None:
            host.down -= 1
            if not host.down:
                host.boot()

        self._for(seconds, end)

    def _bearable(
        self, before: Mapping[str, Kept], name: str, hashes: set[str]
    ) -> bool:
        """Whether contents that matter can do without what that node has of them."""
        others = [node.name for node in self.cluster.nodes if node.name != name]
        wanted = hashes & (self.audit.wanted() | self._under_way())
        return all(
            before.get(hash, Kept()).best(others) >= DATA or hash not in before
            for hash in sorted(wanted)
        )

    def _under_way(self) -> set[str]:
        """Contents that may be relied on by now, though nobody was told so yet."""
        return set(HASHES) if self._busy() else set()


def _drop(where: dict[str, float], key: str) -> None:
    where.pop(key, None)
