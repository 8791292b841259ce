"""The shards of one storage root behind the seam the engine knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from twisted.internet.defer import fail
from twisted.logger import Logger
from zope.interface import implementer

from ostore.backends.shards.checking import read_through
from ostore.backends.shards.collecting import Exits, Fence, no_fence
from ostore.backends.shards.committing import Commits, Name
from ostore.backends.shards.disk import Disk
from ostore.backends.shards.filed import FiledShards
from ostore.backends.shards.files import Files
from ostore.backends.shards.incoming import Incoming, whole_file
from ostore.backends.shards.inventory import Inventory
from ostore.backends.shards.ledger import Ledger
from ostore.backends.shards.new import NewShard
from ostore.backends.shards.paths import checked_hash, checked_id, checked_key
from ostore.backends.shards.reading import Reader
from ostore.backends.shards.root import Root
from ostore.backends.shards.segments.log import SegmentLog
from ostore.backends.shards.segments.packed import PackedShards
from ostore.backends.shards.serial import Serial, handed_over
from ostore.backends.shards.shelf import Shelf
from ostore.backends.shards.temporaries import Temporaries
from ostore.backends.shards.uploads import Uploads
from ostore.erasure.framing import Frame
from ostore.interfaces import IShardsAtHand, IShardStore
from ostore.model.errors import (
    NodeUnreachable,
    OstoreError,
    ShardError,
    ShardMissing,
    ShardRotten,
)
from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
from ostore.model.nodes import Space
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers
from ostore.streaming.tasks import Tasks, start

AGAIN = 5.0
"""Seconds after which segments that could not be read are tried again."""


@implementer(IShardStore, IShardsAtHand)
class ShardStore:
    """Shards below an open root, as files or packed in segments; owned by a node.

    Contents of at most `pack_limit` bytes are packed, but for what comes while the
    segments are still being read. A shard is wherever it was written, whatever the
    limit says now. What is known to be bad and what is condemned is kept in memory.
    Work on one content is done one after the other, and what has begun is finished even
    if its caller is cancelled. A new shard that meets no root calls `mend_root` and
    tries once more.
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
        pack_limit: int = 0,
        flushers: Workers | None = None,
    ) -> None:
        self._root = root
        self._workers = workers
        self._clock = clock
        self._entropy = entropy
        self._disk = Disk(files, root.paths, durable=durable)
        self._shelf = Shelf(self._disk, root, clock.wall)
        self._serial = Serial()
        self._tasks = Tasks(Logger(namespace="ostore.shards"))
        self.temporaries = Temporaries(self, self._shelf, workers, clock, entropy)
        self.uploads = Uploads(self, self._shelf, root.admit, workers, clock)
        self._log = SegmentLog(
            self._disk, root.check, workers, clock, entropy, flushers=flushers
        )
        self._filed = FiledShards(self._disk, root, self._shelf, workers, clock)
        self._packed = PackedShards(self._log, clock)
        self._inventory = Inventory(self._filed, self._packed, self._serial)
        self._exits = Exits(
            self._disk, root, workers, clock, fence, self._filed, self._packed
        )
        self._commits = Commits(
            self._filed,
            self._packed,
            self._shelf,
            workers,
            self._serial,
            entropy,
            mend_root,
            pack_limit,
        )
        self._count(Ledger())

    def _count(self, ledger: Ledger) -> None:
        self._ledger = self._packed.ledger = ledger
        self._filed.count(ledger)

    # Its life

    async def start(self) -> None:
        """Remove temporaries that a crash left and read the segments.

        The shards that are files are counted on the side, and so are segments that
        could not be read.
        """
        await self.uploads.start()
        with suppress(ShardError):
            await self._log.load()
        self._read_all()

    async def stop(self) -> None:
        """Finish what is under way."""
        await self._tasks.stop()
        await self.temporaries.stop()
        await self.uploads.stop()
        await self._serial.idle()
        await self._log.stop()

    def recount(self) -> None:
        """The root is another folder than before: forget all and count anew."""
        self._filed.scan.abandon()
        self._disk.forget()
        self.uploads.recount()
        self._log.forget()
        self._count(Ledger(self.lost, self.rotten))
        self._read_all()

    def _read_all(self) -> None:
        self._tasks.spawn("counting shards", self._filed.scan.run)
        self._tasks.spawn("reading segments", self._load)

    async def _load(self) -> None:
        while not self._log.loaded:
            try:
                await self._log.load()
            except ShardError:
                await self._clock.sleep(AGAIN)

    @property
    def scanning(self) -> bool:
        """Whether the count still goes on."""
        return not (self._filed.scan.done and self._packed.known)

    @property
    def strange(self) -> int:
        """Entries met in the folders that are not ours."""
        return self._filed.scan.strange + self._log.strange

    @property
    def lost(self) -> int:
        """Shards that vanished under the index, since the start."""
        return self._ledger.lost

    @property
    def rotten(self) -> int:
        """Shards found not to be what they say, since the start."""
        return self._ledger.rotten

    def __len__(self) -> int:
        return len(self._filed) + len(self._packed)

    async def holds_any(self) -> bool:
        """Whether any shard is here, garbage included; looks at the disk if need be."""
        return await self._packed.any() or await self._filed.any()

    # Writing

    async def create(self, upload: str) -> Incoming:
        """A temporary shard."""
        checked_id(upload)
        self._root.admit()

        def undo(fd: int) -> None:
            _ = start(self._workers.run(self._shelf.give_up, fd, upload))

        def opened() -> Awaitable[int]:
            return handed_over(self._workers.run(self._shelf.create, upload), undo)

        fd = await self._commits.on_a_root(opened)
        return Incoming(upload, fd, self._shelf, self._workers, self)

    def put_small(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> Awaitable[None]:
        """Write and name a shard; all that wait for that are written together."""
        try:
            checked_key(key)
            self._root.admit()
            parts = whole_file(key, layout, frames)
        except OstoreError:
            return fail()
        return self._commits.small(NewShard(key, layout, parts, deadline, age))

    async def keep(self, key: ShardKey, name: Name) -> bool:
        """For commits of temporaries: see Commits."""
        return await self._commits.keep(key, name)

    # Asking

    async def find(self, hash: str) -> Holding:
        """All whole shards of a content; looks at the disk where the count is not yet.

        Unsure when none is found before the segments were read.
        """
        checked_hash(hash)
        return await self._inventory.find(hash)

    def lacks(self, hash: str) -> bool:
        """Whether it is known that nothing is here of that content."""
        return self._inventory.lacks(hash)

    def glance(self, key: ShardKey) -> Frame | None:
        """The block of a shard of one stripe, if that is right and in memory."""
        return None if key in self._ledger.bad else self._packed.glance(key)

    async def held(self, hash: str) -> Sequence[ShardKey]:
        """All shards of a content by their names, the bad ones too."""
        checked_hash(hash)
        return await self._inventory.keys(hash, bad=True)

    async def open(self, key: ShardKey, *, bad: bool = False) -> Reader:
        """One shard for reading; one that is marked bad only with `bad`."""
        self._root.paths.shard(key)
        if key in self._ledger.bad and not bad:
            raise ShardRotten("the shard was found rotten before")
        opened = await self._packed.open(key, bad=bad)
        if opened is None:
            try:
                opened = await self._filed.open(key)
            except (ShardMissing, ShardRotten) as error:
                await self._serial.run(key.hash, lambda: self._filed.doubt(key))
                if isinstance(error, ShardMissing):
                    self._inventory.must_know()
                raise
        return Reader(opened, self._workers, lambda: self._ledger.rot(key))

    async def check(self, key: ShardKey, first: int = 0) -> tuple[int, int]:
        """Read some stripes; bytes read, and the stripe to go on with, 0 at the end."""
        return await read_through(await self.open(key), first)

    async def list(
        self, after: str, limit: int, until: str = ""
    ) -> Sequence[ShardFacts]:
        """A page of everything held; raises NodeUnreachable while the count goes on.

        The layout of a file whose footer cannot be read has k, m and size 0.
        """
        for bound in filter(None, (after, until)):
            checked_hash(bound)
        if self.scanning:
            raise NodeUnreachable("the node is still counting its shards")
        self._exits.look()
        return await self._inventory.page(after, limit, until)

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
            for key in await self._inventory.keys(hash):
                if key.layout == layout:
                    self._ledger.condemned.pop(key, None)
            packed: Sequence[ShardFacts] = ()
            if self._packed.known:
                packed = await self._packed.renew(hash, layout)
            return self._inventory.holding(
                packed, await self._filed.renew(hash, layout)
            )

        return await self._serial.run(hash, work)

    async def restore(self, hash: str) -> Holding:
        """Bring back what garbage has of a content."""
        checked_hash(hash)

        async def work() -> Holding:
            await self._give_back(hash, None, fresh=False)
            return await self._inventory.look(hash)

        return await self._serial.run(hash, work)

    async def condemn(
        self, key: ShardKey, age: float = 0.0, epoch: int | None = None
    ) -> str:
        """Mark a shard that may have to go; gives the token that discard() asks for."""
        self._root.paths.shard(key)
        await self._exits.admit(epoch)

        async def work() -> str:
            if key not in await self._inventory.keys(key.hash, bad=True):
                self._inventory.must_know()
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
            gone = await self._exits.discard(key)
            self._ledger.young(key)
            return gone

        return await self._serial.run(key.hash, work)

    async def erase(self, key: ShardKey, age: float, epoch: int | None = None) -> int:
        """Remove for good what garbage has of a shard and is so old: bytes freed."""
        self._root.paths.shard(key)
        await self._exits.admit(epoch)

        return await self._serial.run(key.hash, lambda: self._exits.erase(key, age))

    async def sweep(self, *, dry_run: bool = False) -> int:
        """Remove temporaries and uploads that have expired, or only count them."""
        if dry_run:
            return len(self.temporaries.expired()) + await self.uploads.expired()
        before = len(self.temporaries) + len(self.uploads)
        await self.temporaries.sweep()
        await self.uploads.sweep()
        return max(0, before - len(self.temporaries) - len(self.uploads))

    async def mark_bad(self, key: ShardKey) -> None:
        """It counts as absent from now on."""
        self._root.paths.shard(key)
        if key in await self._inventory.keys(key.hash):
            self._ledger.rot(key)

    # Its own

    async def _give_back(self, hash: str, layout: str | None, *, fresh: bool) -> None:
        """In turn."""
        standing = set(await self._inventory.keys(hash))
        if self._packed.known:
            given = await self._packed.give_back(hash, layout, standing, fresh=fresh)
            for key in given:
                self._ledger.young(key)
            standing.update(given)
        await self._filed.give_back(hash, layout, standing, fresh=fresh)
