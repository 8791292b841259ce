"""The shards of one storage root behind the seam the engine knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from contextlib import suppress
from heapq import merge
from itertools import groupby
from typing import TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from ostore.backends.shards.collecting import Exits, Fence, no_fence
from ostore.backends.shards.disk import Disk
from ostore.backends.shards.files import Files
from ostore.backends.shards.incoming import Incoming, whole_file
from ostore.backends.shards.lane import Lane
from ostore.backends.shards.ledger import Ledger
from ostore.backends.shards.looking import Look, holding, look_at, look_twice
from ostore.backends.shards.paths import checked_hash, checked_id
from ostore.backends.shards.reading import Reader
from ostore.backends.shards.root import Root, RootGone
from ostore.backends.shards.scan import Scan
from ostore.backends.shards.serial import Serial, handed_over
from ostore.backends.shards.shelf import Naming, Shelf
from ostore.backends.shards.temporaries import Temporaries
from ostore.erasure.framing import Frame
from ostore.interfaces import IShardStore
from ostore.model.errors import (
    NodeUnreachable,
    ShardError,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
from ostore.model.nodes import Space
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import Tasks, start

T = TypeVar("T")


@implementer(IShardStore)
class ShardStore:
    """One file a shard below an open root; owned by a node.

    The index of names, what is known to be bad and what is condemned are kept in
    memory. Work on one content is done one after the other, and what has begun is
    finished even if its caller is cancelled. A new shard that meets no root calls
    `mend_root` and tries once more.
    """

    def __init__(
        self,
        root: Root,
        files: Files,
        workers: Workers,
        clock: Clock,
        entropy: Callable[[int], bytes],
        mend_root: Callable[[], Awaitable[None]],
        *,
        durable: bool = True,
        fence: Fence = no_fence,
    ) -> None:
        self._root = root
        self._mend_root = mend_root
        self._workers = workers
        self._clock = clock
        self._entropy = entropy
        self._disk = Disk(files, root.paths, durable=durable)
        self._shelf = Shelf(self._disk, root, clock.wall)
        self._exits = Exits(self._disk, root, workers, clock, fence)
        self._serial = Serial()
        self._small: Lane[int | None] = Lane(workers)
        self._tasks = Tasks(Logger(namespace="ostore.shards"))
        self.temporaries = Temporaries(self, self._shelf, workers, clock, entropy)
        self._count(Ledger())

    def _count(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._scan = Scan(
            self._disk,
            self._root.check,
            self._workers,
            self._clock,
            ledger.shards,
            ledger.garbage,
        )

    # Its life

    async def start(self) -> None:
        """Remove temporaries that a crash left, then count the shards on the side."""
        await self._workers.run(self._shelf.sweep)
        self._tasks.spawn("counting shards", self._scan.run)

    async def stop(self) -> None:
        """Finish what is under way."""
        await self._tasks.stop()
        await self.temporaries.stop()
        await self._serial.idle()

    def recount(self) -> None:
        """The root is another folder than before: forget all and count anew."""
        self._scan.abandon()
        self._disk.forget()
        self._count(Ledger(self.lost, self.rotten))
        self._tasks.spawn("counting shards", self._scan.run)

    @property
    def scanning(self) -> bool:
        """Whether the count still goes on."""
        return not self._scan.done

    @property
    def strange(self) -> int:
        """Entries met in the folders that are not ours."""
        return self._scan.strange

    @property
    def lost(self) -> int:
        """Files that vanished under the index, since the start."""
        return self._ledger.lost

    @property
    def rotten(self) -> int:
        """Files found not to be what they say, since the start."""
        return self._ledger.rotten

    def __len__(self) -> int:
        return len(self._ledger.shards)

    async def holds_any(self) -> bool:
        """Whether any shard is here, garbage included; looks at the disk if need be."""
        if len(self._ledger.shards) or len(self._ledger.garbage):
            return True
        return self.scanning and await self._workers.run(self._shelf.any)

    # Writing

    async def create(self, upload: str) -> Incoming:
        """A temporary shard."""
        checked_id(upload)
        self._root.admit()

        def undo(fd: int) -> None:
            _ = start(self._workers.run(self._shelf.give_up, fd, upload))

        def opened() -> Awaitable[int]:
            return handed_over(self._workers.run(self._shelf.create, upload), undo)

        fd = await self._on_a_root(opened)
        return Incoming(upload, fd, self._shelf, self._workers, self)

    async def put_small(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> None:
        """Write and name a shard; one worker thread does all that wait for it."""
        self._root.paths.shard(key)
        self._root.admit()
        parts = whole_file(key, layout, frames)
        upload = self._entropy(16).hex()

        async def name(standing_bad: bool) -> int | None:
            naming = Naming(key, deadline, age, standing_bad)
            return await self._small.run(lambda: self._shelf.put(upload, parts, naming))

        await self._on_a_root(lambda: self.keep(key, name))

    async def keep(
        self, key: ShardKey, name: Callable[[bool], Awaitable[int | None]]
    ) -> None:
        """For commits: call `name(standing is bad)` in turn, and note the outcome."""

        async def work() -> None:
            stood = key in await self._keys(key.hash, bad=True)
            try:
                discarded = await name(key in self._ledger.bad)
            except ShardRefused:
                raise
            except ShardError:
                await (self._interrupted(key) if stood else self._doubt(key))
                raise
            if discarded is not None:
                self._ledger.garbage.add(key, discarded)
            self._ledger.whole(key)

        await self._serial.run(key.hash, work)

    # Asking

    async def find(self, hash: str) -> Holding:
        """All whole shards of a content; looks at the disk where the count is not yet."""
        checked_hash(hash)
        found, doubtful = await look_at(
            self._workers, await self._keys(hash), self._shelf.look
        )
        if not doubtful:
            return holding(found)
        return await self._serial.run(hash, lambda: self._find_in_turn(hash))

    async def held(self, hash: str) -> Sequence[ShardKey]:
        """All shards of a content by their names, the bad ones too."""
        checked_hash(hash)
        return await self._keys(hash, bad=True)

    async def open(self, key: ShardKey, *, bad: bool = False) -> Reader:
        """One shard for reading; one that is marked bad only with `bad`."""
        self._root.paths.shard(key)
        if key in self._ledger.bad and not bad:
            raise ShardRotten("the shard was found rotten before")
        if self._scan.knows(key.hash) and (key, 0) not in self._ledger.shards.of(
            key.hash
        ):
            raise ShardMissing("there is no such shard here")
        try:
            opened = await handed_over(
                self._workers.run(self._shelf.open, key),
                lambda late: late.source.close(),
            )
        except (ShardMissing, ShardRotten):
            await self._serial.run(key.hash, lambda: self._doubt(key))
            raise
        return Reader(opened, self._workers, lambda: self._ledger.rot(key))

    async def list(self, after: str, limit: int) -> Sequence[ShardFacts]:
        """A page of everything held; raises NodeUnreachable while the count goes on.

        The layout of a file whose footer cannot be read has k, m and size 0.
        """
        if after:
            checked_hash(after)
        if self.scanning:
            raise NodeUnreachable("the node is still counting its shards")
        self._exits.look()
        facts: MutableSequence[ShardFacts] = []
        shards, garbage = self._ledger.shards, self._ledger.garbage
        hashes = merge(shards.hashes(after), garbage.hashes(after))
        for hash, _ in groupby(hashes):
            if len(facts) >= limit:
                break
            kept = [(key, key in self._ledger.bad) for key, _ in shards.of(hash)]
            facts += await self._workers.run(
                self._shelf.describe, kept, garbage.of(hash)
            )
        return facts

    async def space(self) -> Space:
        """Bytes free and in all."""
        return await self._workers.run(self._shelf.space)

    # Ageing

    async def renew(self, hash: str, layout: str) -> Holding:
        """A new age for all shards of a layout, those in garbage included."""
        checked_hash(hash)
        checked_id(layout)

        async def work() -> Holding:
            await self._give_back(hash, layout, fresh=True)
            keys = [key for key in await self._keys(hash) if key.layout == layout]
            for key in keys:
                self._ledger.condemned.pop(key, None)
            return await self._settled(keys, self._shelf.renew)

        return await self._serial.run(hash, work)

    async def restore(self, hash: str) -> Holding:
        """Bring back what garbage has of a content."""
        checked_hash(hash)

        async def work() -> Holding:
            await self._give_back(hash, None, fresh=False)
            return await self._find_in_turn(hash)

        return await self._serial.run(hash, work)

    async def condemn(
        self, key: ShardKey, age: float = 0.0, epoch: int | None = None
    ) -> str:
        """Mark a shard that may have to go; gives the token that discard() asks for."""
        self._root.paths.shard(key)
        await self._exits.admit(epoch)

        async def work() -> str:
            if key not in await self._keys(key.hash, bad=True):
                raise ShardMissing("there is no such shard here")
            await self._exits.check_age(key, age)
            token = self._entropy(16).hex()
            self._ledger.condemned[key] = token
            return token

        return await self._serial.run(key.hash, work)

    async def discard(
        self, key: ShardKey, token: str, epoch: int | None = None
    ) -> bool:
        """Move a condemned shard to garbage, unless it was renewed meanwhile."""
        self._root.paths.shard(key)
        await self._exits.admit(epoch)

        async def work() -> bool:
            if self._ledger.condemned.get(key) != token:
                return False
            del self._ledger.condemned[key]
            try:
                copy = await self._workers.run(self._shelf.discard, key)
            except ShardMissing:
                await self._doubt(key)
                return False
            except ShardError:
                await self._interrupted(key)
                raise
            self._ledger.discarded(key, copy)
            return True

        return await self._serial.run(key.hash, work)

    async def erase(self, key: ShardKey, age: float, epoch: int | None = None) -> int:
        """Remove for good what garbage has of a shard and is so old: bytes freed."""
        self._root.paths.shard(key)
        await self._exits.admit(epoch)

        async def work() -> int:
            discarded = await self._discarded(key.hash)
            copies = [copy for each, copy in discarded if each == key]
            gone = await self._exits.erase(key, copies, age)
            for copy in gone:
                self._ledger.garbage.remove(key, copy)
            return sum(gone.values())

        return await self._serial.run(key.hash, work)

    async def mark_bad(self, key: ShardKey) -> None:
        """It counts as absent from now on."""
        self._root.paths.shard(key)
        if key in await self._keys(key.hash):
            self._ledger.rot(key)

    async def _on_a_root(self, write: Callable[[], Awaitable[T]]) -> T:
        """What `write()` gives, tried again once the root that vanished is mended."""
        try:
            return await write()
        except RootGone:
            await self._mend_root()
            return await write()

    # Its own; what says "in turn" is called by the one whose turn it is

    async def _keys(self, hash: str, *, bad: bool = False) -> Sequence[ShardKey]:
        if self._scan.knows(hash):
            found = [key for key, _ in self._ledger.shards.of(hash)]
        else:
            found = await self._workers.run(self._shelf.shards_of, hash)
        return [key for key in found if bad or key not in self._ledger.bad]

    async def _discarded(self, hash: str) -> Sequence[tuple[ShardKey, int]]:
        if self._scan.knows_garbage:
            return self._ledger.garbage.of(hash)
        return await self._workers.run(self._shelf.discarded_of, hash)

    async def _settled(self, keys: Sequence[ShardKey], look: Look) -> Holding:
        """What is whole of these; the others are struck off. In turn."""
        found, doubtful = await look_twice(self._workers, keys, look)
        for key, rotten in doubtful:
            if rotten:
                self._ledger.rot(key)
            else:
                self._ledger.gone(key)
        return holding(found)

    async def _find_in_turn(self, hash: str) -> Holding:
        return await self._settled(await self._keys(hash), self._shelf.look)

    async def _doubt(self, key: ShardKey) -> None:
        """Something is wrong with it: note what is there now. In turn."""
        try:
            await self._workers.run(self._shelf.inspect, key)
        except ShardMissing:
            self._ledger.gone(key)
            return
        except RootGone:
            return
        except ShardRotten:
            self._ledger.rot(key)
        except ShardError:
            pass
        self._ledger.shards.add(key)

    async def _interrupted(self, key: ShardKey) -> None:
        """The disk failed while it was being moved: note where it is now. In turn."""
        await self._doubt(key)
        with suppress(ShardError):
            found = await self._workers.run(self._shelf.discarded_of, key.hash)
            for each, copy in found:
                self._ledger.garbage.add(each, copy)

    async def _give_back(self, hash: str, layout: str | None, *, fresh: bool) -> None:
        """In turn."""
        discarded = await self._discarded(hash)
        standing = set(await self._keys(hash)) if discarded else set()
        copies: dict[ShardKey, MutableSequence[int]] = {}
        for key, copy in discarded:
            if layout in (None, key.layout) and key not in standing:
                copies.setdefault(key, []).append(copy)
        for key, numbers in copies.items():
            try:
                given = await self._workers.run(
                    self._shelf.give_back, key, numbers, fresh=fresh
                )
            except ShardError:
                await self._interrupted(key)
                raise
            if given is not None:
                self._ledger.garbage.remove(key, given)
                self._ledger.whole(key)
