"""How a shard gets its name: as a file of its own, or as a record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ostore.backends.shards.filed import FiledShards
from ostore.backends.shards.lane import Lane
from ostore.backends.shards.new import NewShard
from ostore.backends.shards.root import RootGone
from ostore.backends.shards.segments.packed import PackedShards
from ostore.backends.shards.serial import Serial
from ostore.backends.shards.shelf import Naming, Shelf
from ostore.model.errors import ShardError, ShardRefused
from ostore.model.layouts import ShardKey
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import start

T = TypeVar("T")

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
        mend_root: Callable[[], Awaitable[None]],
        pack_limit: int,
    ) -> None:
        self._filed = filed
        self._packed = packed
        self._shelf = shelf
        self._serial = serial
        self._entropy = entropy
        self._mend_root = mend_root
        self._pack_limit = pack_limit
        self._small: Lane[int | None] = Lane(workers)

    def small(self, new: NewShard) -> Awaitable[None]:
        """Write and name a shard in the form that is its own."""
        hash = new.key.hash
        if (
            self._packs(new)
            and self._packed.without(hash)
            and self._filed.without(hash)
        ):
            turn = self._serial.begin(hash)
            if turn is not None:
                return self._add(new, turn)
        return self.on_a_root(lambda: self._put(new))

    async def on_a_root(self, write: Callable[[], Awaitable[T]]) -> T:
        """What `write()` gives, tried again once the root that vanished is mended."""
        try:
            return await write()
        except RootGone:
            await self._mend_root()
            return await write()

    def _packs(self, new: NewShard) -> bool:
        return 0 < self._pack_limit >= new.layout.size and self._packed.known

    async def _put(self, new: NewShard) -> None:
        if self._packs(new):
            await self._pack(new)
        else:
            await self._file(new)

    async def _pack(self, new: NewShard) -> None:
        """Write a record, together with all that wait for that."""

        async def work() -> None:
            if not await self._renewed_file(new.key):
                await self._packed.put(new)
            self._filed.ledger.young(new.key)

        await self._serial.run(new.key.hash, work)

    def _add(self, new: NewShard, turn: Deferred[None]) -> Deferred[None]:
        """As _put(), of a content of which nothing is here, in its `turn`: that begins.

        What this gives can be cancelled; the write goes on.
        """
        result: Deferred[None] = Deferred()

        def done(outcome: object) -> None:
            failed = isinstance(outcome, Failure)
            if not failed:
                self._filed.ledger.young(new.key)
            self._serial.end(new.key.hash, turn)
            if result.called:
                return  # cancelled
            if isinstance(outcome, Failure) and isinstance(outcome.value, RootGone):
                _ = start(mended()).addBoth(told)
            else:
                result.callback(outcome if failed else None)  # type: ignore[arg-type]  # a Failure goes its own way

        async def mended() -> None:
            await self._mend_root()
            await self._put(new)

        def told(outcome: object) -> None:
            if not result.called:
                result.callback(outcome)  # type: ignore[arg-type]  # as above

        try:
            self._packed.add(new, done)
        except ShardError:
            self._serial.end(new.key.hash, turn)
            return fail()
        return result

    async def _file(self, new: NewShard) -> None:
        """Write a small file; one worker thread does all that wait for it."""
        upload = self._entropy(16).hex()

        async def name(standing_bad: bool) -> int | None:
            naming = Naming(new.key, new.deadline, new.age, standing_bad)
            return await self._small.run(
                lambda: self._shelf.put(upload, new.parts, naming)
            )

        await self.keep(new.key, name)

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
