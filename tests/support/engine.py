"""The engine over six nodes on one clock that only tests move."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.memory import MemoryBus, MemoryBusMember
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.backends.nodes.local import LocalNodes
from ostore.backends.shards.node import ShardNode
from ostore.engine.referring import PutRequest
from ostore.model.errors import BusUnavailable, NodeUnreachable
from ostore.model.messages import Signer
from ostore.model.tokens import Tokens
from ostore.model.versions import ClusterFacts, Version
from ostore.service.assembly import Engine, assemble
from ostore.service.kinds import Address
from ostore.service.member import DataMember
from ostore.service.settings import Settings
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from ostore.streaming.tasks import start
from tests.support.disk import SimulatedDisk

T = TypeVar("T")
BEGIN = 1_700_000_000.0
MIB = 1 << 20
SECRET = b"0123456789abcdef0123456789abcdef"

DEFAULTS: Mapping[str, Any] = {
    "listen": Address("127.0.0.1", 0),
    "storage_root": "/data",
    "nodes": 6,
    "data_shards": 4,
    "parity_shards": 2,
    "write_quorum": 5,
    "laggard": 1.0,
    "heartbeat": 5.0,
    "node_timeout": 10.0,
    "locate_timeout": 1.0,
    "orphan_grace": 3600.0,
    "keep_versions": 5,
    "garbage_expiry": 60.0,
    "maintenance_interval": 3600.0,
    "scrub_period": 30 * 24 * 3600.0,
    "rebuild_delay": 600.0,
    "repair": True,
    "metadata": "",
    "require_digest": False,
    "durability": "strict",
    "cluster_secret_file": "",
}


def some_bytes(size: int, seed: int = 0) -> bytes:
    """The same bytes for the same arguments, and no pattern in them."""
    return Random(f"{size} {seed}").randbytes(size)


def sha256(content: bytes) -> str:
    """The hash of a content in hex."""
    return hashlib.sha256(content).hexdigest()


class Pieces:
    """A body in pieces; `end`, if given, is raised where it would end."""

    def __init__(self, pieces: Iterable[bytes], end: Exception | None = None) -> None:
        self.reads = 0
        self._pieces = iter(pieces)
        self._end = end

    async def read(self) -> bytes:
        """The next piece; b"" at the end."""
        self.reads += 1
        piece = next(self._pieces, b"")
        if not piece and self._end is not None:
            raise self._end
        return piece


class PacedWorkers:
    """Runs work at once, after `delay` seconds, or not before `release`.

    As with threads, cancelling the caller does not stop the work.
    """

    def __init__(self, time: task.Clock) -> None:
        self.delay = 0.0
        self.hanging = False
        self._time = time
        self._held: list[Callable[[], None]] = []
        self._slow: list[IDelayedCall] = []

    def start(self) -> None:
        """Nothing to make ready."""

    def stop(self) -> None:
        """Nothing to end."""

    def release(self) -> None:
        """Go on with what hangs, and with what is slow in the next turn."""
        self.hanging = False
        slow, self._slow = self._slow, []
        for call in slow:
            if call.active():
                call.reset(0)
        held, self._held = self._held, []
        for each in held:
            each()

    async def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What `work` returns or raises."""
        if not self.hanging and not self.delay:
            return work(*args, **kwargs)
        result: Deferred[T] = Deferred()

        def go() -> None:
            try:
                outcome: T | Failure = work(*args, **kwargs)
            except Exception:  # noqa: BLE001 - handed to the one who waits
                outcome = Failure()
            if not result.called:
                result.callback(outcome)

        if self.hanging:
            self._held.append(go)
        else:
            self._slow = [call for call in self._slow if call.active()]
            self._slow.append(self._time.callLater(self.delay, go))
        return await result


UPLOADS = (
    *("begin", "look", "claim", "renew", "cut", "settle", "open", "frames"),
    *("add_tail", "tail", "commit", "finish", "release", "remove"),
    *("sink.write", "sink.sync"),
)
"""What a node does for resumable uploads."""

Rule = Callable[..., Awaitable[None] | None]


class Watched:
    """Stands before an object: counts its calls, and lets rules come before them.

    `rules[name]` is called with the arguments of the call; it may raise, or give
    something to wait for. Sinks, readers and streams are watched too, under names
    like `sink.write` and `stream.read`.
    """

    def __init__(
        self,
        inner: Any,
        calls: Counter[str] | None = None,
        rules: dict[str, Rule] | None = None,
        prefix: str = "",
    ) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter() if calls is None else calls
        self.rules: dict[str, Rule] = {} if rules is None else rules
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name == "frames" and self._prefix == "reader.":
            return lambda *args: self._below(found(*args), "stream.")
        return self._call(name, found) if callable(found) else found

    def _call(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        full = self._prefix + name

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[full] += 1
            rule = self.rules.get(full)
            before = None if rule is None else rule(*args)
            if before is not None:
                await before
            result = await work(*args, **kwargs)
            kind = {
                "create": "sink.",
                "open": "reader.",
                "uploads.open": "uploads.sink.",
            }.get(full)
            return result if kind is None else self._below(result, kind)

        return call

    def _below(self, inner: Any, prefix: str) -> Watched:
        return Watched(inner, self.calls, self.rules, prefix)


def fails(error: Exception) -> Rule:
    """A rule: the call raises."""

    def rule(*_: object) -> None:
        raise error

    return rule


def hangs(*_: object) -> Awaitable[None]:
    """A rule: the call never returns."""
    return Deferred()


class Mouth:
    """A bus member that can be silenced."""

    def __init__(self, inner: MemoryBusMember) -> None:
        self.silent = False
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, topic: str, body: bytes, ttl: float | None = None) -> None:
        """Give it to all, unless silent."""
        if not self.silent:
            await self._inner.publish(topic, body, ttl)

    async def send(self, address: str, body: bytes, ttl: float | None = None) -> None:
        """Give it to one, unless silent."""
        if not self.silent:
            await self._inner.send(address, body, ttl)


class Rig:
    """One data node: its disk, its workers, its voice, and what stands before it."""

    def __init__(
        self, number: int, time: task.Clock, clock: Clock, pack_limit: int = 0
    ) -> None:
        self.disk = SimulatedDisk(clock.wall)
        self.workers = PacedWorkers(time)
        self.node = ShardNode(
            "/data",
            self.disk,
            self.workers,
            clock,
            Random(number).randbytes,
            pack_limit=pack_limit,
        )
        self.watched = Watched(self.node.store)
        below = self.watched.calls, self.watched.rules
        self.uploads = Watched(self.node.store.uploads, *below, "uploads.")
        self.member: DataMember
        self.mouth: Mouth

    @property
    def id(self) -> str:
        """The node's id."""
        return self.node.node_id

    @property
    def calls(self) -> Counter[str]:
        """How often each method was called."""
        return self.watched.calls

    @property
    def rules(self) -> dict[str, Rule]:
        """What comes before a method."""
        return self.watched.rules

    def shards(self, hash: str) -> list[str]:
        """Paths of a content's shards."""
        return [p for p in self.disk.tree("/data/objects") if f"/{hash}." in p]

    def temporaries(self) -> list[str]:
        """Names below temp/."""
        return self.disk.names("/data/temp")

    def open_files(self) -> list[str]:
        """Files that are open, the lock of the root apart."""
        return [path for path in self.disk.open_files() if path != "/data/lock"]

    def go(self) -> None:
        """Fall silent and out of reach, as when the power is cut."""
        self.mouth.silent = True
        for name in ("find", "open", "create", "put_small", "renew", "restore"):
            self.rules[name] = fails(NodeUnreachable("gone"))
        for name in ("sink.write", "sink.commit", "stream.read", "mark_bad"):
            self.rules[name] = fails(NodeUnreachable("gone"))
        for name in UPLOADS:
            self.rules[f"uploads.{name}"] = fails(NodeUnreachable("gone"))

    def come_back(self) -> None:
        """Undo go() and every other rule."""
        self.mouth.silent = False
        self.rules.clear()


class EngineCase(SynchronousTestCase):
    """An engine and its nodes for each test; `rise` makes them, the end checks them.

    At the end nothing may be left: no timers, no open files, no temporaries, no bytes
    lent, no turns taken. With a `pack_limit` the nodes pack, and are beside the engine.
    """

    pack_limit = 0

    def setUp(self) -> None:
        """A clock at rest."""
        self.time = task.Clock()
        self.clock = Clock(self.time, self.time.seconds, self.wall)
        self.rigs: list[Rig] = []
        self.risen = False

    def wall(self) -> float:
        """Seconds since 1970."""
        return BEGIN + self.time.seconds()

    def rise(self, nodes: int = 6, *, mending: bool = False, **options: Any) -> None:
        """Start nodes and engine; mending only when asked for."""
        self.settings = Settings(**{**DEFAULTS, "nodes": nodes, **options})
        self.signer = Signer([SECRET])
        self.bus = MemoryBus(self.clock)
        self.nodes = LocalNodes()
        self.voice = self.bus.member()
        folder = Path(self.mktemp()).resolve()
        folder.mkdir(parents=True)
        self.metadata = Watched(
            SqliteStore(
                str(folder / "metadata"),
                self.clock,
                InlineWorkers(),
                InlineWriter(),
                durable=False,
            )
        )
        self.run_(self.metadata.inner.start())
        for number in range(1, nodes + 1):
            self.add_rig(number)
        entropy = Random(0).randbytes

        def node_of(id: str) -> ShardNode:
            return next(rig.node for rig in self.rigs if rig.id == id)

        async def tell(node: str, facts: ClusterFacts) -> None:
            await node_of(node).adopt(facts.id, facts.epoch)

        async def drain(node: str, on: bool) -> None:
            await node_of(node).drain(on=on)

        self.engine: Engine = assemble(
            self.settings,
            self.voice,
            self.nodes,
            self.metadata,  # type: ignore[arg-type]  # stands before a real one
            self.signer,
            self.clock,
            entropy,
            InlineWorkers(),
            tell=tell,
            drain=drain,
            expected=frozenset(rig.id for rig in self.rigs),
            tokens=Tokens([SECRET]),
        )
        self.risen = True
        self.addCleanup(self.fall)
        self.run_(self.voice.start())
        self.run_(self.engine.cluster.start())
        self.turn()
        if mending:
            self.run_(self.engine.mending.start())
        self.store = self.engine.store

    def add_rig(self, number: int) -> Rig:
        """One more node, started."""
        rig = Rig(number, self.time, self.clock, self.pack_limit)
        self.run_(rig.node.start())
        rig.mouth = Mouth(self.bus.member())
        place = f"nodes/{number}"
        rig.member = DataMember(
            rig.node,
            rig.mouth,  # type: ignore[arg-type]  # stands before a real one
            self.signer,
            self.clock,
            Random(number).randbytes,
            heartbeat=self.settings.heartbeat,
            url=place,
            zone=place,
        )
        rig.member._announcer._answering._store = rig.watched  # type: ignore[assignment]  # as above
        self.run_(rig.mouth.start())
        self.run_(rig.member.start())
        beside = rig.node.store if self.pack_limit else None
        self.nodes.add(rig.id, rig.watched, place, rig.uploads, beside)  # type: ignore[arg-type]  # so do these
        self.rigs.append(rig)
        return rig

    def fall(self) -> None:
        """Stop everything, and see that nothing is left."""
        if not self.risen:
            return
        self.risen = False
        longest = max(rig.workers.delay for rig in self.rigs)
        for rig in self.rigs:
            rig.workers.delay = 0.0
            rig.workers.release()
        self.pass_(longest)
        self.run_(self.engine.mending.stop())
        self.run_(self.engine.putting.stop())
        self.run_(self.engine.cluster.stop())
        for rig in self.rigs:
            self.run_(rig.member.stop())
            self.run_(rig.mouth.stop())
        self.run_(self.voice.stop())
        self.run_(self.metadata.inner.stop())
        for rig in self.rigs:
            self.run_(rig.node.stop())
            self.assertEqual(rig.open_files(), [])
            self.assertEqual(rig.temporaries(), [])
        self.assertEqual(self.time.getDelayedCalls(), [])
        self.assertEqual(self.engine.putting.writing.budget.lent, 0)
        self.assertEqual(len(self.engine.putting.turns), 0)

    # Time

    def turn(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(100):
            now = self.time.seconds()
            if not any(c.getTime() <= now for c in self.time.getDelayedCalls()):
                return
            self.time.advance(0)
        self.fail("it never comes to rest")

    def pass_(self, seconds: float) -> None:
        """Let time go by, timer by timer."""
        end = self.time.seconds() + seconds
        while True:
            self.turn()
            due = [call.getTime() for call in self.time.getDelayedCalls()]
            then = min([end, *due])
            if then >= end:
                self.time.advance(max(0.0, end - self.time.seconds()))
                self.turn()
                return
            self.time.advance(then - self.time.seconds())

    def begin(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Set it going; errors are looked at by `finish`."""
        return start(work)

    def finish(self, running: Deferred[T], seconds: float = 120.0) -> T:
        """What it gives or raises within so much time."""
        outcome: list[T | Failure] = []
        _ = running.addBoth(outcome.append)
        end = self.time.seconds() + seconds
        self.turn()
        while not outcome:
            due = [call.getTime() for call in self.time.getDelayedCalls()]
            if not due or min(due) > end:
                running.cancel()
                self.fail(f"not done after {seconds:g} s: {outcome}")
            self.time.advance(max(0.0, min(due) - self.time.seconds()))
            self.turn()
        (result,) = outcome
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def run_(self, work: Coroutine[Any, Any, T], seconds: float = 120.0) -> T:
        """Begin and finish."""
        return self.finish(self.begin(work), seconds)

    def refused(
        self, error: type[T], work: Coroutine[Any, Any, object], seconds: float = 120.0
    ) -> T:
        """The error of that kind which the work ends in."""
        try:
            self.run_(work, seconds)
        except Exception as raised:  # noqa: BLE001 - compared at once
            found: object = raised
        else:
            found = None
        self.assertIsInstance(found, error)
        assert isinstance(found, error)
        return found

    # Verbs

    async def put(
        self, content: bytes, name: str = "name", piece: int = 256 << 10, **asked: Any
    ) -> Version:
        """Store a content."""
        pieces = (content[at : at + piece] for at in range(0, len(content), piece))
        return await self.store.put(PutRequest(name, **asked), Pieces(pieces))

    async def get(
        self, name: str = "name", begin: int = 0, stop: int | None = None
    ) -> bytes:
        """The bytes of the newest version."""
        found = await self.store.open(name)
        stream = await found.read(begin, found.version.size if stop is None else stop)
        try:
            parts = []
            while piece := await stream.read():
                parts.append(piece)
            return b"".join(parts)
        finally:
            await stream.close()

    def versions(self, name: str = "name") -> list[int]:
        """The numbers of a name's versions."""
        found = self.run_(self.store.versions_of(name, 0, 1000))
        return [version.number for version in found]

    # What is on the nodes

    def holders(self, content: bytes) -> dict[int, list[Rig]]:
        """Index -> the nodes with that shard in objects/."""
        found: dict[int, list[Rig]] = {}
        for rig in self.rigs:
            for path in rig.shards(sha256(content)):
                found.setdefault(int(path.split(".")[-2]), []).append(rig)
        return found

    def holder(self, content: bytes, index: int) -> Rig:
        """The one node with that shard."""
        (rig,) = self.holders(content)[index]
        return rig

    def lose(self, content: bytes, *indices: int) -> list[Rig]:
        """Delete these shards' files behind the nodes' backs."""
        rigs = []
        for index in indices:
            for rig in self.holders(content)[index]:
                for path in rig.shards(sha256(content)):
                    if f".{index}." in path:
                        rig.disk.delete(path)
                rigs.append(rig)
        return rigs

    def flip(self, content: bytes, index: int, offset: int) -> Rig:
        """Rot one byte of a shard's file."""
        rig = self.holder(content, index)
        (path,) = rig.shards(sha256(content))
        size = len(rig.disk.content(path))
        rig.disk.flip(path, offset % size)
        return rig

    def assert_whole(self, content: bytes) -> None:
        """All six shards, each on a node of its own."""
        holders = self.holders(content)
        self.assertEqual(sorted(holders), list(range(6)))
        self.assertEqual({len(rigs) for rigs in holders.values()}, {1})
        self.assertEqual(len({rigs[0].id for rigs in holders.values()}), 6)

    def assert_nothing(self, name: str = "name") -> None:
        """No version of the name, and no file anywhere."""
        self.assertEqual(self.versions(name), [])
        for rig in self.rigs:
            self.assertEqual(rig.disk.tree("/data/objects"), [])
            self.assertEqual(rig.temporaries(), [])


async def bus_away(*_: object) -> None:
    """A bus member's publish while the broker is away."""
    raise BusUnavailable("away")
