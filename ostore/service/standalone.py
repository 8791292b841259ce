"""`twistd ostore-standalone`: api, data nodes, bus and metadata in one process."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IListeningPort

from ostore.backends.bus.memory import MemoryBus
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.nodes.local import LocalNodes
from ostore.backends.shards.files import Files, block_buffers
from ostore.backends.shards.node import ShardNode
from ostore.model.errors import OstoreError, Refused
from ostore.model.identity import judge
from ostore.model.tokens import Tokens
from ostore.model.versions import ClusterFacts
from ostore.service.assembly import assemble
from ostore.service.facing import (
    coding_workers,
    make_api,
    make_pace,
    open_sqlite,
    serve_api,
    start_maintenance,
    start_repairs,
)
from ostore.service.failing import StartError
from ostore.service.member import DataMember
from ostore.service.options import RoleOptions, StandaloneOptions
from ostore.service.process import Process
from ostore.service.secret import read_or_make
from ostore.service.serving import say
from ostore.service.settings import Settings
from ostore.streaming.pools import ThreadWorkers

NODE_THREADS = 4
"""Disk threads of one node."""
Options = StandaloneOptions


class Standalone(Process):
    """One process that does it all; twistd starts and stops it.

    It starts from the ground up (root, nodes, metadata, engine, site) and stops the
    other way round.
    """

    role = "ostore-standalone"

    def __init__(self, settings: Settings, keys: list[bytes], reactor: Any) -> None:
        super().__init__(settings, keys, reactor)
        self.port: IListeningPort | None = None
        self._brakes: list[str] = []
        self._faults: list[str] = []

    async def rise(self) -> None:
        """Start everything; one line says when it is done."""
        self._lock()
        bus, nodes = MemoryBus(self.clock), LocalNodes()
        members = await self._data_nodes(bus, nodes)
        metadata = await self._metadata(members)
        serving = await self._join(metadata, members)
        ours, workers = bus.member(), coding_workers(self)
        by_id = {member.node.node_id: member.node for member in serving}

        async def tell(node: str, facts: ClusterFacts) -> None:
            await by_id[node].adopt(facts.id, facts.epoch)

        async def drain(node: str, on: bool) -> None:
            await by_id[node].drain(on=on)

        engine = assemble(
            self.settings,
            ours,
            nodes,
            metadata,
            self.signer,
            self.clock,
            self.entropy,
            workers,
            tell=tell,
            drain=drain,
            inside=True,
            expected=frozenset(member.node.node_id for member in serving),
            brakes=lambda: list(self._brakes),
            faults=lambda: list(self._faults),
            tokens=Tokens(self.keys),
            adopted=self._brakes.clear,
        )
        await ours.start()
        self.undo(ours.stop)
        self.undo(engine.cluster.stop)
        for member in serving:
            await member.bus.start()
            self.undo(member.bus.stop)
            self.undo(member.stop)
            await member.start()
        await engine.cluster.start()
        while not engine.cluster.settled:
            await self.clock.sleep(0.01)
        self.undo(engine.putting.stop)
        pace = make_pace(self)
        if self.settings.repair:
            await start_repairs(self, engine, metadata, pace)
        start_maintenance(self, engine, metadata, pace)
        site = serve_api(self, make_api(self, engine, workers, pace.foreground))
        self.port = site.port
        say(f"{self.role} ready on {site.url}")

    def _lock(self) -> None:
        path = os.path.join(self.settings.root, "lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.undo(lambda: os.close(handle))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(
                f"storage-root {self.settings.root} is in use by another "
                "process: allowed is a root of one's own"
            ) from error

    async def _data_nodes(self, bus: MemoryBus, nodes: LocalNodes) -> list[DataMember]:
        """The nodes that can be used, if a write quorum of them can.

        A root that another process holds ends the start all the same.
        """
        members: list[DataMember] = []
        unusable: list[str] = []
        blocks = block_buffers()
        flushers = self.flushers(self.settings.nodes)
        for number in range(1, self.settings.nodes + 1):
            place = f"nodes/{number}"
            node = ShardNode(
                os.path.join(self.settings.root, place),
                Files(blocks),
                ThreadWorkers(self.reactor, NODE_THREADS, place),
                self.clock,
                self.entropy,
                durable=self.settings.durable,
                pack_limit=self.settings.pack_limit,
                flushers=flushers,
            )
            try:
                await node.start()
            except Refused:
                raise
            except OstoreError as error:
                unusable.append(f"{place}: {error}")
                self._faults.append(f"{place} is left out: the log says why")
                continue
            self.undo(node.stop)
            store = node.store
            nodes.add(node.node_id, store, place, store.uploads, at_hand=store)
            member = DataMember(
                node,
                bus.member(),
                self.signer,
                self.clock,
                self.entropy,
                heartbeat=self.settings.heartbeat,
                url=place,
                zone=place,
            )
            members.append(member)
        if unusable and len(members) < self.settings.data_shards:
            raise StartError(
                f"{len(members)} nodes can be used, a read needs "
                f"{self.settings.data_shards}; {'; '.join(unusable)}"
            )
        for line in unusable:
            self._log.error("left out is {line}", line=line)
        return members

    async def _metadata(self, members: list[DataMember]) -> SqliteStore:
        path = self.settings.metadata
        assert path is not None
        if not Path(path).exists():
            self._judge(None, members)
        return await open_sqlite(self, path)

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
