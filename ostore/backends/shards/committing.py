"""How a shard gets its name: as a file of its own, or as a record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ostore.backends.shards.filed import FiledShards
from ostore.backends.shards.lane import Lane
from ostore.backends.shards.root import RootGone
from ostore.backends.shards.segments.packed import PackedShards
from ostore.backends.shards.serial import Serial
from ostore.backends.shards.shelf import Naming, Shelf
from ostore.erasure.geometry import Buffer
from ostore.model.errors import ShardError, ShardRefused
from ostore.model.layouts import Layout, ShardKey
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import start

Name = Callable[[bool], Awaitable[int | None]]
"""Names a file, told whether what bears the name is bad: the copy number of that."""


class Commits:
    """Names new shards in their content's turn; owned by a store.

    Create-only: what stands already, in either form, is renewed if all its bytes are
    right, and goes to garbage if they are not.
    """

    def __init__(
        self,
        filed: FiledShards,
        packed: PackedShards,
        shelf: Shelf,
        workers: Workers,
        serial: Serial,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._filed = filed
        self._packed = packed
        self._shelf = shelf
        self._serial = serial
        self._entropy = entropy
        self._small: Lane[int | None] = Lane(workers)

    async def pack(
        self,
        key: ShardKey,
        layout: Layout,
        parts: Sequence[Buffer],
        deadline: float | None,
        age: float,
    ) -> None:
        """Write a record, together with all that wait for that."""

        async def work() -> None:
            if not await self._renewed_file(key):
                await self._packed.put(key, layout, parts, deadline, age)
            self._filed.ledger.young(key)

        await self._serial.run(key.hash, work)

    def add(
        self,
        key: ShardKey,
        layout: Layout,
        parts: Sequence[Buffer],
        deadline: float | None,
        age: float,
        mended: Callable[[], Awaitable[None]],
    ) -> Deferred[None] | None:
        """As pack(), of a content of which nothing is here and nothing is under way.

        None, and nothing done, while something is. `mended` tries again on another
        root. What this gives can be cancelled; the write goes on.
        """
        turn = self._serial.begin(key.hash)
        if turn is None:
            return None
        result: Deferred[None] = Deferred()

        def done(outcome: object) -> None:
            failed = isinstance(outcome, Failure)
            if not failed:
                self._filed.ledger.young(key)
            self._serial.end(key.hash, turn)
            if result.called:
                return  # cancelled
            if isinstance(outcome, Failure) and isinstance(outcome.value, RootGone):
                _ = start(mended()).addBoth(again)
            else:
                result.callback(outcome if failed else None)  # type: ignore[arg-type]  # a Failure goes its own way

        def again(outcome: object) -> None:
            if not result.called:
                result.callback(outcome)  # type: ignore[arg-type]  # as above

        try:
            self._packed.add(key, layout, parts, deadline, age, done)
        except BaseException:
            self._serial.end(key.hash, turn)
            raise
        return result

    async def file(
        self,
        key: ShardKey,
        parts: Sequence[Buffer],
        deadline: float | None,
        age: float,
    ) -> None:
        """Write a small file; one worker thread does all that wait for it."""
        upload = self._entropy(16).hex()

        async def name(standing_bad: bool) -> int | None:
            naming = Naming(key, deadline, age, standing_bad)
            return await self._small.run(lambda: self._shelf.put(upload, parts, naming))

        await self.keep(key, name)

    async def keep(self, key: ShardKey, name: Name) -> bool:
        """For what names a file; False, and not called, when a record was renewed."""

        async def work() -> bool:
            if await self._renewed_record(key):
                return False
            filed, ledger = self._filed, self._filed.ledger
            stood = key in await filed.keys(key.hash, bad=True)
            try:
                discarded = await name(key in ledger.bad)
            except ShardRefused:
                raise
            except ShardError:
                await (filed.interrupted(key) if stood else filed.doubt(key))
                raise
            if discarded is not None:
                ledger.garbage.add(key, discarded)
            ledger.whole(key)
            return True

        return await self._serial.run(key.hash, work)

    async def _renewed_file(self, key: ShardKey) -> bool:
        if self._filed.without(key.hash):
            return False
        if key not in await self._filed.keys(key.hash, bad=True):
            return False
        if await self._filed.refresh(key):
            return True
        await self._filed.discard(key)
        return False

    async def _renewed_record(self, key: ShardKey) -> bool:
        if not self._packed.known:
            return False
        renewed = await self._packed.refresh(key)
        if renewed or await self._packed.discard(key):
            self._filed.ledger.young(key)
        return renewed
