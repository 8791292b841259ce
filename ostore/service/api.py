"""`twistd ostore-api`: the engine and its HTTP face, over nodes and servers elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from ostore.backends.metadata.elastic import make_store
from ostore.backends.nodes.framed import FramedNodes
from ostore.backends.nodes.pool import Pool
from ostore.engine.joining import Joining
from ostore.interfaces import IMetadataStore
from ostore.model.errors import Malformed
from ostore.model.nodes import Members
from ostore.model.signing import Caller
from ostore.model.tokens import Tokens
from ostore.service.assembly import Engine, assemble
from ostore.service.cluster import Member
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
from ostore.service.options import ApiOptions, RoleOptions
from ostore.service.process import Process
from ostore.service.secret import read
from ostore.service.serving import say
from ostore.service.workers.supervisor import Supervisor
from ostore.web.api.root import Api

LOOK = 1.0
"""Seconds between two looks at which nodes belong to the cluster, at most."""
READY = 0.1
"""Seconds between two looks whether the service is ready."""

Options = ApiOptions


class ApiService(Member):
    """One api service; twistd starts and stops it.

    It serves at once, and says why it is not ready. The ready line comes when it is;
    where only nodes are lacking it comes after `node-timeout`: what can be read is.
    """

    role = "ostore-api"
    listening: int | None = None
    """The descriptor of a socket that listens already."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.api: Api | None = None
        """The face, from when it is there."""

    async def page(self, own: bytes) -> bytes:
        """What /metrics shows, made of what this process counts."""
        return own

    async def rise(self) -> None:
        """Connect everything; nothing here waits for a server to be there."""
        settings = self.settings
        bus = self.bus()
        metadata = await self._metadata()
        nodes = self._nodes()
        joining = Joining(
            metadata,
            nodes.adopt,
            self.clock,
            self.entropy,
            quorum=settings.write_quorum,
            heartbeat=settings.heartbeat,
        )

        def brakes() -> list[str]:
            trouble = [] if bus.up else [f"bus: {bus.trouble}"]
            return [*trouble, *joining.brakes]

        workers = coding_workers(self)
        engine = self._engine = assemble(
            settings,
            bus,
            nodes,
            metadata,
            self.signer,
            self.clock,
            self.entropy,
            workers,
            tell=nodes.adopt,
            drain=nodes.drain,
            belongs=joining.belongs,
            near=nodes.near,
            brakes=brakes,
            tokens=Tokens(self.keys),
        )
        await engine.cluster.start()
        self.undo(engine.cluster.stop)
        await bus.start()
        self.undo(engine.putting.stop)

        async def look() -> None:
            await joining.look(engine.cluster.members)

        self.repeat(min(LOOK, settings.heartbeat), look, "looking at the nodes").now()
        pace = make_pace(self)
        if settings.repair:
            await start_repairs(self, engine, metadata, pace)
        start_maintenance(self, engine, metadata, pace)
        self.api = make_api(
            self, engine, workers, pace.foreground, self.page, nodes.figures
        )
        serving = serve_api(self, self.api, self.listening)
        await self._until_ready(engine)
        self.ready = True
        self.announce(serving.url)

    def announce(self, url: str) -> None:
        """Say that it is ready."""
        say(f"{self.role} ready on {url}")

    def _members(self) -> Members:
        return self._engine.cluster.members

    def _nodes(self) -> FramedNodes:
        def endpoint(host: str, port: int, secure: bool) -> IStreamClientEndpoint:
            way: IStreamClientEndpoint = HostnameEndpoint(self.reactor, host, port)
            if secure:
                way = wrapClientTLS(self.certificates.client(host), way)
            return way

        name = f"{socket.gethostname()[:64]}-{self.entropy(4).hex()}"
        caller = Caller(name, self.keys[0], self.clock.wall, self.entropy)
        pool = Pool(endpoint, self.clock)
        nodes = FramedNodes(self._members, caller, pool, self.clock, self.entropy)
        self.undo(nodes.stop)
        return nodes

    async def _metadata(self) -> IMetadataStore:
        settings = self.settings
        if settings.metadata is not None:
            made: IMetadataStore = await open_sqlite(self, settings.metadata)
            return made
        try:
            store = make_store(
                settings.es_server,
                self.reactor,
                self.clock,
                self.entropy,
                self.refused("es-server", 1),
                authorities=self.certificates.authorities,
                api_key=self._api_key(),
            )
        except Malformed as error:
            raise StartError(f"es-server: {error}") from error
        self.undo(store.stop)
        await store.start()
        return store

    def _api_key(self) -> str | None:
        path = self.settings.es_api_key_file
        if path is None:
            return None
        try:
            key = Path(path).read_text("ascii").strip()
        except (OSError, UnicodeError) as error:
            raise StartError(
                f"es-api-key-file {path} cannot be used: allowed is a readable file "
                "with the key alone"
            ) from error
        if not key or not key.isprintable() or " " in key:
            raise StartError(
                f"es-api-key-file {path} holds no key: allowed is the key alone"
            )
        return key

    async def _until_ready(self, engine: Engine) -> None:
        """Wait, and say each new reason once."""
        lacking_since: float | None = None
        said: list[str] = []
        while why := await engine.store.reasons():
            now = self.clock.monotonic()
            if not all(each.startswith("nodes:") for each in why):
                lacking_since = None
            elif lacking_since is None:
                lacking_since = now
            elif now - lacking_since >= self.settings.node_timeout:
                return
            if why != said:
                self._log.warn("not ready: {why}", why="; ".join(why))
                said = why
            await self.clock.sleep(READY)


def makeService(options: RoleOptions) -> Process:
    """The service that the options describe. Raises StartError."""
    from twisted.internet import reactor  # noqa: PLC0415 - chosen by twistd till now

    settings = options.settings
    kind = ApiService if settings.workers == 1 else Supervisor
    return kind(settings, read(settings.cluster_secret_file), reactor)
