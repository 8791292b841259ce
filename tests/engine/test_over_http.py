"""The engine over six data services: real sockets and folders, the bus in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, cast

import attrs
from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.trial.unittest import TestCase

from ostore.backends.bus.memory import MemoryBus
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.backends.nodes.pool import Pool
from ostore.backends.shards.files import Files
from ostore.backends.shards.node import ShardNode
from ostore.engine.resuming import Begun, Progress, Resuming
from ostore.engine.store import PutRequest
from ostore.model.messages import Signer
from ostore.model.nodes import Members
from ostore.model.tokens import Tokens
from ostore.model.versions import Version
from ostore.service.assembly import assemble
from ostore.service.member import DataMember
from ostore.service.settings import Settings
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers, ThreadWorkers
from tests.support.engine import DEFAULTS, Mouth, sha256, some_bytes
from tests.support.nodes import REAL, SECRET, ServedNode, connect, http_nodes

KIB, MIB = 1 << 10, 1 << 20
PIECE = 256 * KIB
LARGE = some_bytes(12 * MIB + 17)


@attrs.frozen
class Service:
    """One data service: its node, its site, its voice."""

    node: ShardNode
    served: ServedNode
    member: DataMember
    mouth: Mouth

    def hang(self) -> None:
        """Stop like a process under SIGSTOP."""
        self.mouth.silent = True
        self.served.hang()


class Slowly:
    """A body in pieces, with a turn of the reactor behind each; `act` at the sixth."""

    def __init__(self, content: bytes, act: object = None) -> None:
        self._pieces = iter(
            [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
        )
        self._act = act
        self._count = 0

    async def read(self) -> bytes:
        """The next piece."""
        await REAL.sleep(0.001)
        self._count += 1
        if self._count == 6 and callable(self._act):
            self._act()
        return next(self._pieces, b"")


class Patient:
    """Timers of a client that waits a hundred times as long."""

    def callLater(  # noqa: N802  # IReactorTime's name
        self, delay: float, call: Callable[..., Any], *args: Any, **more: Any
    ) -> IDelayedCall:
        """A call, much later."""
        return REAL.timers.callLater(delay * 100, call, *args, **more)


PATIENT = Clock(cast("IReactorTime", Patient()), REAL.monotonic, REAL.wall)


class HttpCase(TestCase):
    """Data services of this process, and an engine that reaches them over HTTP.

    The time-outs of requests are longer than what a test may take.
    """

    timeout = 180

    async def rise(self, services: int = 6, **options: Any) -> None:
        """Services, one engine."""
        quick = {"laggard": 0.5, "locate_timeout": 0.3, "upload_expiry": 3600.0}
        self.settings = settings = Settings(**{**DEFAULTS, **quick, **options})
        signer, bus = Signer([SECRET]), MemoryBus(REAL)
        voice = bus.member()
        folder = Path(self.mktemp()).resolve()
        folder.mkdir(parents=True)
        self.metadata = metadata = SqliteStore(
            str(folder / "metadata"),
            REAL,
            InlineWorkers(),
            InlineWriter(),
            durable=False,
        )
        await metadata.start()
        self.services: list[Service] = []
        self.dead: list[Service] = []
        for number in range(services):
            self.services.append(await self.service(folder / str(number), signer, bus))
        self.pool = Pool(connect, REAL)
        nodes = http_nodes(self.members, PATIENT, pool=self.pool)
        self.engine = assemble(
            settings,
            voice,
            nodes,
            metadata,
            signer,
            REAL,
            os.urandom,
            InlineWorkers(),
            tell=nodes.adopt,
            drain=nodes.drain,
            expected=frozenset(each.node.node_id for each in self.services),
            tokens=Tokens([SECRET]),
        )
        self.store = self.engine.store

        async def fall() -> None:
            for each in self.services:
                each.served.go_on()
            await self.engine.putting.stop()
            await self.engine.cluster.stop()
            await nodes.stop()
            self.assertEqual(len(self.pool), 0)
            for each in self.services:
                await each.member.stop()
                await each.mouth.stop()
                await each.served.stop()
                if each not in self.dead:  # those could not be told
                    self.assertEqual(len(each.node.store.temporaries), 0)
                await each.node.stop()
            await voice.stop()
            await metadata.stop()

        self.addCleanup(fall)
        await voice.start()
        await self.engine.cluster.start()
        for each in self.services:
            await each.mouth.start()
            await each.member.start()
        while len(self.engine.cluster.live()) < services:
            await REAL.sleep(0.01)

    async def service(self, root: Path, signer: Signer, bus: MemoryBus) -> Service:
        """One more, ready to speak."""
        workers = ThreadWorkers(reactor, 2, "shards")
        node = ShardNode(str(root), Files(), workers, REAL, os.urandom, durable=False)
        await node.start()
        served = ServedNode(node, REAL.wall)
        mouth = Mouth(bus.member())
        member = DataMember(
            node,
            mouth,  # type: ignore[arg-type]  # stands before a real one
            signer,
            REAL,
            Random(root.name).randbytes,
            heartbeat=5.0,
            url=served.url,
            zone=served.url,
        )
        return Service(node, served, member, mouth)

    def members(self) -> Members:
        """Whom the engine has heard."""
        return self.engine.cluster.members

    async def put(
        self, content: bytes, name: str = "name", act: object = None
    ) -> Version:
        """Store a content."""
        return await self.store.put(PutRequest(name), Slowly(content, act))

    async def get(self, name: str = "name", act: object = None) -> bytes:
        """Read it; `act` after the first piece."""
        found = await self.store.open(name)
        stream = await found.read(0, found.version.size)
        try:
            pieces = [await stream.read()]
            if callable(act):
                act()
            while piece := await stream.read():
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            await stream.close()

    async def held(self, content: bytes) -> int:
        """How many nodes hold a shard of it."""
        found = [await s.node.store.find(sha256(content)) for s in self.services]
        return sum(len(holding.shards) for holding in found)


class OverHttp(HttpCase):
    """A node that hangs holds nothing up for longer than the engine's own patience."""

    async def test_round_trip(self) -> None:
        """Contents of all sizes come back, and equal ones are stored once."""
        await self.rise()
        for size in (0, 4 * KIB, 5 * MIB):
            content = some_bytes(size)
            version = await self.put(content)
            self.assertEqual((version.size, version.degraded), (size, ()))
            self.assertEqual(await self.get(), content)
            self.assertEqual(await self.held(content), 6)
            again = await self.put(content, "other")
            self.assertEqual(again.layout, version.layout)
            self.assertEqual(await self.held(content), 6)

    async def test_hung_in_a_put(self) -> None:
        """A node that stops in the midst of a PUT is left out, and the PUT goes on."""
        await self.rise()
        version = await self.put(LARGE, act=self.services[2].hang)
        self.assertEqual(len(version.degraded), 1)
        self.assertEqual(await self.get(), LARGE)

    async def test_hung_before_a_put(self) -> None:
        """So is one that had stopped before, for small contents and large ones."""
        await self.rise()
        self.services[4].hang()
        for content in (b"small", LARGE):
            version = await self.put(content)
            self.assertEqual(len(version.degraded), 1)
            self.assertEqual(await self.get(), content)

    async def test_hung_in_a_get(self) -> None:
        """Two nodes that stop in the midst of a GET are replaced."""
        await self.rise()
        await self.put(LARGE)

        def act() -> None:
            for each in self.services[:2]:
                each.hang()

        self.assertEqual(await self.get(act=act), LARGE)

    async def test_dead(self) -> None:
        """A node that dies in the midst of a PUT, and another in that of a GET."""
        await self.rise()
        first, second = self.services[:2]

        def die(service: Service) -> None:
            service.mouth.silent = True
            self.dead.append(service)
            self.engine.putting.writing.tasks.spawn("dying", service.served.die)

        version = await self.put(LARGE, act=lambda: die(first))
        self.assertEqual(len(version.degraded), 1)
        self.assertEqual(await self.get(act=lambda: die(second)), LARGE)

    def other(self) -> Resuming:
        """Another api, which remembers nothing."""
        return Resuming(self.engine.putting, Tokens([SECRET]), 3600.0)

    async def part(
        self, api: Resuming, token: str, begin: int, end: int, act: object = None
    ) -> Progress:
        """Send some of the content."""
        body = Slowly(LARGE[begin:end], act)
        return await api.part(token, begin, body, end - begin)

    async def test_upload(self) -> None:
        """A resumable upload through several apis, with the layout of a PUT."""
        await self.rise()
        begun = await self.store.begin_upload(PutRequest("name"), len(LARGE))
        assert isinstance(begun, Begun)
        cuts = (0, 1, 3 * MIB + 5, 3 * MIB + 6, 7 * MIB, 9 * MIB + 1, len(LARGE))
        api, progress = self.store.uploads, Progress(0, 0)
        for number, (begin, end) in enumerate(pairwise(cuts)):
            progress = await self.part(api, begun.token, begin, end)
            self.assertEqual(progress.held, end)
            if number % 2:
                api = self.other()
        version = progress.version
        assert version is not None
        self.assertEqual((version.hash, version.degraded), (sha256(LARGE), ()))
        self.assertEqual(await self.get(), LARGE)
        self.assertEqual(await self.held(LARGE), 6)
        again = await self.put(LARGE, "again")
        self.assertEqual(again.layout, version.layout)
        self.assertEqual(await self.held(LARGE), 6)
        asked = await self.other().part(begun.token, len(LARGE), Slowly(b""), 0)
        assert asked.version is not None
        self.assertEqual(asked.version.number, version.number)

    async def test_upload_without_a_node(self) -> None:
        """A node hangs in the middle of a part, which goes on; another api ends it."""
        await self.rise()
        begun = await self.store.begin_upload(PutRequest("name"), len(LARGE))
        assert isinstance(begun, Begun)
        half, act = len(LARGE) // 2, self.services[1].hang
        await self.part(self.store.uploads, begun.token, 0, half, act)
        self.assertEqual((await self.other().held(begun.token)).held, half)
        progress = await self.part(self.other(), begun.token, half, len(LARGE))
        assert progress.version is not None
        self.assertEqual(len(progress.version.degraded), 1)
        self.assertEqual(await self.get(), LARGE)

    async def test_upload_given_up(self) -> None:
        """Given up, it is gone from every node."""
        await self.rise()
        begun = await self.store.begin_upload(PutRequest("name"), len(LARGE))
        assert isinstance(begun, Begun)
        await self.part(self.store.uploads, begun.token, 0, MIB + 5)
        await self.other().give_up(begun.token)
        self.assertEqual([len(s.node.store.uploads) for s in self.services], [0] * 6)
