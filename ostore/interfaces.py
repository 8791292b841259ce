"""The four seams between the engine and the things it stands on.

Methods marked `async` below are coroutines in every implementation. Interfaces
leave out `self`, as zope.interface asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ostore.erasure.framing import Frame, Table
    from ostore.model.layouts import Holding, Layout, ShardFacts, ShardKey
    from ostore.model.nodes import Space
    from ostore.model.resuming import UploadState
    from ostore.model.versions import (
        ClusterFacts,
        Degraded,
        Lease,
        NewVersion,
        Note,
        Page,
        Version,
    )


class IMessageBus(Interface):
    """Fan-out of small messages, and answers to the one who asked.

    All traffic is soft state: at most once, nothing kept. Bodies are bytes, 1 to
    64 KiB. Handlers run in the reactor, never re-entrantly (never before the call
    that caused them has returned); what a handler raises is logged.
    """

    address: str = Attribute("how this member names itself as the one to answer")
    up: bool = Attribute("whether a publish now would reach the others")
    trouble: str | None = Attribute("why it is not up, in one sentence; or None")

    async def start() -> None:
        """Join; returns at once even when the broker is away."""

    async def stop() -> None:
        """Leave; nothing is delivered afterwards."""

    def on_up(handler: Callable[[float], None]) -> None:
        """Call `handler(away)` each time the bus comes up.

        `away` is the number of seconds in which messages may have been missed.
        """

    def subscribe(topic: str, handler: Callable[[bytes, str], None]) -> None:
        """Call `handler(body, reply_to)` for each message published to `topic`.

        Holds for all that this member publishes from now on, answers included. What is
        sent to `reply_to` reaches the one who published, and nobody else.
        """

    def listen(handler: Callable[[bytes], None]) -> None:
        """Call `handler(body)` for each message sent to this member's address."""

    async def publish(topic: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to every subscriber of `topic`, this member included.

        A message that was not delivered after `ttl` seconds is dropped. Raises
        BusUnavailable.
        """

    async def send(address: str, body: bytes, ttl: float | None = None) -> None:
        """Give `body` to the member at `address`; silently dropped if it is gone.

        Raises BusUnavailable.
        """


class IMetadataStore(Interface):
    """Versions of names, and the few facts the whole cluster shares.

    Every method is a coroutine and raises MetadataUnavailable when the store does
    not answer. All versions of one (bucket, name) are linearizable; a number is
    never used twice. Names sort by their UTF-8 bytes.
    """

    async def start() -> None:
        """Open the store, making what is missing."""

    async def stop() -> None:
        """Finish what was accepted, then close."""

    async def add_version(new: NewVersion) -> Version:
        """Write the next version of a name and return it.

        Decides `new.condition` against the newest version in the same step
        (AlreadyExists, ConditionFailed). A delete marker upon a name that is absent
        or already deleted raises NotFound. The same (bucket, name, put_id) again
        returns the version it made before. `created` is the store's clock, and at
        least 1 ms after the version below. OutcomeUnknown when the write may have
        happened.
        """

    async def latest(bucket: str, name: str) -> Version | None:
        """The newest version, which may be a delete marker; None without any."""

    async def version(bucket: str, name: str, number: int) -> Version | None:
        """That version, or None."""

    async def by_put_id(bucket: str, name: str, put_id: str) -> Version | None:
        """The version that this put_id made, if it exists."""

    async def purge(bucket: str, name: str, number: int) -> bool:
        """Remove one version for good; False when there was none."""

    async def versions_of(
        bucket: str, name: str, after: int, limit: int
    ) -> Sequence[Version]:
        """Versions with a number greater than `after`, ascending, at most `limit`.

        A page that is shorter than `limit` is the last.
        """

    async def all_versions(
        bucket: str, after: tuple[str, int], limit: int
    ) -> Sequence[Version]:
        """Versions behind `after` = (name, number), by name then number.

        At most `limit`; a page that is shorter is the last.
        """

    async def listing(
        bucket: str, prefix: str, delimiter: str, after: str, limit: int
    ) -> Page:
        """Newest versions that are no markers, in name order behind `after`.

        With a delimiter, names that hold it behind the prefix are rolled up into
        `prefixes`; `limit` counts items and prefixes. `next` says whether another page
        follows. Costs the page, not the bucket.
        """

    async def degraded(after: str, limit: int) -> Sequence[Degraded]:
        """Contents that versions say lack shards, worst (fewest left) first.

        Distinct by (hash, layout). `after` is a cursor: the `hash/layout id` of the
        last one seen in this order, or empty. At most `limit`; a page that is shorter
        is the last.
        """

    async def mark_degraded(
        marks: Sequence[tuple[str, str, int]], missing: Sequence[int]
    ) -> None:
        """Have exactly these (bucket, name, number) say that they lack these shards.

        Added to what each says already; one that is gone, or is a delete marker, stays
        so. Each name in one step; twice is as good as once.
        """

    async def clear_degraded(marks: Sequence[tuple[str, str, int]]) -> None:
        """Take the `degraded` mark from exactly these (bucket, name, number)."""

    async def hashes(after: str, limit: int) -> Sequence[str]:
        """Distinct content hashes that versions refer to, ascending behind `after`.

        At most `limit`; a page that is shorter is the last.
        """

    async def content(hash: str) -> Version | None:
        """Any version that refers to this content, or None.

        Sees every version acknowledged before the call; never a guess: raises
        MetadataUnavailable rather than answer from half the data.
        """

    async def cluster() -> ClusterFacts | None:
        """The cluster's id and epoch; None in a store that was never given them."""

    async def create_cluster(facts: ClusterFacts) -> ClusterFacts:
        """Set id and epoch unless they are set; returns what is set now."""

    async def lease(owner: str, seconds: float) -> Lease | None:
        """Take or renew the right to run maintenance, for so many seconds from now.

        None while another owner's lease stands (by the caller's wall clock, but no
        longer than it is renewed), or before the cluster has an id. Taking it from another owner, or for the first time,
        raises the cluster's epoch; renewing keeps it.
        """

    async def release(owner: str) -> None:
        """Give the lease back, if it is that owner's; its epoch stays used."""

    async def note(key: str) -> Note | None:
        """A small document of that key, as it is now; None when there is none."""

    async def set_note(key: str, value: Mapping[str, Any], mark: str) -> bool:
        """Replace the note that bears `mark`; an empty mark creates it.

        False, and nothing done, when the note is another by now. When the outcome is
        not known it raises; the note tells then.
        """

    async def health() -> str | None:
        """None when it works, else one sentence that says why not."""


class IShardSink(Interface):
    """One temporary shard that is being written."""

    async def write(frame: Frame) -> None:
        """Append one frame; returns when the next one is welcome.

        What is under way behind the caller's back is limited: one frame, or of a large
        shard those of two writes. Raises ShardError; after that only abort() makes
        sense.
        """

    async def commit(
        key: ShardKey, layout: Layout, deadline: float | None, age: float
    ) -> None:
        """Name the temporary: checked, durable, create-only.

        `deadline` is in seconds since 1970 by the node's clock: afterwards it refuses.
        `age` (seconds) is what the shard starts with; 0 for new content, the oldest
        sibling's for a rebuilt shard. When the same index and layout stands already and
        is whole, it is renewed instead; when it is bad it goes to garbage and this one
        takes its name. The temporary is gone after success. Raises ShardRefused (layout
        id differs from the frames written, deadline passed), NodeFull, NodeUnreachable.
        """

    async def abort() -> None:
        """Drop the temporary. Idempotent; never raises; fine after commit.

        It goes on when the caller is cancelled: a caller may bound its wait.
        """


class IFrameStream(Interface):
    """Frames of one shard, in order, with read-ahead of at most one frame."""

    async def read() -> Frame | None:
        """The next frame, its block checked; None behind the last.

        Raises ShardRotten, ShardMissing, NodeUnreachable.
        """

    async def close() -> None:
        """Give up what is held. Idempotent; never raises."""


class IShardReader(Interface):
    """One shard, opened: its file was there and its footer whole."""

    facts: ShardFacts = Attribute("what the footer says")
    table: Table = Attribute("the stripe table, checked against the layout id")

    def frames(first: int, stop: int) -> IFrameStream:
        """Frames of the stripes first <= i < stop."""

    async def close() -> None:
        """Give up the file. Idempotent; never raises."""


class IUploadSink(Interface):
    """Frames of one part of a resumable upload on their way to one node."""

    async def write(frame: Frame) -> None:
        """Append one frame behind those that are held.

        What is under way behind the caller's back is limited as that of IShardSink.
        Raises ShardRefused when another has claimed the upload, NodeFull,
        NodeUnreachable.
        """

    async def sync() -> int:
        """Make durable what was written; gives the number of frames held."""

    async def close() -> None:
        """Give up what is held. Idempotent; never raises."""


class IUploads(Interface):
    """Resumable uploads, as far as they lie on one node.

    Each is a temporary shard, a record, and tails: raw bytes of a stripe that is not
    complete. They outlive the node's process, and are removed when they have expired.
    Who writes claims first, with a growing epoch; whatever has an `epoch` raises
    ShardRefused once a higher one was granted, or the upload is finished. Everything
    raises ShardMissing for an upload that is not there or has expired, and
    NodeUnreachable.
    """

    async def begin(upload: str, record: str, expiry: float) -> None:
        """A new upload, durable; every claim renews it for `expiry` seconds.

        `upload` has 32 hex digits. Raises ShardRefused when it is there, NodeFull.
        """

    async def look(upload: str) -> UploadState:
        """What is held, durably."""

    async def claim(upload: str, epoch: int) -> UploadState:
        """Ask to be the one who writes; the answer says whether that was granted.

        An epoch has to be higher than all before, and is refused while the standing
        claimant wrote within 5 s and did not release. What is held is durable then.
        """

    async def renew(upload: str, epoch: int) -> int:
        """Go on under the standing claim; gives the number of frames, durable now."""

    async def cut(upload: str, epoch: int, stripes: int) -> None:
        """Forget all frames but the first ones."""

    async def settle(upload: str, epoch: int, record: str) -> None:
        """Note that this node holds all that the claim found, and its new record.

        Tails of other epochs are dropped.
        """

    async def open(upload: str, epoch: int, first: int) -> IUploadSink:
        """A sink for frames from number `first` on.

        Raises ShardRefused, here or at a write, unless so many are held.
        """

    async def frames(upload: str, first: int, stop: int) -> IFrameStream:
        """Frames that are held. Raises ShardMissing when there are fewer."""

    async def add_tail(
        upload: str, epoch: int, stripe: int, at: int, data: bytes
    ) -> None:
        """Append to the tail of that stripe and epoch, which has `at` bytes; durable.

        Raises ShardRefused for another `at`.
        """

    async def tail(upload: str, stripe: int, epoch: int) -> bytes:
        """The bytes of a tail."""

    async def commit(
        upload: str, epoch: int, key: ShardKey, layout: Layout, deadline: float | None
    ) -> None:
        """Name the temporary as a shard: as IShardSink.commit(), and as often.

        The temporary stays until finish() or remove().
        """

    async def finish(upload: str, epoch: int, outcome: str) -> None:
        """Drop all but the record, which keeps `outcome` until it expires."""

    async def release(upload: str, epoch: int) -> None:
        """Let others claim it at once."""

    async def remove(upload: str, epoch: int | None = None) -> None:
        """Drop all of it, if it is there; with an `epoch` only if none is higher."""


class IShardStore(Interface):
    """The shards of one node: the unit that fails.

    Every method is a coroutine and raises NodeUnreachable when the node's disk (or
    the way to it) fails. The same interface stands before a folder in this process
    and before a data service elsewhere.
    """

    async def create(upload: str) -> IShardSink:
        """A temporary shard; `upload` is a name of 32 hex digits. Raises NodeFull."""

    def put_small(
        key: ShardKey,
        layout: Layout,
        frames: Sequence[Frame],
        deadline: float | None,
        age: float,
    ) -> Awaitable[None]:
        """create, write, commit in one step, for contents of few frames."""

    async def find(hash: str) -> Holding:
        """All shards of a content held here; each was opened and its footer checked.

        What is marked bad or lies in garbage is left out.
        """

    async def open(key: ShardKey, *, bad: bool = False) -> IShardReader:
        """Raises ShardMissing, ShardRotten (which also marks it bad).

        With `bad` a shard that is marked so is opened too, if its two ends and its
        table are right: some of its frames may be.
        """

    async def renew(hash: str, layout: str) -> Holding:
        """Give all shards of that layout a new age, restoring them from garbage.

        Clears condemnations. One atomic operation a shard. The answer holds the shards
        that are present now: opened, whole, and their new age durable.
        """

    async def restore(hash: str) -> Holding:
        """Bring back from garbage whatever belongs to the content."""

    async def condemn(key: ShardKey, age: float = 0.0, epoch: int | None = None) -> str:
        """Mark one shard that is at least `age` seconds old; returns a token.

        The orders condemn, discard and erase of maintenance bear the epoch of its
        lease; the node keeps the highest and refuses lower ones. Raises ShardMissing,
        ShardRefused (too young, or the epoch is over).
        """

    async def discard(key: ShardKey, token: str, epoch: int | None = None) -> bool:
        """Move a condemned shard to garbage if the token still stands."""

    async def erase(key: ShardKey, age: float, epoch: int | None = None) -> int:
        """Remove for good what garbage has of a shard since `age` seconds at least.

        Gives the bytes freed. Raises ShardRefused (the epoch is over).
        """

    async def check(key: ShardKey, first: int = 0) -> tuple[int, int]:
        """Read a number of stripes from `first` on, and compare them with their sums.

        Gives the bytes of blocks read, and the stripe to go on with; 0 at the end.
        Raises ShardMissing, ShardRotten (which also marks it bad).
        """

    async def sweep(*, dry_run: bool = False) -> int:
        """Remove temporaries and uploads that have expired, or only count them."""

    async def mark_bad(key: ShardKey) -> None:
        """A reader found its bytes wrong: it counts as absent from now on."""

    async def list(after: str, limit: int, until: str = "") -> Sequence[ShardFacts]:
        """Everything held with a hash greater than `after`, in hash order.

        At most about `limit` shards, but always all of one hash; nothing behind
        `until`. To ask for one content alone (see `before`) costs no search.
        """

    async def space() -> Space:
        """Bytes free and in all."""


class IShardsAtHand(Interface):
    """What a store can say at once, or for one short question.

    Both are hints that spare the long way, and never take its place: whatever is not
    plain goes there.
    """

    def lacks(hash: str) -> bool:
        """Whether it is known here that nothing is held of that content."""

    def glance(key: ShardKey) -> Frame | Deferred[Frame | None] | None:
        """The block of a shard of one stripe, checked, if it lies in memory.

        None says nothing, and so does a Deferred's: they never fail. What was found is
        as good as what open() and frames() give.
        """


class INodes(Interface):
    """How the engine reaches nodes by id."""

    def at_hand(node: str) -> IShardsAtHand | None:
        """The same as far as it is at hand; None: not at all."""

    def store(node: str) -> IShardStore:
        """The shards of that node. Raises NodeUnreachable for an unknown id."""

    def uploads(node: str) -> IUploads:
        """The resumable uploads on that node. Raises NodeUnreachable."""

    def place(node: str) -> str:
        """How `/locate` names the node: host:port, or nodes/1 in standalone."""
