"""Six nodes, one or two engines and their metadata, each started as a service does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ostore.backends.metadata.elastic import ElasticStore
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.backends.shards.node import ShardNode
from ostore.backends.shards.segments.form import Row
from ostore.engine.store import ObjectStore
from ostore.maintenance.pace import Foreground, Pace
from ostore.maintenance.runner import Runner
from ostore.model.errors import OstoreError
from ostore.model.messages import Signer
from ostore.model.nodes import Members
from ostore.model.tokens import Tokens
from ostore.model.versions import ClusterFacts
from ostore.service.assembly import Engine, assemble
from ostore.service.facing import MARKS, RATES, jobs_of
from ostore.service.member import DataMember
from ostore.service.settings import Settings
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.schedule import Repeated
from ostore.streaming.tasks import start
from tests.simulator.disks import SimDisk
from tests.simulator.metadata import Mood, SearchLine, SharedStore
from tests.simulator.remote import Network, SimNodes
from tests.simulator.remote_uploads import RemoteUploads
from tests.simulator.wires import SimBus
from tests.simulator.world import BEGIN, Process, SimWorkers, World
from tests.support.engine import DEFAULTS, SECRET
from tests.support.fakesearch import FakeSearch

HEARTBEAT, NODE_TIMEOUT = 10.0, 25.0
WATCH = 5.0
GRACE, EXPIRY, REBUILD_DELAY = 30.0, 40.0, 30.0
TURN = 8.0
"""Seconds between two looks at which maintenance job is due."""
SEGMENT = 32 << 10
"""Bytes after which a segment is sealed: so few that some are."""
AGAIN = 2.0
"""Seconds after which a node whose start failed is started again."""
FACTS = ClusterFacts("c" * 32, 1)


@attrs.frozen
class Plan:
    """What a story's cluster is like; `compressing` has one entry for each engine.

    Maintenance runs `every` so many seconds, or only when somebody asks for it (0).
    When `sweeping` it has the last word. Contents of at most `packing` bytes are packed.
    """

    compressing: tuple[bool, ...] = (True,)
    search: bool = False
    quorum: int = 5
    nodes: int = 6
    cached: bool = True
    keep: int = 5
    every: float = 0.0
    sweeping: bool = False
    packing: int = 0

    def settings(self, engine: int) -> Settings:
        """Those of one engine."""
        chosen = {
            "nodes": self.nodes,
            "heartbeat": HEARTBEAT,
            "node_timeout": NODE_TIMEOUT,
            "write_quorum": self.quorum,
            "orphan_grace": GRACE,
            "rebuild_delay": REBUILD_DELAY,
            "garbage_expiry": EXPIRY,
            "upload_expiry": 86400.0,
            "maintenance_interval": self.every or 1e9,
            "keep_versions": self.keep,
            "compression": "zstd" if self.compressing[engine] else "none",
        }
        return Settings(**{**DEFAULTS, **chosen})


class NodeHost:
    """One machine with one node: its disk stays, its processes come and go."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.name = f"node {number}"
        self.disk = SimDisk()
        self.errors: dict[str, int] = {}
        self.skew = 0.0
        self.epoch = 0
        """The highest that it was told, as far as it said so."""
        self.down = 0
        """How many faults keep it down now."""
        self.store: Any = None
        self.node: ShardNode
        self.member: DataMember
        self.process: Process
        self.workers: SimWorkers
        self._cluster = cluster
        self._number = number
        self._boots = 0
        self.id = ""

    def boot(self) -> None:
        """Start a process on the disk as it is."""
        world = self._cluster.world
        self._boots += 1
        name = f"{self.name}/{self._boots}"
        process = self.process = Process(world, self.name)
        process.skew = self.skew
        self.disk = self._cluster.prepared(self.disk, process)
        self.disk.failing = self.errors
        self.workers = SimWorkers(process)
        entropy = world.entropy(name)
        self.node = ShardNode(
            "/data",
            self.disk,
            self.workers,
            process.clock,
            entropy,
            pack_limit=self._cluster.plan.packing,
        )
        self.node.store._log._limit = self.node.store._log._writer._limit = SEGMENT
        world.note(f"{self.name} starts")
        running = process.hold(start(self._rise(process, self.node, entropy)))
        _ = running.addErrback(lambda _: None)

    async def _rise(
        self, process: Process, node: ShardNode, entropy: Callable[[int], bytes]
    ) -> None:
        if self._boots == 1:
            self.workers.slowness = -1
        try:
            await node.start()
            if not node.cluster:
                await node.adopt(FACTS.id, FACTS.epoch)
        except OstoreError as error:
            self._cluster.world.note(f"{self.name} does not start: {error}")
            process.kill()
            self._cluster.world.later(AGAIN, self.come_back, process)
            return
        self.workers.slowness = 0.0
        self.id = node.node_id
        self._cluster.net.hosts[self.id] = self
        bus = self._cluster.bus.member(process)
        self.member = DataMember(
            node,
            bus,
            self._cluster.signer,
            process.clock,
            entropy,
            heartbeat=HEARTBEAT,
            url=self.name,
            zone=self.name,
        )
        self.member._watch._interval = WATCH
        self.store = node.store
        await bus.start()
        await self.member.start()

    def counts(self, row: Row) -> bool:
        """Whether a record is one to the node, as far as there is a process.

        One that came to the platter though its batch failed may be none: whoever asked
        was told so, and the next segment says it.
        """
        if self.store is None or not self.process.alive:
            return True
        log = self.node.store._log
        return not log.loaded or log.rows.get(row.hash, row.birth) is not None

    def writes(self, row: Row | None) -> bool:
        """Whether the record's segment is the one that grows."""
        if row is None or self.store is None:
            return False
        active: int = self.node.store._log._writer.active
        return row.segment == active

    def come_back(self, process: Process) -> None:
        """Start anew unless something else happened meanwhile."""
        if self.process is process and not self.down:
            self.disk = self._cluster.kept(self.disk)
            self.boot()

    async def adopt(self, facts: ClusterFacts) -> None:
        """What the node's own route does."""
        await self.node.adopt(facts.id, facts.epoch)

    def set_skew(self, seconds: float) -> None:
        """Its clock is wrong by so much."""
        self.skew = self.process.skew = seconds

    def die(self) -> None:
        """Its process is gone; the disk is the caller's matter."""
        self.store = None
        self.process.kill()

    def failing(self, errors: dict[str, int]) -> None:
        """What its disk does from now on, whoever uses it."""
        self.errors = errors
        self.disk.failing = errors

    def replace(self) -> None:
        """An empty disk; who starts on it is another node."""
        self._cluster.exchanged += 1
        self.epoch = 0
        self.disk = SimDisk()
        self.disk.make("/")


class EngineHost:
    """One api process after the other, without the HTTP face."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.number = number
        self.name = f"engine {number + 1}"
        self.skew = 0.0
        self.down = 0
        self.process: Process
        self.engine: Engine
        self.up = False
        self.ops: dict[Deferred[Any], None] = {}
        self._cluster = cluster
        self._boots = 0

    @property
    def store(self) -> ObjectStore:
        """The verbs."""
        return self.engine.store

    def boot(self) -> None:
        """Start a process."""
        cluster = self._cluster
        self._boots += 1
        process = self.process = Process(cluster.world, self.name)
        process.skew = self.skew
        entropy = cluster.world.entropy(f"{self.name}/{self._boots}")
        cluster.world.note(f"{self.name} starts")
        running = process.hold(start(self._rise(process, entropy)))
        _ = running.addErrback(lambda _: None)

    async def _rise(self, process: Process, entropy: Callable[[int], bytes]) -> None:
        cluster = self._cluster
        bus = cluster.bus.member(process)
        metadata = await cluster.metadata_for(process)

        def members() -> Members:
            return self.engine.cluster.members

        nodes = SimNodes(cluster.net, process, members, RemoteUploads)
        engine = self.engine = assemble(
            cluster.plan.settings(self.number),
            bus,
            nodes,
            metadata,
            cluster.signer,
            process.clock,
            entropy,
            InlineWorkers(),
            tell=nodes.adopt,
            tokens=Tokens([SECRET]),
        )
        await bus.start()
        await engine.cluster.start()
        await engine.mending.start()
        marks = Repeated(
            process.clock, MARKS, engine.mending.read_marks, entropy, Logger()
        )
        marks.start()
        marks.now()
        settings = cluster.plan.settings(self.number)
        runner = Runner(
            jobs_of(settings, engine, metadata),
            engine.jobs,
            engine.hands,
            metadata,
            Pace(process.clock, Foreground(process.clock), *RATES),
            process.clock,
            entropy,
            planned=bool(cluster.plan.every),
        )
        turns = Repeated(process.clock, TURN, runner.turn, entropy, Logger())
        turns.start()
        turns.now()
        self.up = True

    def set_skew(self, seconds: float) -> None:
        """Its clock is wrong by so much."""
        self.skew = self.process.skew = seconds

    def die(self) -> None:
        """Its process is gone, with all that clients asked of it."""
        self.up = False
        self.process.kill()
        for op in list(self.ops):
            self._cluster.world.later(0.001, op.cancel)


class Cluster:
    """All of it; made for one story."""

    def __init__(self, world: World, plan: Plan, folder: Path) -> None:
        self.world = world
        self.plan = plan
        self.net = Network(world)
        self.bus = SimBus(world)
        self.signer = Signer([SECRET])
        self.mood = Mood()
        self.exchanged = 0
        """Disks that were replaced by empty ones."""
        self.on_purge: Callable[[str, int], None] = lambda *_: None
        """Told of every purge that is sent: name and number."""
        self.nodes = [NodeHost(self, number + 1) for number in range(plan.nodes)]
        self.engines = [
            EngineHost(self, number) for number in range(len(plan.compressing))
        ]
        clock = Clock(world.timers, world.timers.seconds, lambda: BEGIN + world.now)
        self._server = FakeSearch() if plan.search else None
        self.metadata: Any = SqliteStore(
            str(folder / "metadata"),
            clock,
            InlineWorkers(),
            InlineWriter(),
            durable=False,
        )
        if self._server is not None:
            self.metadata = self._search_store(
                self._server, clock, world.entropy("god"), "god"
            )

    def start(self) -> None:
        """Start everything, and wait until it is there."""
        _ = start(self._begin())
        for node in self.nodes:
            node.disk.make("/")
            node.boot()
        for engine in self.engines:
            engine.boot()
        self.world.timers.run(self.world.now + HEARTBEAT + 1)

    async def _begin(self) -> None:
        await self.metadata.start()
        await self.metadata.create_cluster(FACTS)

    def stop(self) -> None:
        """End every process; the metadata is closed."""
        for engine in self.engines:
            engine.die()
        for node in self.nodes:
            node.die()
        self.world.timers.run(self.world.now + 1)
        _ = start(self.metadata.stop())
        self.world.timers.run(self.world.now + 1)

    async def metadata_for(self, process: Process) -> Any:
        """The way of a process to the metadata."""
        if self._server is None:
            return SharedStore(self.metadata, self.mood, process, self._purged)
        line = SearchLine(self._server, self.mood, process)
        entropy = self.world.entropy(f"{process.name} {self.world.tick()}")
        store = self._search_store(line, process.clock, entropy, process.name)
        await store.start()
        return PurgesSeen(store, self._purged)

    def _search_store(
        self, search: Any, clock: Clock, entropy: Callable[[int], bytes], name: str
    ) -> ElasticStore:
        refused = partial(self._refused, name)
        return ElasticStore(search, "fake:9200", clock, entropy, refused)

    def _refused(self, name: str, sentence: str) -> None:
        self.world.violated(f"{name}: the search server is refused: {sentence}")

    def _purged(self, _: str, name: str, number: int) -> None:
        self.on_purge(name, number)

    def prepared(self, disk: SimDisk, process: Process) -> SimDisk:
        """The disk, in the hands of a new process."""
        disk._now = process.wall
        disk.cached = self.plan.cached
        disk.on_dark = partial(self._went_dark, process)
        disk.chance = lambda: self.world.rng.random() < 0.5
        return disk

    def _went_dark(self, process: Process) -> None:
        for node in self.nodes:
            if node.process is process:
                node.store = None
        process.kill()

    def kept(self, disk: SimDisk) -> SimDisk:
        """The disk behind a process that was killed."""
        found = disk.after_kill()
        assert isinstance(found, SimDisk)
        return found

    def cut(self, disk: SimDisk, rng: Random) -> SimDisk:
        """The disk behind a power cut."""
        entries = rng.choice(("lost", "lost", "kept", "mixed"))
        data = rng.choice(("lost", "torn"))
        found = disk.after_power_cut(rng, entries, data)  # type: ignore[arg-type]  # literals
        assert isinstance(found, SimDisk)
        return found


class PurgesSeen:
    """A store whose purges are noted before they are sent."""

    def __init__(self, inner: Any, purged: Callable[[str, str, int], None]) -> None:
        self._inner = inner
        self._purged = purged

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def purge(self, bucket: str, name: str, number: int) -> bool:
        """Remove one version for good."""
        self._purged(bucket, name, number)
        gone: bool = await self._inner.purge(bucket, name, number)
        return gone
