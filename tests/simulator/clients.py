"""What clients ask of the engines, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred

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
from tests.simulator.audit import DATA, Audit, Kept
from tests.simulator.cluster import Cluster, EngineHost
from tests.simulator.contents import BY_HASH, CONTENTS, HASHES
from tests.simulator.excuses import Excuses
from tests.simulator.story import Step
from tests.simulator.uploading import Gone, Uploader
from tests.simulator.world import World
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

DEFINITE = (AlreadyExists, ConditionFailed)
PIECE = 256 * 1024


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


class Clients:
    """All clients of a story; a method for each kind of step."""

    def __init__(self, cluster: Cluster, audit: Audit, excuses: Excuses) -> None:
        self.world = cluster.world
        self.cluster = cluster
        self.audit = audit
        self.recorder = Recorder(self.world.tick)
        self.reads = 0
        self.acks = 0
        self.running: dict[int, tuple[str, float]] = {}
        """What has not ended, and since when."""
        self.asked: set[tuple[str, int]] = set()
        """Name and number of the versions that clients asked to remove."""
        self._asking: Counter[tuple[str, int]] = Counter()
        self._others: list[tuple[str, int, float]] = []
        self._uploads: dict[str, list[tuple[Add, float]]] = {}
        """By name, since when."""
        self._excuses = excuses
        self._ops = 0

    def purged(self, name: str, number: int) -> None:
        """An engine sends a purge: a client's, a version taken back, or retention."""
        if self._asking[name, number]:
            self._asking[name, number] -= 1
            return
        self._others.append((name, number, self.world.tick()))
        if not self.audit.knows(name, number):  # taken back: an upload tries again
            for call, invoked in self._uploads.get(name, ()):
                tried = Operation(call, UNKNOWN, invoked)
                self.recorder.histories.setdefault(name, []).append(tried)
        keep = self.cluster.plan.keep
        unknown = sum(
            operation.answer == UNKNOWN
            for operation in self.recorder.histories.get(name, ())
        )
        newer = self.audit.newer(name, number) + unknown + len(self.running)
        if self.audit.knows(name, number) and (not keep or newer < keep):
            self.world.violated(
                f"{name}/{number} was acknowledged and is removed, with {newer} newer "
                "versions at most"
            )
        self.audit.forget(name, number)

    def doubtful(self, hash: str) -> bool:
        """Whether a version of that content may have been written unseen."""
        return any(
            isinstance(operation.call, Add)
            and operation.answer == UNKNOWN
            and operation.call.hash == hash
            for history in self.recorder.histories.values()
            for operation in history
        )

    def last_look(self) -> None:
        """See whether some order of single steps explains what all were told."""
        for name, number, tick in self._others:
            history = self.recorder.histories.setdefault(name, [])
            history.append(Operation(Purge(number), UNKNOWN, tick))
        for name, history in sorted(self.recorder.histories.items()):
            why = explain(history)
            if why is not None:
                self.world.violated(f"the versions of {name} (guarantee 3): {why}")

    def read_all(self, host: EngineHost, name: str) -> None:
        """Read every version of a name, whole."""

        def read(found: tuple[Seen, ...]) -> None:
            for seen in found:
                if not seen.deleted:
                    what = f"last get {name}/{seen.number}"
                    self.begin(host, what, self._get(host, name, seen.number, ()))

        self.begin(host, f"list {name}", self._list(host, name, read))

    def job(self, step: Step, engine: int, job: str) -> None:
        """An operator has a maintenance job run."""
        host = self.cluster.engines[engine]
        self.begin(host, f"job {job}", self._job(host, job))

    async def _job(self, host: EngineHost, job: str) -> object:
        return (await host.engine.jobs.ask(job, dry_run=False, force=False)).id

    def clear(self, step: Step, engine: int, name: str) -> None:
        """A client removes all versions of a name."""
        host = self.cluster.engines[engine]

        def purge(found: tuple[Seen, ...]) -> None:
            for seen in found:
                what = f"purge {name}/{seen.number}"
                self.begin(host, what, self._purge(host, name, seen.number))

        self.begin(host, f"clear {name}", self._list(host, name, purge))

    def begin(self, host: EngineHost, what: str, work: Awaitable[object]) -> None:
        """A client's request, if there is somebody to take it."""
        if not host.up:
            work.close()  # type: ignore[attr-defined]  # a coroutine
            return
        self.world.note(f"ask {host.name} {what}")
        self._run(what, work, host.ops)

    def _run(
        self, what: str, work: Awaitable[object], ops: dict[Deferred[Any], None]
    ) -> None:
        """Do it; what is among `ops` is cancelled with its engine."""
        self._ops += 1
        number = self._ops
        self.running[number] = what, self.world.now
        running = start(self._watched(what, work))
        ops[running] = None

        def ended(_: object) -> None:
            ops.pop(running, None)
            self.running.pop(number, None)

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

    def put(self, step: Step, engine: int, name: str, content: int, mode: str) -> None:
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
        self.begin(
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
                self._excuses.blame(host, "a write", since, error)
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
        if (version.name, version.number) in self.asked:
            return  # it was asked to go meanwhile
        assert version.layout is not None
        quorum = host.engine.putting.writing.quorum(version.layout)
        self.audit.ack(version, invoked, quorum)

    def upload(self, step: Step, engine: int, name: str, content: int) -> None:
        """A client stores something in parts, and goes on for a while whatever comes."""
        request = PutRequest(
            name, digest=HASHES[content], put_id=f"{2000 + step.number:032x}"
        )
        uploader = Uploader(self.cluster, engine, request, CONTENTS[content])
        call = Add(f"{2000 + step.number:032x}", HASHES[content])
        invoked = self.world.tick()
        self._uploads.setdefault(name, []).append((call, invoked))

        async def asked() -> Answer:
            try:
                version = await uploader.run()
            except DEFINITE as error:
                return type(error)
            except (Gone, DigestMismatch):
                raise Nothing from None
            if version.hash != call.hash:
                self.world.violated(f"{name}/{version.number} has another hash")
            self._ack(uploader.host, version, invoked)
            return attrs.evolve(Seen.of(version), put_id=None)

        work = self._change(uploader.host, name, call, asked())
        self._run(f"upload {name} {HASHES[content][:6]}", work, {})

    def instant(self, step: Step, engine: int, name: str, content: int) -> None:
        """A client names a content that may be there."""
        host = self.cluster.engines[engine]
        request = PutRequest(name, digest=HASHES[content], size=len(CONTENTS[content]))
        call = Add(f"step {step.number}", HASHES[content])
        work = self._put(host, name, call, lambda: host.store.instant(request))
        self.begin(host, f"instant {name} {HASHES[content][:6]}", work)

    def copy(self, step: Step, engine: int, source: str, target: str) -> None:
        """A client copies one name to another."""
        host = self.cluster.engines[engine]
        self.begin(
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

    def delete(self, step: Step, engine: int, name: str) -> None:
        """A client deletes a name."""
        host = self.cluster.engines[engine]
        call = Add(f"step {step.number}", deleted=True)
        self.begin(host, f"delete {name}", self._delete(host, name, call))

    async def _delete(self, host: EngineHost, name: str, call: Add) -> object:
        since = self.world.now

        async def asked() -> Answer:
            try:
                version = await host.store.delete(name)
            except NotFound:
                return NotFound
            except OstoreError as error:
                self._excuses.blame(host, "a write", since, error)
                raise
            self.audit.marked(name, version.number)
            return attrs.evolve(Seen.of(version), put_id=None)

        return await self._change(host, name, call, asked())

    def purge(self, step: Step, engine: int, name: str, number: int) -> None:
        """A client removes a version for good."""
        host = self.cluster.engines[engine]
        self.begin(host, f"purge {name}/{number}", self._purge(host, name, number))

    async def _purge(self, host: EngineHost, name: str, number: int) -> object:
        async def asked() -> Answer:
            try:
                await host.store.purge(name, number)
            except NotFound:
                self.asked.discard((name, number))
                return False
            return True

        self.asked.add((name, number))
        self._asking[name, number] += 1
        self.audit.forget(name, number)
        return await self._change(host, name, Purge(number), asked())

    def list(self, step: Step, engine: int, name: str) -> None:
        """A client lists a name's versions."""
        host = self.cluster.engines[engine]
        self.begin(host, f"list {name}", self._list(host, name))

    async def _list(
        self,
        host: EngineHost,
        name: str,
        then: Callable[[tuple[Seen, ...]], None] = lambda _: None,
    ) -> object:
        async def asked() -> Answer:
            found = await host.store.versions_of(name, 0, 1000)
            return tuple(attrs.evolve(Seen.of(each), put_id=None) for each in found)

        answer = await self._change(host, name, Versions(), asked())
        if isinstance(answer, tuple):
            then(answer)
        return answer

    def get(
        self, step: Step, engine: int, name: str, number: int, span: tuple[float, ...]
    ) -> None:
        """A client reads."""
        host = self.cluster.engines[engine]
        what = f"get {name}/{number or 'latest'}"
        self.begin(host, what, self._get(host, name, number, span))

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
            self._excuses.blame(host, "a read", since, error, version.hash)
            raise
        self.reads += 1
        if read != whole[begin:stop]:
            self.world.violated(
                f"wrong bytes of {name}/{version.number} {begin}-{stop} (guarantee 2)"
            )
        return f"{len(read)} bytes"

    def locate(self, step: Step, engine: int, content: int) -> None:
        """A client asks where a content is."""
        host = self.cluster.engines[engine]
        self.begin(host, f"locate {HASHES[content][:6]}", self._locate(host, content))

    async def _locate(self, host: EngineHost, content: int) -> object:
        since, before = self.world.now, self.audit.platters()
        try:
            return await host.store.locate(HASHES[content])
        except NotFound:
            # Whoever is heard of has been asked, and all of them have said no.
            kept = before.get(HASHES[content], Kept())
            if kept.best(self._excuses.well(host, since)) >= DATA:
                self.world.violated(f"{HASHES[content][:6]} is said to be nowhere")
            raise
