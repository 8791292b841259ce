"""`twistd ostore-data`: the nodes of one machine, one for each storage root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from ostore.backends.shards.files import Files, block_buffers
from ostore.backends.shards.node import ShardNode
from ostore.interfaces import IMessageBus
from ostore.model.errors import OstoreError
from ostore.model.signing import Guard, Nonces
from ostore.service.cluster import Member
from ostore.service.failing import StartError
from ostore.service.kinds import Address
from ostore.service.member import DataMember
from ostore.service.options import DataOptions, RoleOptions
from ostore.service.secret import read
from ostore.service.serving import Serving, say
from ostore.streaming.buffers import Buffers
from ostore.streaming.pools import ThreadWorkers, Workers
from ostore.streaming.tasks import gather
from ostore.web.data.root import DataApi

LogLine = Callable[[dict[str, object]], None]

NODE_THREADS = 4
"""Disk threads of one node."""

Options = DataOptions


@attrs.frozen
class Node:
    """One storage root, its port and its voice."""

    member: DataMember
    serving: Serving


class Data(Member):
    """One process with a node for each storage root; twistd starts and stops it."""

    role = "ostore-data"

    async def rise(self) -> None:
        """Take the roots, listen, and speak once no one else claims the same ids."""
        bus = self.bus()
        log_line = self.access_log()
        nonces, blocks = Nonces(), block_buffers()
        flushers = self.flushers(len(self.settings.roots))
        nodes = [
            await self._node(number, bus, log_line, nonces, blocks, flushers)
            for number in range(len(self.settings.roots))
        ]
        await bus.start()
        for outcome in await gather(node.member.claim() for node in nodes):
            if isinstance(outcome, Exception):
                raise outcome
        for node in nodes:
            self.undo(node.member.stop)
            await node.member.start()
        self.ready = True
        for node in nodes:
            say(
                f"{self.role} ready on {node.serving.url} "
                f"node {node.member.node.node_id}"
            )

    async def _node(
        self,
        number: int,
        bus: IMessageBus,
        log_line: LogLine,
        nonces: Nonces,
        blocks: Buffers,
        flushers: Workers,
    ) -> Node:
        settings, root = self.settings, self.settings.roots[number]
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"storage-root {root} cannot be made ({error.strerror}): allowed is a "
                "folder that can be written"
            ) from error
        shards = ShardNode(
            root,
            Files(blocks),
            ThreadWorkers(self.reactor, NODE_THREADS, f"node {number + 1}"),
            self.clock,
            self.entropy,
            durable=settings.durable,
            pack_limit=settings.pack_limit,
            flushers=flushers,
        )
        try:
            await shards.start()
        except OstoreError as error:
            raise StartError(f"storage-root {root}: {error}") from error
        self.undo(shards.stop)
        hosts: set[str] = set()
        guard = Guard(self.keys, lambda: hosts, self.clock.wall, nonces)
        listen = settings.listen
        address = Address(listen.host, listen.port and listen.port + number)
        face = DataApi(
            shards,
            guard,
            self.clock,
            self.entropy,
            log_line,
            reasons=lambda: [] if bus.up else [f"bus: {bus.trouble}"],
        )
        serving = Serving(
            self.reactor,
            address,
            face,
            self.clock,
            self.entropy,
            settings,
            self.certificates.server(mutual=True),
        )
        self.undo(serving.stop)
        url = settings.advertise[number] if settings.advertise else serving.url
        hosts |= {urlsplit(url).netloc.lower(), str(serving.address)}
        member = DataMember(
            shards,
            bus,
            self.signer,
            self.clock,
            self.entropy,
            heartbeat=settings.heartbeat,
            url=url,
            zone=settings.zone[number],
        )
        return Node(member, serving)


def makeService(options: RoleOptions) -> Data:
    """The service that the options describe. Raises StartError."""
    from twisted.internet import reactor  # noqa: PLC0415 - chosen by twistd till now

    settings = options.settings
    return Data(settings, read(settings.cluster_secret_file), reactor)
