"""Plays a story: clients ask, faults come and go, and every answer is looked at."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from ostore.engine.store import PutRequest
from ostore.model.conditions import WriteCondition
from ostore.model.errors import (
    AlreadyExists,
    ConditionFailed,
    Deleted,
    DigestMismatch,
    NotFound,
    OstoreError,
    OutcomeUnknown,
)
from ostore.model.versions import Version
from ostore.streaming.tasks import start
from tests.simulator.audit import DATA, PARITY, Audit, Kept
from tests.simulator.cluster import HEARTBEAT, Cluster, EngineHost, NodeHost
from tests.simulator.contents import BY_HASH, CONTENTS, HASHES
from tests.simulator.disks import FAILURES
from tests.simulator.metadata import Mood
from tests.simulator.story import NAMES, Step, Story
from tests.simulator.wires import Weather
from tests.simulator.world import Process, World
from tests.support.disk import PowerCut
from tests.support.linearizable import (
    UNKNOWN,
    Add,
    Answer,
    Call,
    Get,
    Latest,
    Operation,
    Purge,
    Seen,
    Versions,
    explain,
)
from tests.support.recorder import Nothing, Recorder

SETTLE = 1.2 * HEARTBEAT + 1
"""Seconds after a fault until all have heard of each other again."""
LONGEST = 300.0
"""Seconds within which every request ends."""
MENDED = 130.0
"""Seconds after which everything that can be mended is."""
DEFINITE = (AlreadyExists, ConditionFailed)
PIECE = 256 * 1024


@attrs.frozen
class Outcome:
    """How a story ended."""

    story: Story
    digest: str
    violations: tuple[str, ...]
    lines: tuple[str, ...]
    acknowledged: int
    reads: int


class Body:
    """What a client sends, with a pause before each piece."""

    def __init__(self, world: World, content: bytes, pause: float) -> None:
        self._world = world
        self._pause = pause
        self._pieces = [
            content[at : at + PIECE] for at in range(0, len(content), PIECE)
        ]

    async def read(self) -> bytes:
        """The next piece."""
        if self._pause:
            waiting: Deferred[None] = Deferred(lambda _: timer.cancel())
            timer = self._world.later(self._pause, waiting.callback, None)
            await waiting
        return self._pieces.pop(0) if self._pieces else b""


class Stage:
    """One story from beginning to end."""

    def __init__(self, story: Story, folder: Path, *, keep: bool = False) -> None:
        self.story = story
        self.world = World(story.seed, keep=keep)
        self.cluster = Cluster(self.world, story.plan, folder)
        self.audit = Audit(self.cluster)
        self.recorder = Recorder(self.world.tick)
        self.reads = 0
        self.acks = 0
        self._trouble: dict[str, list[tuple[float, float]]] = {}
        self._ending: list[Callable[[], None]] = []
        self._running: dict[int, tuple[str, float]] = {}
        self._ours: dict[tuple[str, int], None] = {}
        self._ops = 0

    # From beginning to end

    def play(self) -> Outcome:
        """All steps, then peace, then the last look."""
        observer = _Watcher(self.world)
        globalLogPublisher.addObserver(observer)
        try:
            self.world.reseed(-1)
            self.cluster.start()
            for step in self.story.steps:
                self.step(step)
                if self.world.violations:
                    break
            if not self.world.violations:
                self.world.reseed(-2)
                self.end()
            self.cluster.stop()
        finally:
            globalLogPublisher.removeObserver(observer)
        return Outcome(
            self.story,
            self.world.trace.digest,
            tuple(self.world.violations),
            tuple(self.world.trace.lines),
            self.acks,
            self.reads,
        )

    def step(self, step: Step) -> None:
        """Begin it, and let the time behind it go by."""
        self.world.reseed(step.number)
        self.world.note(f"STEP {step}")
        getattr(self, f"do_{step.kind}")(step, *step.args)
        self.pass_(step.pause)
        if not self.world.violations:
            self.audit.look()

    def pass_(self, seconds: float) -> None:
        """Let time go by, up to the first thing that is wrong."""
        world = self.world
        world.timers.run(world.now + seconds, lambda: bool(world.violations))

    def end(self) -> None:
        """Let all faults end; then everything that was promised must be there."""
        self.world.note("PEACE")
        self.world.calm = True
        for each in list(self._ending):
            each()
        self.pass_(5.0)
        self.world.timers.run(
            self.world.now + LONGEST,
            lambda: not self._running or bool(self.world.violations),
        )
        for what, since in self._running.values():
            self.world.violated(f"{what} takes more than {self.world.now - since} s")
        if self.world.violations:
            return
        for engine in self.cluster.engines:
            engine.die()
            self.world.later(0.1, engine.boot)
        self.pass_(SETTLE + 1)
        self._read_all()
        self.pass_(MENDED)
        self._read_all()
        self.pass_(10.0)
        if not self.world.violations:
            self._last_look()

    def _read_all(self) -> None:
        """Every version of every name, on every engine in turn."""
        engines = self.cluster.engines
        for at, name in enumerate(NAMES):
            host = engines[at % len(engines)]
            self._begin(host, f"list {name}", self._list(host, name, self._read_each))
            self.pass_(10.0)

    def _read_each(self, host: EngineHost, name: str, found: tuple[Seen, ...]) -> None:
        for seen in found:
            if not seen.deleted:
                what = f"last get {name}/{seen.number}"
                self._begin(host, what, self._get(host, name, seen.number, ()))

    def _last_look(self) -> None:
        self.audit.look()
        # Nobody reads parity without need: its rot is for the scrubber to find.
        found = self.audit.platters(range(DATA, DATA + PARITY))
        for hash in sorted(self.audit.wanted()):
            best = found.get(hash, Kept()).best()
            if best < DATA + PARITY and BY_HASH[hash]:
                self.world.violated(
                    f"{hash[:6]} has {best} shards in the end (guarantee 5)"
                )
        for host in self.cluster.engines:
            lent = host.engine.putting.writing.budget.lent
            turns = len(host.engine.putting.turns)
            if lent or turns:
                self.world.violated(f"{host.name} holds {lent} bytes, {turns} turns")
        for name, number, tick in self.cluster.purges:
            if (name, number) not in self._ours:
                # A PUT took its version back.
                history = self.recorder.histories.setdefault(name, [])
                history.append(Operation(Purge(number), UNKNOWN, tick))
        for name, history in sorted(self.recorder.histories.items()):
            why = explain(history)
            if why is not None:
                self.world.violated(f"the versions of {name} (guarantee 3): {why}")

    # Clients

    def _begin(self, host: EngineHost, what: str, work: Awaitable[object]) -> None:
        """A client's request, if there is somebody to take it."""
        if not host.up:
            work.close()  # type: ignore[attr-defined]  # a coroutine
            return
        self._ops += 1
        number = self._ops
        self._running[number] = what, self.world.now
        self.world.note(f"ask {host.name} {what}")
        running = start(self._watched(what, work))
        host.ops[running] = None

        def ended(_: object) -> None:
            host.ops.pop(running, None)
            self._running.pop(number, None)

        _ = running.addBoth(ended)

    async def _watched(self, what: str, work: Awaitable[object]) -> None:
        try:
            told = await work
            self.world.note(f"told {what}: {told}")
        except (CancelledError, PowerCut):
            self.world.note(f"told {what}: nothing")
        except Exception as error:  # noqa: BLE001 - looked at here and now
            self.world.note(f"told {what}: {error!r}")
            if not isinstance(error, OstoreError):
                self.world.violated(f"{what} fails with {error!r}")

    async def _change(
        self, host: EngineHost, name: str, call: Call, work: Awaitable[Answer]
    ) -> Answer | Nothing:
        """A call for the history of its name; PowerCut leaves the outcome unknown."""

        async def asked() -> Answer:
            try:
                return await work
            except PowerCut:
                raise OutcomeUnknown("the engine died") from None

        return await self.recorder.run(name, call, asked())

    def do_put(
        self, step: Step, engine: int, name: str, content: int, mode: str
    ) -> None:
        """A client stores something."""
        host = self.cluster.engines[engine]
        key = None
        if mode in ("keyed", "again"):
            key = f"{step.number if mode == 'keyed' else 1000 + content:032x}"
        request = PutRequest(
            name,
            digest=HASHES[content] if mode != "wrong" else HASHES[content - 1],
            put_id=key,
            condition=WriteCondition(create_only=mode == "create"),
        )
        pause = 0.0 if mode != "slow" else 2.0 * self.world.rng.random()
        body = Body(self.world, CONTENTS[content], pause)
        told = key or f"step {step.number}"
        call = Add(told, HASHES[content], condition=request.condition)
        what = f"put {name} {HASHES[content][:6]} {mode}"
        self._begin(
            host,
            what,
            self._put(host, name, call, lambda: host.store.put(request, body)),
        )

    async def _put(
        self,
        host: EngineHost,
        name: str,
        call: Add,
        work: Callable[[], Awaitable[Version | None]],
    ) -> object:
        invoked, since = self.world.tick(), self.world.now

        async def asked() -> Answer:
            try:
                version = await work()
            except DEFINITE as error:
                return type(error)
            except (DigestMismatch, NotFound):
                raise Nothing from None
            except OstoreError as error:
                self._blame(host, "a write", since, error)
                raise
            if version is None:
                raise Nothing
            if version.hash != call.hash:
                self.world.violated(f"{name}/{version.number} has another hash")
            self._ack(host, version, invoked)
            return attrs.evolve(Seen.of(version), put_id=None)

        return await self._change(host, name, call, asked())

    def _ack(self, host: EngineHost, version: Version, invoked: float) -> None:
        self.acks += 1
        if (version.name, version.number) in self._ours:
            return  # it was asked to go meanwhile
        assert version.layout is not None
        quorum = host.engine.putting.writing.quorum(version.layout)
        self.audit.ack(version, invoked, quorum)

    def do_instant(self, step: Step, engine: int, name: str, content: int) -> None:
        """A client names a content that may be there."""
        host = self.cluster.engines[engine]
        request = PutRequest(name, digest=HASHES[content], size=len(CONTENTS[content]))
        call = Add(f"step {step.number}", HASHES[content])
        work = self._put(host, name, call, lambda: host.store.instant(request))
        self._begin(host, f"instant {name} {HASHES[content][:6]}", work)

    def do_copy(self, step: Step, engine: int, source: str, target: str) -> None:
        """A client copies one name to another."""
        host = self.cluster.engines[engine]
        self._begin(
            host, f"copy {source} {target}", self._copy(host, step, source, target)
        )

    async def _copy(
        self, host: EngineHost, step: Step, source: str, target: str
    ) -> object:
        opened = await host.store.open(source)
        version = opened.version
        call = Add(f"step {step.number}", version.hash)
        return await self._put(
            host,
            target,
            call,
            lambda: host.store.copy(PutRequest(target), source, version.number),
        )

    def do_delete(self, step: Step, engine: int, name: str) -> None:
        """A client deletes a name."""
        host = self.cluster.engines[engine]
        call = Add(f"step {step.number}", deleted=True)
        self._begin(host, f"delete {name}", self._delete(host, name, call))

    async def _delete(self, host: EngineHost, name: str, call: Add) -> object:
        since = self.world.now

        async def asked() -> Answer:
            try:
                version = await host.store.delete(name)
            except NotFound:
                return NotFound
            except OstoreError as error:
                self._blame(host, "a write", since, error)
                raise
            return attrs.evolve(Seen.of(version), put_id=None)

        return await self._change(host, name, call, asked())

    def do_purge(self, step: Step, engine: int, name: str, number: int) -> None:
        """A client removes a version for good."""
        host = self.cluster.engines[engine]
        self._begin(host, f"purge {name}/{number}", self._purge(host, name, number))

    async def _purge(self, host: EngineHost, name: str, number: int) -> object:
        async def asked() -> Answer:
            try:
                await host.store.purge(name, number)
            except NotFound:
                return False
            return True

        self._ours[name, number] = None
        self.audit.forget(name, number)
        return await self._change(host, name, Purge(number), asked())

    def do_list(self, step: Step, engine: int, name: str) -> None:
        """A client lists a name's versions."""
        host = self.cluster.engines[engine]
        self._begin(host, f"list {name}", self._list(host, name))

    async def _list(
        self,
        host: EngineHost,
        name: str,
        then: Callable[[EngineHost, str, tuple[Seen, ...]], None] = lambda *_: None,
    ) -> object:
        async def asked() -> Answer:
            found = await host.store.versions_of(name, 0, 1000)
            return tuple(attrs.evolve(Seen.of(each), put_id=None) for each in found)

        answer = await self._change(host, name, Versions(), asked())
        if isinstance(answer, tuple):
            then(host, name, answer)
        return answer

    def do_get(
        self, step: Step, engine: int, name: str, number: int, span: tuple[float, ...]
    ) -> None:
        """A client reads."""
        host = self.cluster.engines[engine]
        what = f"get {name}/{number or 'latest'}"
        self._begin(host, what, self._get(host, name, number, span))

    async def _get(
        self, host: EngineHost, name: str, number: int, span: tuple[float, ...]
    ) -> object:
        since = self.world.now
        found: list[Any] = []

        async def asked() -> Answer:
            try:
                opened = await host.store.open(name, number or None)
            except Deleted as error:
                return Seen(error.number, deleted=True)
            except NotFound:
                return None
            found.append(opened)
            return attrs.evolve(Seen.of(opened.version), put_id=None)

        answer = await self._change(
            host, name, Get(number) if number else Latest(), asked()
        )
        if not found:
            return answer
        (opened,) = found
        version: Version = opened.version
        whole = BY_HASH[version.hash]
        begin, stop = 0, len(whole)
        if span:
            begin, stop = sorted(int(each * len(whole)) for each in span)
        read = b""
        try:
            stream = await opened.read(begin, stop)
            try:
                while piece := await stream.read():
                    read += piece
            finally:
                await stream.close()
        except OstoreError as error:
            if not whole[begin:stop].startswith(read):
                self.world.violated(f"wrong bytes of {name}/{version.number}")
            self._blame(host, "a read", since, error, version.hash)
            raise
        self.reads += 1
        if read != whole[begin:stop]:
            self.world.violated(
                f"wrong bytes of {name}/{version.number} {begin}-{stop} (guarantee 2)"
            )
        return f"{len(read)} bytes"

    def do_locate(self, step: Step, engine: int, content: int) -> None:
        """A client asks where a content is."""
        host = self.cluster.engines[engine]
        self._begin(host, f"locate {HASHES[content][:6]}", self._locate(host, content))

    async def _locate(self, host: EngineHost, content: int) -> object:
        since, before = self.world.now, self.audit.platters()
        try:
            return await host.store.locate(HASHES[content])
        except NotFound:
            # Whoever is heard of has been asked, and all of them have said no.
            kept = before.get(HASHES[content], Kept())
            if kept.best(self._well(host, since)) >= DATA:
                self.world.violated(f"{HASHES[content][:6]} is said to be nowhere")
            raise

    # Who is to blame

    def trouble(self, who: str, seconds: float) -> None:
        """From now on, and for a while behind those seconds, `who` may fail others."""
        now = self.world.now
        self._trouble.setdefault(who, []).append((now, now + seconds + SETTLE))

    def troubled(self, who: str, since: float) -> bool:
        """Whether it had trouble since then."""
        return any(end >= since for _, end in self._trouble.get(who, ()))

    def _well(self, host: EngineHost, since: float) -> list[str]:
        return [
            node.name
            for node in self.cluster.nodes
            if not self.troubled(node.name, since)
            and not self.troubled(f"{host.name} {node.name}", since)
        ]

    def _blame(
        self,
        host: EngineHost,
        what: str,
        since: float,
        error: OstoreError,
        hash: str = "",
    ) -> None:
        """An error is a violation when nothing excuses it."""
        excuses = (host.name, "bus", "metadata")
        if any(self.troubled(each, since) for each in excuses):
            return
        well = self._well(host, since)
        if hash:
            kept = self.audit.platters().get(hash, Kept())
            enough = kept.best(well) >= DATA
        else:
            enough = len(well) == len(self.cluster.nodes)
        if enough:
            self.world.violated(f"{what} fails without excuse (guarantee 4): {error!r}")

    # Faults

    def _for(self, seconds: float, end: Callable[[], None]) -> None:
        """Call `end` after so many seconds, or when the story is over."""

        def once() -> None:
            if once in self._ending:
                self._ending.remove(once)
                end()

        self._ending.append(once)
        self.world.later(seconds, once)

    def do_wait(self, step: Step, seconds: float) -> None:
        """Nothing happens for a while."""
        self.pass_(seconds)

    def do_kill(
        self, step: Step, node: int, how: str, operations: int, seconds: float
    ) -> None:
        """A node's process is killed, or the machine loses its power."""
        self._fell(self.cluster.nodes[node], how, operations, seconds)

    def do_blackout(self, step: Step, operations: int, seconds: float) -> None:
        """All nodes and engines lose their power at about one moment."""
        for node in self.cluster.nodes:
            at = self.world.rng.randrange(operations + 1)
            self._fell(node, "power", at, seconds)
        for number in range(len(self.cluster.engines)):
            self.do_crash(step, number, seconds)

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
            rng = self.world.rng.__class__(f"{chance}")
            kept = self.cluster.kept if how == "kill" else None
            node.disk = kept(node.disk) if kept else self.cluster.cut(node.disk, rng)
            if not node.down:
                node.boot()

        self._for(seconds, end)

    def do_crash(self, step: Step, engine: int, seconds: float) -> None:
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

    def do_freeze(self, step: Step, node: int, seconds: float) -> None:
        """A node stands still, and then goes on as if nothing had been."""
        host = self.cluster.nodes[node]
        self._freeze(host.name, host.process, seconds)

    def do_stop(self, step: Step, engine: int, seconds: float) -> None:
        """So does an engine."""
        host = self.cluster.engines[engine]
        self.trouble(host.name, seconds + 2 * HEARTBEAT)
        self._freeze(host.name, host.process, seconds)

    def _freeze(self, name: str, process: Process, seconds: float) -> None:
        self.trouble(name, seconds)
        if not process.frozen:
            process.freeze()
            self._for(seconds, process.thaw)

    def do_cut(
        self, step: Step, engine: int, node: int, how: str, seconds: float
    ) -> None:
        """An engine does not reach a node, though both speak to the broker."""
        names = self.cluster.engines[engine].name, self.cluster.nodes[node].name
        links = getattr(self.cluster.net, how)
        self.trouble(" ".join(names), seconds)
        if names not in links:
            links.add(names)
            self._for(seconds, lambda: links.discard(names))

    def do_slow(self, step: Step, node: int, late: float, seconds: float) -> None:
        """Requests to a node are on their way for long."""
        name = self.cluster.nodes[node].name
        self.trouble(name, seconds + late)
        self._set(self.cluster.net.late, name, late, seconds)

    def do_deaf(self, step: Step, node: int, chance: float, seconds: float) -> None:
        """A node's answers get lost."""
        name = self.cluster.nodes[node].name
        self.trouble(name, seconds)
        self._set(self.cluster.net.deaf, name, chance, seconds)

    def _set(
        self, where: dict[str, float], key: str, value: float, seconds: float
    ) -> None:
        where[key] = value
        self._for(seconds, lambda: _drop(where, key))

    def do_bus(
        self, step: Step, lost: float, twice: float, late: float, seconds: float
    ) -> None:
        """Messages get lost, come twice, or late."""
        self.trouble("bus", seconds)
        self.cluster.bus.weather = Weather(lost, twice, late)

        def end() -> None:
            self.cluster.bus.weather = Weather()

        self._for(seconds, end)

    def do_broker(self, step: Step, seconds: float) -> None:
        """The broker is away."""
        self.trouble("bus", seconds)
        self.cluster.bus.away = True
        self.cluster.bus.changed()

        def end() -> None:
            self.cluster.bus.away = False
            self.cluster.bus.changed()

        self._for(seconds, end)

    def do_apart(self, step: Step, node: int, seconds: float) -> None:
        """A node does not reach the broker."""
        name, bus = self.cluster.nodes[node].name, self.cluster.bus
        self.trouble(name, seconds)
        bus.cut.add(name)
        bus.changed()

        def end() -> None:
            bus.cut.discard(name)
            bus.changed()

        self._for(seconds, end)

    def do_metadata(self, step: Step, how: str, seconds: float) -> None:
        """The metadata is away, loses its answers, or takes its time."""
        self.trouble("metadata", seconds)
        mood = self.cluster.mood
        if how == "away":
            mood.away = True
        elif how == "lose":
            mood.lose = 0.5
        else:
            mood.slow = seconds

        def end() -> None:
            well = Mood()
            mood.away, mood.lose, mood.slow = well.away, well.lose, well.slow

        self._for(seconds, end)

    def do_jump(self, step: Step, who: str, number: int, seconds: float) -> None:
        """A wall clock jumps."""
        hosts: Any = self.cluster.nodes if who == "node" else self.cluster.engines
        host = hosts[number]
        self.trouble(host.name, 0)
        host.skew += seconds
        host.process.skew += seconds

    def do_full(self, step: Step, node: int, seconds: float) -> None:
        """A node's disk fills up."""
        host = self.cluster.nodes[node]
        self.trouble(host.name, seconds)
        space = host.disk.space("/")
        host.disk.capacity = space.total - space.free + self.world.rng.randrange(6000)

        def end() -> None:
            host.disk.capacity = type(host.disk)().capacity

        self._for(seconds, end)

    def do_failing(self, step: Step, node: int, what: str, seconds: float) -> None:
        """A node's disk fails in every other operation of a kind."""
        host = self.cluster.nodes[node]
        self.trouble(host.name, seconds)
        host.failing(dict.fromkeys(FAILURES[what], errno.EIO))
        self._for(seconds, lambda: host.failing({}))

    # Damage: only as much as the guarantees allow

    def do_rot(self, step: Step, node: int, which: int, where: float) -> None:
        """A byte of a shard changes on the platter."""
        host = self.cluster.nodes[node]

        def harm(path: str, size: int) -> None:
            host.disk.flip(path, min(size - 1, int(where * size)))
            self.audit.rotten.add((host.name, host.disk.number(path)))

        self._harm_one(host, which, harm)

    def do_lose(self, step: Step, node: int, which: int) -> None:
        """A shard's file vanishes."""
        host = self.cluster.nodes[node]
        self._harm_one(host, which, lambda path, _: host.disk.delete(path))

    def _harm_one(
        self, host: NodeHost, which: int, harm: Callable[[str, int], None]
    ) -> None:
        found = sorted(
            (path, key.hash, len(inode.data))
            for key, path, inode in host.disk.shards()
            if inode.data and not inode.pending
        )
        if not found:
            return
        path, hash, size = found[which % len(found)]
        before = self.audit.platters()
        if self._bearable(before, host.name, {hash}):
            self.trouble(host.name, 0)
            harm(path, size)
            self.world.note(f"{host.name} {path} is harmed")
            self.audit.harmed(before)

    def do_wipe(self, step: Step, node: int, seconds: float) -> None:
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
        return set(HASHES) if self._running else set()


def _drop(where: dict[str, float], key: str) -> None:
    where.pop(key, None)


@implementer(ILogObserver)
class _Watcher:
    """Defects that are caught and logged are defects."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is None or event["log_namespace"] == "twisted.internet.defer":
            return  # the latter when garbage is collected, of whatever story
        if not issubclass(failure.type, (PowerCut, OstoreError, CancelledError)):
            self._world.violated(f"logged: {failure.getTraceback()}")


def play(story: Story, *, keep: bool = False) -> Outcome:
    """Play it in a folder that is gone afterwards."""
    if story.plan.search:
        return Stage(story, Path("unused"), keep=keep).play()
    with tempfile.TemporaryDirectory() as folder:
        return Stage(story, Path(folder), keep=keep).play()
