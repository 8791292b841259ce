"""`twistd ostore-standalone`: api, data nodes, bus and metadata in one process."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.backends.bus.memory import MemoryBus
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import ThreadWriter
from ostore.backends.nodes.local import LocalNodes
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.model.errors import OstoreError, Refused
from ostore.model.identity import judge
from ostore.model.messages import Signer
from ostore.model.versions import ClusterFacts
from ostore.service.accesslog import AccessLog
from ostore.service.assembly import Engine, assemble
from ostore.service.entropy import Entropy
from ostore.service.failing import StartError, fail_start
from ostore.service.falling import GRACE, undo_all
from ostore.service.member import DataMember
from ostore.service.options import RoleOptions, StandaloneOptions
from ostore.service.secret import read_or_make
from ostore.service.serving import Serving, say
from ostore.service.settings import Settings
from ostore.service.tls import Certificates
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers
from ostore.streaming.schedule import Repeated
from ostore.streaming.tasks import start
from ostore.web.api.root import Api

ROLE = "ostore-standalone"
NODE_THREADS = 4
"""Disk threads of one node."""
READ_THREADS = 2
"""Threads for pages of metadata."""
MARKS = 60.0
"""Seconds between two looks at what the metadata calls degraded."""

Options = StandaloneOptions


class Standalone(Service):
    """One process that does it all; twistd starts and stops it.

    It starts from the ground up (root, nodes, metadata, engine, site) and stops the
    other way round. What cannot start says so in one line and ends the process.
    """

    def __init__(self, settings: Settings, keys: list[bytes], reactor: Any) -> None:
        self.settings = settings
        self.port: IListeningPort | None = None
        self._keys = keys
        self._certificates = Certificates(settings)
        self._entropy = Entropy()
        self._reactor = reactor
        self._clock = Clock(reactor, time.monotonic, time.time)
        self._log = Logger()
        self._undo: list[Callable[[], Any]] = []
        self._starting: Deferred[None] | None = None
        self._brakes: list[str] = []
        self._faults: list[str] = []

    def startService(self) -> None:
        """Begin to start; the ready line says when it is done."""
        super().startService()  # type: ignore[no-untyped-call] # Twisted has none
        self._starting = start(self._start())

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish what is under way, let everything go."""
        super().stopService()  # type: ignore[no-untyped-call] # Twisted has none
        return start(self._stop())

    async def _start(self) -> None:
        try:
            await self._rise()
        except CancelledError:
            return
        except (OstoreError, StartError, OSError) as error:
            fail_start(self._reactor, f"{ROLE}: {error}")
        except Exception:  # noqa: BLE001 - a defect: its traceback goes to the log
            self._log.failure("the start failed", Failure())  # type: ignore[no-untyped-call]
            fail_start(self._reactor, f"{ROLE}: the start failed, see the log")

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await starting
        await undo_all(self._undo, self._clock, self._log, GRACE)

    async def _rise(self) -> None:
        settings, entropy = self.settings, self._entropy
        clock = self._clock
        signer = Signer(self._keys)
        self._lock()
        bus, nodes = MemoryBus(clock), LocalNodes()
        members = await self._data_nodes(bus, signer, clock, nodes)
        metadata = await self._metadata(clock, members)
        serving = await self._join(metadata, members)
        ours = bus.member()
        engine = assemble(
            settings,
            ours,
            nodes,
            metadata,
            signer,
            clock,
            entropy,
            expected=frozenset(member.node.node_id for member in serving),
            brakes=lambda: list(self._brakes),
            faults=lambda: list(self._faults),
        )
        await ours.start()
        self._undo.append(ours.stop)
        self._undo.append(engine.cluster.stop)
        for member in serving:
            await member.bus.start()
            self._undo.append(member.bus.stop)
            self._undo.append(member.stop)
            await member.start()
        await engine.cluster.start()
        while not engine.cluster.settled:
            await clock.sleep(0.01)
        self._undo.append(engine.putting.stop)
        if settings.repair:
            await self._repairs(engine, clock)
        await self._serve(engine, clock)

    def _lock(self) -> None:
        path = os.path.join(self.settings.root, "lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._undo.append(lambda: os.close(handle))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(
                f"storage-root {self.settings.root} is in use by another "
                "process: allowed is a root of one's own"
            ) from error

    async def _data_nodes(
        self, bus: MemoryBus, signer: Signer, clock: Clock, nodes: LocalNodes
    ) -> list[DataMember]:
        """The nodes that can be used, if a write quorum of them can.

        A root that another process holds ends the start all the same.
        """
        members: list[DataMember] = []
        unusable: list[str] = []
        for number in range(1, self.settings.nodes + 1):
            place = f"nodes/{number}"
            node = ShardNode(
                os.path.join(self.settings.root, place),
                Files(),
                ThreadWorkers(self._reactor, NODE_THREADS, place),
                clock,
                self._entropy,
                durable=self.settings.durable,
            )
            try:
                await node.start()
            except Refused:
                raise
            except OstoreError as error:
                unusable.append(f"{place}: {error}")
                self._faults.append(f"{place} is left out: the log says why")
                continue
            self._undo.append(node.stop)
            nodes.add(node.node_id, node.store, place)
            member = DataMember(
                node,
                bus.member(),
                signer,
                clock,
                self._entropy,
                heartbeat=self.settings.heartbeat,
                url=place,
                zone=place,
            )
            members.append(member)
        if unusable and len(members) < self.settings.write_quorum:
            raise StartError(
                f"{len(members)} nodes can be used, a write needs "
                f"{self.settings.write_quorum}; {'; '.join(unusable)}"
            )
        for line in unusable:
            self._log.error("left out is {line}", line=line)
        return members

    async def _metadata(self, clock: Clock, members: list[DataMember]) -> SqliteStore:
        path = self.settings.metadata
        assert path is not None
        if not Path(path).exists():
            self._judge(None, members)
        workers = ThreadWorkers(self._reactor, READ_THREADS, "metadata")
        workers.start()
        self._undo.append(workers.stop)
        store = SqliteStore(
            path,
            clock,
            workers,
            ThreadWriter(self._reactor),
            durable=self.settings.durable,
        )
        await store.start()
        self._undo.append(store.stop)
        return store

    async def _join(
        self, metadata: SqliteStore, members: list[DataMember]
    ) -> list[DataMember]:
        """Give every root the cluster's id; gives the members that belong to it."""
        known = await metadata.cluster()
        verdict = self._judge(known, members)
        self._brakes.extend(verdict.brakes)
        if verdict.create:
            fresh = ClusterFacts(secrets.token_hex(16), 1)
            known = await metadata.create_cluster(fresh)
        assert known is not None
        by_path = {member.place: member for member in members}
        for path in verdict.adopt:
            await by_path[path].node.adopt(known.id, known.epoch)
        return [m for m in members if m.place not in verdict.foreign]

    def _judge(self, known: ClusterFacts | None, members: list[DataMember]) -> Any:
        roots = {
            member.place: ClusterFacts(member.node.cluster, member.node.epoch)
            if member.node.cluster
            else None
            for member in members
        }
        verdict = judge(known, roots)
        if verdict.refuse:
            raise StartError(f"metadata {self.settings.metadata}: {verdict.refuse}")
        return verdict

    async def _repairs(self, engine: Engine, clock: Clock) -> None:
        marks = Repeated(
            clock,
            MARKS,
            engine.mending.read_marks,
            self._entropy,
            self._log,
            what="reading degraded marks",
        )
        await engine.mending.start()
        self._undo.append(engine.mending.stop)
        marks.start()
        self._undo.append(marks.stop)
        marks.now()

    async def _serve(self, engine: Engine, clock: Clock) -> None:
        settings = self.settings
        assert settings.access_log is not None
        access = AccessLog(settings.access_log)
        self._undo.append(access.close)
        flushing = Repeated(clock, 1.0, _later(access.flush), self._entropy, self._log)
        flushing.start()
        self._undo.append(flushing.stop)
        api = Api(
            engine.store, clock, access.write, require_digest=settings.require_digest
        )
        serving = Serving(
            self._reactor,
            settings.listen,
            api,
            clock,
            self._entropy,
            self._certificates.server(mutual=False),
        )
        self.port = serving.port
        self._undo.append(serving.stop)
        say(f"{ROLE} ready on {serving.url}")


def _later(work: Callable[[], None]) -> Callable[[], Any]:
    async def run() -> None:
        work()

    return run


def makeService(options: RoleOptions) -> Standalone:
    """The service that the options describe. Raises StartError."""
    from twisted.internet import reactor  # noqa: PLC0415 - chosen by twistd till now

    settings = options.settings
    root = settings.root
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"storage-root {root} cannot be made ({error.strerror}): allowed is a "
            "folder that can be written"
        ) from error
    keys = read_or_make(settings.cluster_secret_file, secrets.token_bytes)
    return Standalone(settings, keys, reactor)
