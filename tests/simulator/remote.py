"""Nodes as an engine reaches them: requests that take time, fail, or are never answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ostore.erasure.framing import Frame, Table
from ostore.interfaces import (
    IFrameStream,
    INodes,
    IShardReader,
    IShardSink,
    IShardStore,
    IUploads,
)
from ostore.model.errors import NodeUnreachable, OstoreError
from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
from ostore.model.nodes import Members, Space
from ostore.model.versions import ClusterFacts
from ostore.streaming.tasks import start
from tests.simulator.world import Process, World
from tests.support.disk import PowerCut

PATIENCE = 15.0
"""Seconds after which a request that nobody answers fails."""


class Host(Protocol):
    """The far end: one node, whichever process runs it now."""

    id: str
    name: str
    process: Process
    epoch: int
    store: Any
    """What serves requests; None while it is down."""

    async def adopt(self, facts: ClusterFacts) -> None:
        """Learn of an epoch."""


class Network:
    """Which process reaches which node, and what was named against the rules."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.hosts: dict[str, Host] = {}
        """By node id; one that was replaced by another stays under its own."""
        self.refused: set[tuple[str, str]] = set()
        self.silent: set[tuple[str, str]] = set()
        """(process, host) between which nothing gets through any more."""
        self.late: dict[str, float] = {}
        """Seconds that requests to a host may take longer."""
        self.deaf: dict[str, float] = {}
        """The chance that an answer of a host is lost."""
        self.doubles: Callable[[ShardKey], list[str]] = lambda _: []
        """Names of the two nodes that hold that shard, and no other of the content."""
        self.reading: Counter[tuple[str, ShardKey]] = Counter()
        """Open readers by process and shard."""
        self.surveys: dict[tuple[str, str], tuple[float, set[str]]] = {}
        """When a process last asked about a content, and who has not said for sure."""


class Wire:
    """Requests of one process to one node; another one at its place refuses them."""

    def __init__(self, net: Network, process: Process, node: str) -> None:
        self.net = net
        self.process = process
        self.node = node
        self.host = net.hosts[node]

    def survey(self, hash: str) -> set[str]:
        """Who has not answered yet, of all that are asked at this moment."""
        now, about = self.net.world.now, (self.process.name, hash)
        begun, silent = self.net.surveys.get(about, (-1.0, set()))
        if begun != now:
            begun, silent = self.net.surveys[about] = now, set()
        silent.add(self.host.name)
        return silent

    def look_at_survey(self, key: ShardKey, age: float) -> None:
        """Nothing is rebuilt while any node cannot say what it holds.

        A new shard has no age, and one that is being moved is read at its old place.
        """
        me = self.process.name
        _, silent = self.net.surveys.get((me, key.hash), (0.0, set()))
        if age and silent and not self.net.reading[me, key]:
            self.net.world.violated(
                f"{me} rebuilds a shard of {key.hash[:6]} on {self.host.name}, though "
                f"{sorted(silent)} did not say what they hold"
            )

    async def ask(
        self,
        what: str,
        work: Callable[[Any], Awaitable[Any]],
        late: Callable[[Any], object] = lambda _: None,
        store: Any = None,
    ) -> Any:
        """What `work(store)` gives at the node.

        `late` gets a result that nobody waits for any longer. With a `store` only that
        start of the node can answer.
        """
        call = _Call(self, what, work, late, store)
        try:
            return await call.answer
        except CancelledError:
            call.abandon()
            raise


class _Call:
    """One request, from the moment it is sent."""

    def __init__(
        self,
        wire: Wire,
        what: str,
        work: Callable[[Any], Awaitable[Any]],
        late: Callable[[Any], object],
        store: Any,
    ) -> None:
        self.answer: Deferred[Any] = wire.process.awaited()
        self._wire = wire
        self._what = what
        self._work = work
        self._late = late
        self._store = store
        self._abandoned = False
        self._running: Deferred[Any] | None = None
        world, net = wire.net.world, wire.net
        delay = world.delay() + net.late.get(wire.host.name, 0.0) * world.rng.random()
        world.later(delay, self._arrive)
        self._patience = world.later(PATIENCE + delay, self._fail, "no answer")

    def abandon(self) -> None:
        """Nobody waits for it: the node may notice, or do it all the same."""
        self._abandoned = True
        world = self._wire.net.world
        running = self._running
        if running is not None and not running.called and world.rng.random() < 0.5:
            self._wire.host.process.enter(running.cancel)

    def _link(self) -> tuple[str, str]:
        return self._wire.process.name, self._wire.host.name

    def _arrive(self) -> None:
        wire, world = self._wire, self._wire.net.world
        host, link = wire.host, self._link()
        if link in wire.net.silent:
            return
        if link in wire.net.refused or host.store is None:
            world.later(world.delay(), self._fail, "connection refused")
        elif self._abandoned and world.rng.random() < 0.5:
            return
        else:
            host.process.enter(self._serve)

    def _serve(self) -> None:
        host, world = self._wire.host, self._wire.net.world
        if host.store is None or self._store not in (None, host.store):
            world.later(world.delay(), self._fail, "connection lost")
            return
        if host.id != self._wire.node:
            world.later(world.delay(), self._fail, "another node answers there")
            return
        world.note(f"{self._wire.process.name} > {host.name} {self._what}")
        running = start(self._work(host.store))
        self._running = running
        _ = running.addBoth(self._served)

    def _served(self, result: Any) -> None:
        wire, world = self._wire, self._wire.net.world
        told = result
        if isinstance(result, Failure):
            error = result.value
            told = type(error).__name__
            if isinstance(error, PowerCut | CancelledError):
                world.later(world.delay(), self._fail, "connection lost")
                return
            if not isinstance(error, OstoreError):
                world.violated(
                    f"{wire.host.name} fails with {error!r} at {self._what}: "
                    f"{result.getTraceback()}"
                )
        elif not isinstance(result, bool | int | Holding):
            told = "done"
        if not wire.host.process.alive:
            world.later(world.delay(), self._fail, "connection lost")
            return
        world.note(f"{wire.process.name} < {wire.host.name} {self._what} {brief(told)}")
        deaf = wire.net.deaf.get(wire.host.name, 0.0)
        if self._link() in wire.net.silent or (deaf and world.rng.random() < deaf):
            if not isinstance(result, Failure):
                self._late(result)
            return
        world.later(world.delay(), wire.process.enter, self._deliver, result)

    def _deliver(self, result: Any) -> None:
        self._patience.cancel()
        if not self.answer.called:
            self.answer.callback(result)
        elif not isinstance(result, Failure):
            self._late(result)

    def _fail(self, why: str) -> None:
        self._wire.process.enter(self._failed, why)

    def _failed(self, why: str) -> None:
        if not self.answer.called:
            self.answer.errback(
                Failure(NodeUnreachable(f"{self._wire.host.name}: {why}"))
            )


def brief(told: Any) -> str:
    """An answer in a few words."""
    if isinstance(told, Holding):
        shards = ",".join(f"{s.index}/{s.layout.id[:4]}" for s in told.shards)
        return f"{told.state} {shards}"
    return str(told)


@implementer(INodes)
class SimNodes:
    """The nodes that one process has heard of."""

    def __init__(
        self,
        net: Network,
        process: Process,
        members: Callable[[], Members],
        uploads: Callable[[Wire], IUploads],
    ) -> None:
        self._net = net
        self._uploads = uploads
        self._process = process
        self._members = members
        self._stores: dict[str, RemoteStore] = {}

    def at_hand(self, node: str) -> None:
        """All of them are across a network."""

    def store(self, node: str) -> RemoteStore:
        """The shards of that node."""
        if node not in self._members().by_id:
            raise NodeUnreachable("nobody heard of that node")
        if node not in self._stores:
            self._stores[node] = RemoteStore(Wire(self._net, self._process, node))
        return self._stores[node]

    def uploads(self, node: str) -> IUploads:
        """The resumable uploads on that node."""
        if node not in self._members().by_id:
            raise NodeUnreachable("nobody heard of that node")
        return self._uploads(Wire(self._net, self._process, node))

    async def adopt(self, node: str, facts: ClusterFacts) -> None:
        """Tell a node the cluster's epoch."""
        wire = Wire(self._net, self._process, node)
        host = wire.host

        async def adopt(_: Any) -> None:
            await host.adopt(facts)
            host.epoch = max(host.epoch, facts.epoch)

        await wire.ask(f"adopt {facts.epoch}", adopt)

    def place(self, node: str) -> str:
        """How `/locate` names it."""
        if node not in self._members().by_id:
            raise NodeUnreachable("nobody heard of that node")
        return self._net.hosts[node].name


def rank(hash: str, nodes: Sequence[str]) -> Sequence[str]:
    """By rendezvous: everybody has the same order, and no need to ask."""

    def draw(node: str) -> int:
        return int.from_bytes(sha256(f"{hash}\0{node}".encode()).digest()[:8]) >> 12

    return sorted(nodes, key=lambda node: (-draw(node), node))


def named(key: ShardKey) -> str:
    """A shard in a trace."""
    return f"{key.hash[:6]}.{key.index}.{key.layout[:4]}"


@implementer(IShardStore)
class RemoteStore:
    """The shards of one node."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(self, upload: str) -> RemoteSink:
        """A temporary shard."""
        made: list[Any] = []

        async def create(store: Any) -> Any:
            made.append(store)
            return await store.create(upload)

        def dropped(sink: Any) -> None:
            self._wire.host.process.enter(lambda: start(sink.abort()))

        sink = await self._wire.ask("create", create, dropped)
        return RemoteSink(self._wire, made[-1], sink)

    async def put_small(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> None:
        """Write and name a shard."""
        self._wire.look_at_survey(key, age)
        watch = Deadline(self._wire, deadline)
        await self._wire.ask(
            f"put {named(key)}",
            lambda store: watch.over(
                store.put_small(key, layout, frames, watch.theirs, age)
            ),
        )

    async def find(self, hash: str) -> Holding:
        """All whole shards of a content."""
        survey = self._wire.survey(hash)
        found: Holding = await self._wire.ask(
            f"find {hash[:6]}", lambda store: store.find(hash)
        )
        if found.state != "unsure":
            survey.discard(self._wire.host.name)
        return found

    async def open(self, key: ShardKey, *, bad: bool = False) -> RemoteReader:
        """One shard for reading."""
        made: list[Any] = []

        async def opened(store: Any) -> Any:
            made.append(store)
            return await store.open(key, bad=bad)

        def dropped(reader: Any) -> None:
            self._wire.host.process.enter(lambda: start(reader.close()))

        reader = await self._wire.ask(f"open {named(key)}", opened, dropped)
        return RemoteReader(self._wire, made[-1], reader, key)

    async def renew(self, hash: str, layout: str) -> Holding:
        """A new age for all shards of a layout."""
        found: Holding = await self._wire.ask(
            f"renew {hash[:6]}", lambda store: store.renew(hash, layout)
        )
        return found

    async def restore(self, hash: str) -> Holding:
        """Bring back what garbage has of a content."""
        found: Holding = await self._wire.ask(
            f"restore {hash[:6]}", lambda store: store.restore(hash)
        )
        return found

    async def condemn(
        self, key: ShardKey, age: float = 0.0, epoch: int | None = None
    ) -> str:
        """Mark a shard; gives a token."""
        token: str = await self._order(
            f"condemn {named(key)}", epoch, lambda s: s.condemn(key, age, epoch)
        )
        return token

    async def discard(
        self, key: ShardKey, token: str, epoch: int | None = None
    ) -> bool:
        """Move a condemned shard to garbage."""
        host, net = self._wire.host, self._wire.net

        async def discard(store: Any) -> bool:
            doubles = net.doubles(key)
            moved: bool = await store.discard(key, token, epoch)
            ids = [each.id for each in net.hosts.values() if each.name in doubles]
            if moved and host.name in doubles and rank(key.hash, ids)[0] == host.id:
                net.world.violated(
                    f"{host.name} gives up a shard of {key.hash[:6]} that ranks before "
                    f"its double: {doubles}"
                )
            return moved

        found: bool = await self._order(f"discard {named(key)}", epoch, discard)
        return found

    async def erase(self, key: ShardKey, age: float, epoch: int | None = None) -> int:
        """Remove for good what is so old."""
        freed: int = await self._order(
            f"erase {named(key)}", epoch, lambda s: s.erase(key, age, epoch)
        )
        return freed

    async def _order(
        self, what: str, epoch: int | None, work: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        """An order of maintenance: none of an epoch that is over may be obeyed."""
        host = self._wire.host

        async def ordered(store: Any) -> Any:
            highest = host.epoch
            result = await work(store)
            if epoch is not None:
                host.epoch = max(host.epoch, epoch)
                if epoch < highest:
                    self._wire.net.world.violated(
                        f"{host.name} obeys an order of epoch {epoch}, having seen "
                        f"{highest}: {what}"
                    )
            return result

        return await self._wire.ask(what, ordered)

    def __getattr__(self, name: str) -> Any:
        """Everything else: one request, one answer."""

        async def asked(*args: Any, **more: Any) -> Any:
            about = named(args[0]) if args and isinstance(args[0], ShardKey) else ""
            return await self._wire.ask(
                f"{name} {about}", lambda store: getattr(store, name)(*args, **more)
            )

        return asked

    async def space(self) -> Space:
        """Bytes free and in all."""
        found: Space = await self._wire.ask("space", lambda store: store.space())
        return found


class Deadline:
    """That of a commit: `theirs` by the node's clock, and by the one true time."""

    def __init__(self, wire: Wire, deadline: float | None) -> None:
        self._world = wire.net.world
        self._host = wire.host
        self._skew = wire.host.process.skew
        self._true: float | None = None
        self.theirs = deadline
        if deadline is not None:
            left = deadline - wire.process.wall()
            self._true = self._world.now + left
            self.theirs = wire.host.process.wall() + left

    async def over(self, work: Awaitable[Any]) -> Any:
        """What `work` gives, if it was in time."""
        result = await work
        late = self._true is not None and self._world.now > self._true
        if late and self._host.process.skew == self._skew:
            self._world.violated(f"{self._host.name} took a commit after its deadline")
        return result


@implementer(IShardSink)
class RemoteSink:
    """A temporary on one start of a node."""

    def __init__(self, wire: Wire, store: Any, sink: Any) -> None:
        self._wire = wire
        self._store = store
        self._sink = sink

    async def write(self, frame: Frame) -> None:
        """Append one frame."""
        await self._ask(f"write {frame.number}", lambda: self._sink.write(frame))

    async def commit(
        self, key: ShardKey, layout: Layout, deadline: float | None, age: float
    ) -> None:
        """Name the temporary."""
        self._wire.look_at_survey(key, age)
        watch = Deadline(self._wire, deadline)
        await self._ask(
            f"commit {named(key)}",
            lambda: watch.over(self._sink.commit(key, layout, watch.theirs, age)),
        )

    async def abort(self) -> None:
        """Drop the temporary."""
        try:
            await self._ask("abort", self._sink.abort)
        except NodeUnreachable:
            return

    async def _ask(self, what: str, work: Callable[[], Awaitable[Any]]) -> None:
        await self._wire.ask(what, lambda _: work(), store=self._store)


@implementer(IShardReader)
class RemoteReader:
    """A shard that was opened on one start of a node."""

    def __init__(self, wire: Wire, store: Any, reader: Any, key: ShardKey) -> None:
        self.facts: ShardFacts = reader.facts
        self.table: Table = reader.table
        self._wire = wire
        self._store = store
        self._reader = reader
        self._closed = False
        self._about = wire.process.name, key
        wire.net.reading[self._about] += 1

    def frames(self, first: int, stop: int) -> RemoteStream:
        """Frames of the stripes first <= i < stop."""
        return RemoteStream(self._wire, self._store, self._reader.frames(first, stop))

    async def close(self) -> None:
        """Give up the file."""
        if not self._closed:
            self._closed = True
            self._wire.net.reading[self._about] -= 1
        self._wire.host.process.enter(lambda: start(self._reader.close()))


@implementer(IFrameStream)
class RemoteStream:
    """Frames of one shard."""

    def __init__(self, wire: Wire, store: Any, stream: Any) -> None:
        self._wire = wire
        self._store = store
        self._stream = stream

    async def read(self) -> Frame | None:
        """The next frame."""
        frame: Frame | None = await self._wire.ask(
            "read", lambda _: self._stream.read(), store=self._store
        )
        return frame

    async def close(self) -> None:
        """Give up what is held."""
        self._wire.host.process.enter(lambda: start(self._stream.close()))
