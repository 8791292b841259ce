"""Data services as the nodes of an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from hashlib import sha256

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from zope.interface import implementer

from ostore.backends.nodes.asking import COMMIT, Ask, Peer, Stale
from ostore.backends.nodes.download import RemoteReader, open_remote
from ostore.backends.nodes.naming import (
    checked,
    checked_hash,
    checked_id,
    naming,
    of_epoch,
    old_enough,
    shard_name,
)
from ostore.backends.nodes.pool import Pool
from ostore.backends.nodes.protocol import (
    FRAMES,
    LAYOUT,
    digest_header,
    holding_from_json,
    list_from_json,
)
from ostore.backends.nodes.upload import RemoteSink, remove
from ostore.backends.nodes.uploads import RemoteUploads
from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Buffer
from ostore.interfaces import INodes, IShardsAtHand, IShardStore
from ostore.model.errors import (
    Malformed,
    NodeUnreachable,
    ShardError,
    ShardMissing,
    ShardRefused,
)
from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
from ostore.model.nodes import Members, Space
from ostore.model.signing import Caller
from ostore.model.versions import ClusterFacts
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks

PAGE = 1000
"""The most shards that a node lists in one answer."""
SMALL_BYTES = 1 << 20
SMALL_FRAMES = 256
"""Bytes of blocks, and frames, that go in one request; nodes take a little more."""


@implementer(INodes)
class HttpNodes:
    """Every node that was ever heard, at the address of its last heartbeat.

    Made and stopped by the service. `members` is asked at each request.
    """

    def __init__(
        self,
        members: Callable[[], Members],
        caller: Caller,
        pool: Pool,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._entropy = entropy
        self._members = members
        self._caller = caller
        self._pool = pool
        self._clock = clock
        self._tasks = Tasks(Logger(namespace="ostore.nodes"))
        self._stores: dict[str, RemoteStore] = {}

    def at_hand(self, node: str) -> IShardsAtHand | None:
        """Nothing is: requests take their time."""
        return None

    def store(self, node: str) -> RemoteStore:
        """The shards of that node."""
        return self._known(node)

    def uploads(self, node: str) -> RemoteUploads:
        """The resumable uploads on that node."""
        return RemoteUploads(self._known(node).peer, self._clock)

    def place(self, node: str) -> str:
        """Its host:port."""
        return self._known(node).peer.address.place

    async def adopt(self, node: str, facts: ClusterFacts) -> None:
        """Tell a node which cluster it belongs to. Raises ShardRefused when it is of another."""
        target = f"/cluster-id?id={checked_id(facts.id)}&epoch={facts.epoch}"
        await self._known(node).peer.ask(Ask("POST", target, repeatable=True))

    async def drain(self, node: str, on: bool) -> None:
        """Have a node give its shards away, or no longer so."""
        ask = Ask("POST", f"/drain?on={on:d}", repeatable=True)
        await self._known(node).peer.ask(ask)

    def keep(self, nodes: Collection[str]) -> None:
        """Forget all others: their clocks, and what was made to reach them."""
        self._caller.keep(nodes)
        self._stores = {n: self._stores[n] for n in self._stores.keys() & nodes}

    async def stop(self, seconds: float = 5.0) -> None:
        """Close all connections; removals of temporaries may end before that."""
        with suppress(TimedOut):
            await self._clock.within(seconds, self._tasks.idle())
        await self._tasks.stop()
        self._pool.stop()

    def _known(self, node: str) -> RemoteStore:
        known = self._stores.get(node)
        if known is None:
            peer = Peer(node, self._members, self._caller, self._pool, self._clock)
            _ = peer.address
            known = self._stores[node] = self._made(peer)
        return known

    def _made(self, peer: Peer) -> RemoteStore:
        return RemoteStore(peer, self._clock, self._tasks, self._entropy)


@implementer(IShardStore)
class RemoteStore:
    """The shards of one data service; made by HttpNodes.

    Nothing but hex digits and numbers gets into a target.
    """

    def __init__(
        self,
        peer: Peer,
        clock: Clock,
        tasks: Tasks,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.peer = peer
        self._clock = clock
        self._tasks = tasks
        self._entropy = entropy

    # Writing

    async def create(self, upload: str) -> RemoteSink:
        """A temporary shard at the node."""
        ask = Ask("POST", f"/temp/{checked_id(upload)}?uuid={upload}")
        try:
            await self._created(ask, upload)
        except ShardRefused:
            raise
        except (CancelledError, ShardError):
            self._tasks.spawn(
                "removing a temporary", lambda: remove(self.peer, self._clock, upload)
            )
            raise
        return RemoteSink(self.peer, upload, self._clock, self._tasks)

    async def _created(self, ask: Ask, upload: str) -> None:
        try:
            await self.peer.ask(ask)
        except Stale:
            # Nobody knows whether the first request arrived.
            await remove(self.peer, self._clock, upload)
            await self.peer.ask(ask)

    def put_small(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> Awaitable[None]:
        """Write and name a shard in one request, if it is small enough for that."""
        return self._put_small(key, layout, frames, deadline, age)

    async def _put_small(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> None:
        name = checked(key, layout)
        size = sum(len(frame.block) for frame in frames)
        if size > SMALL_BYTES or len(frames) > SMALL_FRAMES:
            await self._put_large(key, layout, frames, deadline, age)
            return
        parts: list[Buffer] = []
        headers = sha256()
        for number, frame in enumerate(frames):
            if frame.number != number:
                raise ShardRefused(f"frame {frame.number} stands where {number} must")
            header = frame.header()
            headers.update(header)
            parts += (header, frame.block)
        query = await naming(self.peer, deadline, age)
        ask = Ask(
            "POST",
            f"/objects/{name}?do=put{query}",
            {
                "Content-Type": FRAMES,
                "Digest": digest_header(headers.digest()),
                LAYOUT: layout.header(),
            },
            parts,
            repeatable=True,
            patience=COMMIT,
        )
        await self.peer.ask(ask)

    async def _put_large(
        self,
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> None:
        sink = await self.create(self._entropy(16).hex())
        try:
            for frame in frames:
                await sink.write(frame)
            await sink.commit(key, layout, deadline, age)
        finally:
            await sink.abort()

    # Asking

    async def find(self, hash: str) -> Holding:
        """All shards of a content held there."""
        return await self._holding("GET", checked_hash(hash))

    async def open(self, key: ShardKey, *, bad: bool = False) -> RemoteReader:
        """One shard for reading; one that is marked bad only with `bad`."""
        return await open_remote(self.peer, key, self._clock, bad=bad)

    async def list(
        self, after: str, limit: int, until: str = ""
    ) -> Sequence[ShardFacts]:
        """A page of everything held there."""
        query = f"limit={max(1, min(PAGE, limit))}"
        for name, hash in (("after", after), ("until", until)):
            query += f"&{name}={checked_hash(hash)}" if hash else ""
        told = await self.peer.ask(Ask("GET", f"/shards?{query}", repeatable=True))
        return list_from_json(told.json())

    async def space(self) -> Space:
        """Bytes free and in all."""
        shown = (await self.peer.ask(Ask("GET", "/node", repeatable=True))).json()
        try:
            return Space(int(shown["free"]), int(shown["total"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NodeUnreachable("the node's answer says no space") from None

    # Ageing

    async def renew(self, hash: str, layout: str) -> Holding:
        """A new age for all shards of a layout."""
        query = f"?do=renew&layout={checked_id(layout)}"
        return await self._holding("POST", checked_hash(hash), query)

    async def restore(self, hash: str) -> Holding:
        """Bring back what garbage has of a content."""
        return await self._holding("POST", checked_hash(hash), "?do=restore")

    async def condemn(
        self, key: ShardKey, age: float = 0.0, epoch: int | None = None
    ) -> str:
        """Mark a shard that may have to go; gives a token."""
        target = f"/objects/{shard_name(key)}?do=condemn&layout={key.layout}"
        target += old_enough(age) + of_epoch(epoch)
        shown = (await self.peer.ask(Ask("POST", target, repeatable=True))).json()
        try:
            return checked_id(str(shown["token"]))
        except (KeyError, TypeError, Malformed):
            raise NodeUnreachable("the node's answer is no token") from None

    async def discard(
        self, key: ShardKey, token: str, epoch: int | None = None
    ) -> bool:
        """Move a condemned shard to garbage, unless it was renewed meanwhile."""
        query = f"layout={key.layout}&token={checked_id(token)}{of_epoch(epoch)}"
        try:
            await self.peer.ask(Ask("DELETE", f"/objects/{shard_name(key)}?{query}"))
        except (ShardMissing, ShardRefused):
            return False
        return True

    async def erase(self, key: ShardKey, age: float, epoch: int | None = None) -> int:
        """Remove for good what garbage has of a shard and is so old: bytes freed."""
        target = f"/objects/{shard_name(key)}?do=erase&layout={key.layout}"
        target += old_enough(age) + of_epoch(epoch)
        shown = (await self.peer.ask(Ask("POST", target, repeatable=True))).json()
        try:
            return int(shown["bytes"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NodeUnreachable("the node's answer is no number of bytes") from None

    async def check(self, key: ShardKey, first: int = 0) -> tuple[int, int]:
        """Have some stripes read there; bytes, and the stripe to go on with."""
        target = (
            f"/objects/{shard_name(key)}?do=check&layout={key.layout}&first={first:d}"
        )
        ask = Ask("POST", target, repeatable=True, patience=COMMIT)
        shown = (await self.peer.ask(ask)).json()
        try:
            return int(shown["bytes"]), int(shown["next"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NodeUnreachable("the node's answer is no number of bytes") from None

    async def sweep(self, *, dry_run: bool = False) -> int:
        """Have temporaries and uploads removed that have expired, or counted."""
        target = "/sweep?dry_run=1" if dry_run else "/sweep"
        ask = Ask("POST", target, repeatable=True, patience=COMMIT)
        shown = (await self.peer.ask(ask)).json()
        try:
            return int(shown["expired" if dry_run else "removed"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NodeUnreachable("the node's answer is no number") from None

    async def mark_bad(self, key: ShardKey) -> None:
        """It counts as absent from now on."""
        target = f"/objects/{shard_name(key)}?do=bad&layout={key.layout}"
        with suppress(ShardMissing):
            await self.peer.ask(Ask("POST", target, repeatable=True))

    async def _holding(self, method: str, hash: str, query: str = "") -> Holding:
        ask = Ask(method, f"/objects/{hash}{query}", repeatable=True)
        holding = holding_from_json((await self.peer.ask(ask)).json())
        if any(facts.hash != hash for facts in holding.shards):
            raise NodeUnreachable("the node's answer is of another content")
        return holding
