"""Putting missing shards back: the hands of every repair."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.engine.cluster import Cluster
from ostore.engine.getting import Getting
from ostore.engine.reading import StripeReader
from ostore.engine.repairs import Repair, Repairs
from ostore.erasure.decoder import rebuild
from ostore.erasure.framing import Frame, Table
from ostore.interfaces import IMetadataStore, INodes, IShardSink
from ostore.model.census import Census, Standing
from ostore.model.errors import NodeUnreachable, OstoreError, ShardError, ShardRotten
from ostore.model.healing import Plan, plan
from ostore.model.layouts import ShardKey
from ostore.model.placement import rank
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks, gather, shielded, start

AT_ONCE = 8
"""Contents mended at the same time."""
PAGE = 100
"""Degraded contents fetched from the metadata at once."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0
"""Seconds before a repair that could not be done is tried again; doubles each time."""
STEP = 30.0
"""Seconds that one step of a repair may take."""
LAST = 1.0
"""Seconds that the step under way may take when repairs are stopped."""


T = TypeVar("T")


class Wait(Protocol):
    """Waits until so many steps may be taken; a step is a file, or 1 MiB of it."""

    async def __call__(self, steps: float, *, urgent: bool = False) -> None:
        """`urgent`: what is left has none to spare; slow requests do not matter."""


async def at_once(steps: float, *, urgent: bool = False) -> None:
    """No waiting at all."""


class Mending:
    """Drains the repair queue and the `degraded` marks; started once by the service.

    A failing repair is logged, counted and tried again with back-off; it never stops
    the ones behind it. How fast it reads and writes is up to the pace it is started
    with.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: INodes,
        metadata: IMetadataStore,
        getting: Getting,
        repairs: Repairs,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        rebuild_delay: float,
    ) -> None:
        self.mended = 0
        self.failed = 0
        self._cluster = cluster
        self._nodes = nodes
        self._metadata = metadata
        self._getting = getting
        self._repairs = repairs
        self._clock = clock
        self._entropy = entropy
        self._delay = rebuild_delay
        self._log = Logger()
        self._tasks = Tasks(self._log)
        self._timer: IDelayedCall | None = None
        self._pace: Wait = at_once
        self._stopped = False

    async def start(self, pace: Wait = at_once) -> None:
        """Begin to drain; `read_marks` brings in what was written degraded."""
        self._pace = pace
        self._repairs.wake = self._wake
        self._repairs.served = True
        self._wake()

    async def stop(self) -> None:
        """Drop what is under way; temporaries go, nothing named is touched."""
        self._stopped = True
        self._repairs.wake = lambda: None
        self._repairs.served = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        await self._tasks.stop()

    async def idle(self) -> None:
        """Wait until no repair is under way."""
        await self._tasks.idle()

    async def read_marks(self) -> None:
        """Queue every content that the metadata calls degraded, page by page."""
        after = ""
        while page := await self._metadata.degraded(after, PAGE):
            for entry in page:
                self._repairs.found(
                    entry.hash,
                    entry.layout,
                    dict.fromkeys(entry.missing, ""),
                    marks=frozenset(entry.marks),
                )
            last = page[-1]
            after = f"{last.hash}/{last.layout.id}"

    async def mend(self, repair: Repair) -> bool:
        """Rebuild what one content lacks; False when something is left for later."""
        if await self._metadata.content(repair.hash) is None:
            return True
        census = await self._cluster.survey(repair.hash)
        standing = census.standing(repair.layout.id)
        if standing is not None and standing.missing:
            await self._find_homes(repair)
        todo = self._plan(repair, census, standing)
        if todo.hopeless:
            return await self._rescue(repair, census)
        if todo.targets and standing is not None:
            reader = self._getting.reader(repair.hash, standing)
            try:
                await self._rebuild(repair, standing, reader, todo)
            finally:
                await reader.close()
            if not repair.marks:
                return not todo.later
            again = await self._cluster.survey(repair.hash)
            todo = self._plan(repair, again, again.standing(repair.layout.id))
        return todo.whole and await self._unmark(repair)

    async def _unmark(self, repair: Repair) -> bool:
        """Clear the marks; False when they may speak of what was found since.

        That goes by the next census. Who marks a version has queued the repair before.
        """
        if repair.marks:
            if self._repairs.more_of(repair):
                return False
            await self._metadata.clear_degraded(sorted(repair.marks))
        return True

    async def _find_homes(self, repair: Repair) -> None:
        """A rotten shard is mended where it lies, so that the good one replaces it."""
        bad = await self._getting.rotten(repair.hash, repair.layout.id)
        for index, node in bad.items():
            repair.spots[index] = repair.spots.get(index) or node

    def _plan(self, repair: Repair, census: Census, standing: Standing | None) -> Plan:
        quiet = self._cluster.quiet_since()
        away = quiet is not None and quiet < self._delay
        able = [
            each
            for each in self._cluster.candidates()
            if each.writable and not each.suspect
        ]
        ranked = rank(repair.hash, able)
        return plan(census, standing, repair.spots, ranked, nodes_away=away)

    async def _rescue(self, repair: Repair, census: Census) -> bool:
        """Fewer than k shards: bring back what lies in garbage, or look elsewhere."""
        other = next((s for s in census.standings() if not s.missing), None)
        if other is not None:
            return await self._unmark(repair)
        for node in sorted(census.asked):
            try:
                await self._clock.within(
                    STEP, self._nodes.store(node).restore(repair.hash)
                )
            except (ShardError, TimedOut):
                continue
        return False

    async def _rebuild(
        self, repair: Repair, standing: Standing, reader: StripeReader, todo: Plan
    ) -> None:
        layout, count = standing.layout, len(todo.targets)
        urgent = len(standing.places) <= layout.data
        await self._pace(layout.data + count, urgent=urgent)
        table = await reader.table()
        reader.until(len(table))
        if len(table) <= 1:
            await self._rebuild_small(repair, standing, reader, todo)
            return
        sinks: dict[int, IShardSink] = {}
        try:
            for index, node in todo.targets.items():
                sinks[index] = await self._create(node)
            wanted = sorted(sinks)
            for number in range(len(table)):
                await self._pace(1 + count / layout.data, urgent=urgent)
                made = await self._coded(reader, table, number, wanted)
                for index, frame in zip(wanted, made, strict=True):
                    await self._step(todo.targets[index], sinks[index].write(frame))
            if await self._metadata.content(repair.hash) is None:
                return
            for index, sink in sinks.items():
                key = ShardKey(repair.hash, index, repair.layout.id)
                deadline = self._clock.wall() + STEP
                await self._step(
                    todo.targets[index],
                    sink.commit(key, standing.layout, deadline, standing.oldest),
                )
                self.mended += 1
        finally:
            with suppress(TimedOut):
                await self._clock.within(
                    STEP, gather(sink.abort() for sink in sinks.values())
                )

    async def _rebuild_small(
        self, repair: Repair, standing: Standing, reader: StripeReader, todo: Plan
    ) -> None:
        """Of one stripe or none: each shard in one step."""
        table, wanted = await reader.table(), sorted(todo.targets)
        made: Sequence[Sequence[Frame]] = [()] * len(wanted)
        if len(table):
            made = [(f,) for f in await self._coded(reader, table, 0, wanted)]
        if await self._metadata.content(repair.hash) is None:
            return

        async def put(index: int, frames: Sequence[Frame]) -> None:
            node = todo.targets[index]
            key = ShardKey(repair.hash, index, repair.layout.id)
            deadline = self._clock.wall() + STEP
            put = self._nodes.store(node).put_small
            work = put(key, standing.layout, frames, deadline, standing.oldest)
            await self._step(node, work)
            self.mended += 1

        for outcome in await gather(map(put, wanted, made)):
            if isinstance(outcome, Exception):
                raise outcome

    async def _create(self, node: str) -> IShardSink:
        """A temporary there; one under way when we are stopped is seen to its end."""
        made: list[IShardSink] = []

        async def make() -> IShardSink:
            sink = await self._nodes.store(node).create(self._entropy(16).hex())
            made.append(sink)
            return sink

        making = start(make())
        try:
            return await self._step(node, shielded(making))
        except CancelledError:
            with suppress(ShardError, TimedOut):
                await self._clock.within(LAST, making)
            for sink in made:
                await sink.abort()
            raise
        except TimedOut:
            making.cancel()
            raise

    async def _coded(
        self, reader: StripeReader, table: Table, number: int, wanted: Sequence[int]
    ) -> Sequence[Frame]:
        """The frames of one stripe for those shards, from any k that agree."""
        frames = await reader.blocks(number)
        blocks = {index: frame.block for index, frame in frames.items()}
        how = (number, table.row(number), reader.geometry, reader.codec)
        try:
            return rebuild(*how, blocks, wanted)
        except ShardRotten:
            return rebuild(*how, await reader.agreeing(number, blocks), wanted)

    async def _step(self, node: str, work: Awaitable[T]) -> T:
        """One step on a node that is to take a shard, bounded in time.

        One that fails is suspect: the next try may choose another.
        """
        try:
            return await self._clock.within(STEP, work)
        except (NodeUnreachable, TimedOut):
            self._cluster.suspect(node)
            raise

    def _wake(self) -> None:
        """Look at the queue in a moment, or when the next repair is due."""
        due = self._repairs.next_due()
        if due is None or self._stopped:
            return
        wait = max(0.0, due - self._clock.monotonic())
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.call_later(wait, self._drain)

    def _drain(self) -> None:
        room = AT_ONCE - len(self._tasks)
        if room > 0:
            for repair in self._repairs.take(self._clock.monotonic(), room):
                self._tasks.spawn("a repair", partial(self._try, repair))
        if len(self._tasks) < AT_ONCE:
            self._wake()

    async def _try(self, repair: Repair) -> None:
        done = False
        try:
            done = await self.mend(repair)
        except CancelledError:
            raise
        except (OstoreError, TimedOut) as error:
            self.failed += 1
            self._log.warn(
                "{hash} not mended yet: {error}", hash=repair.hash, error=str(error)
            )
        except Exception:  # noqa: BLE001 - logged; the repairs behind it go on
            self.failed += 1
            self._log.failure("{hash} not mended", Failure(), hash=repair.hash)  # type: ignore[no-untyped-call]  # Twisted's
        if done:
            self._repairs.done(repair)
        else:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(repair.tries, 16))
            self._repairs.again(repair, self._clock.monotonic() + wait)
        self._wake()
