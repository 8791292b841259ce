"""One node: a storage root taken, its shards counted, and watched over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ostore.backends.shards.files import Files
from ostore.backends.shards.root import Root
from ostore.backends.shards.serial import Serial
from ostore.backends.shards.store import ShardStore
from ostore.model.errors import Refused, ShardError, ShardRefused
from ostore.model.nodes import Boot, Space
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers

MOST_HEADROOM = 1 << 30
"""The default head-room is this, or 1 % of the disk where that is less."""

_ROOT = "root"


class ShardNode:
    """One data node of this process: root, store and worker threads.

    Made by the wiring, which starts it, calls check_root() about twice a second, and
    stops it. The workers are its own: it starts and stops them.
    """

    def __init__(
        self,
        path: str,
        files: Files,
        workers: Workers,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        durable: bool = True,
        headroom: int | None = None,
        pack_limit: int = 0,
        flushers: Workers | None = None,
    ) -> None:
        """`flushers` append to segments, for several nodes; theirs who made them."""
        self._root = Root(path, files, entropy)
        self._workers = workers
        self._headroom = headroom
        self._mending = False
        self._serial = Serial()
        self._space = Space(0, 0)
        self.store = ShardStore(
            self._root,
            files,
            workers,
            clock,
            entropy,
            self._mend_root,
            durable=durable,
            fence=self._fence,
            pack_limit=pack_limit,
            flushers=flushers,
        )

    @property
    def node_id(self) -> str:
        """The permanent id, 32 hex digits; empty before the start."""
        return self._root.identity.node

    @property
    def boot(self) -> Boot:
        """This start; a root that had to be made anew counts as one."""
        return self._root.boot

    @property
    def cluster(self) -> str:
        """The cluster the root belongs to; empty for none."""
        return self._root.identity.cluster

    @property
    def epoch(self) -> int:
        """The highest epoch it was given."""
        return self._root.identity.epoch

    @property
    def state(self) -> str:
        """readonly, draining, full, scanning or up: the first that is true."""
        if self._root.readonly:
            return "readonly"
        if self._root.draining:
            return "draining"
        if self._root.full:
            return "full"
        return "scanning" if self.store.scanning else "up"

    @property
    def reason(self) -> str:
        """Why it is readonly; empty when it is not."""
        return self._root.readonly

    @property
    def full(self) -> bool:
        """Whether less is free than the head-room."""
        return self._root.full

    @property
    def space(self) -> Space:
        """Free and total bytes when the root was last looked after."""
        return self._space

    @property
    def shard_count(self) -> int:
        """Shards outside garbage, as far as they are counted."""
        return len(self.store)

    async def start(self) -> None:
        """Take the root and begin to count.

        Raises Malformed, Refused or NodeUnreachable with one line for the operator.
        """
        self._workers.start()
        try:
            await self._workers.run(self._root.open)
            await self._measure()
            await self.store.start()
        except BaseException:
            self._root.close()
            self._workers.stop()
            raise

    async def stop(self) -> None:
        """Finish what is under way and let the root go."""
        await self.store.stop()
        await self._serial.idle()
        self._workers.stop()
        self._root.close()

    async def check_root(self) -> None:
        """Mend the root if it vanished, see whether there is room. Never raises.

        A call while another is under way does nothing.
        """
        if self._mending:
            return
        self._mending = True
        await self._serial.run(_ROOT, self._check_root)

    async def adopt(self, cluster: str, epoch: int) -> None:
        """Join a cluster, or learn of its new epoch, durably.

        A cluster id is taken only by a node that has none and holds no shards, an
        epoch only grows. Raises Refused, Malformed, NodeUnreachable.
        """

        async def work() -> None:
            if not self.cluster and await self.store.holds_any():
                raise Refused("a node that holds shards does not join a cluster")
            await self._workers.run(self._root.adopt, cluster, epoch)

        await self._serial.run(_ROOT, work)

    async def drain(self, *, on: bool) -> None:
        """Take no new shards and give away what is here, or no longer so."""
        await self._serial.run(
            _ROOT, lambda: self._workers.run(self._root.drain, on=on)
        )

    async def _fence(self, epoch: int) -> None:
        """Keep the highest epoch that an order bore, durably, and refuse lower ones."""
        if not self.cluster:
            raise ShardRefused("the node belongs to no cluster")
        if epoch > self.epoch:
            with suppress(Refused):  # another order raised it meanwhile
                await self.adopt(self.cluster, epoch)
        if epoch < self.epoch:
            raise ShardRefused(f"the order is of epoch {epoch}, not of {self.epoch}")

    async def _mend_root(self) -> None:
        """A look at the root that begins after this call. Never raises."""
        await self._serial.run(_ROOT, self._check_root)

    async def _check_root(self) -> None:
        try:
            if await self._workers.run(self._root.mend):
                self.store.recount()
            await self._measure()
        finally:
            self._mending = False

    async def _measure(self) -> None:
        try:
            self._space = await self.store.space()
        except ShardError:
            return
        headroom = self._headroom
        if headroom is None:
            headroom = min(MOST_HEADROOM, self._space.total // 100)
        self._root.full = self._space.free < headroom
