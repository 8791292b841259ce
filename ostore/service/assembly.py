"""The engine put together from its parts: the same for every service that has one."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ostore import __version__
from ostore.engine.cluster import Cluster
from ostore.engine.collecting import Collecting, Tell
from ostore.engine.getting import Getting
from ostore.engine.intake import Coding, Writing
from ostore.engine.jobbook import JobBook
from ostore.engine.mending import Mending
from ostore.engine.moving import Drain, Moving
from ostore.engine.putting import Putting
from ostore.engine.recording import Recording
from ostore.engine.renewing import Renewing
from ostore.engine.repairs import Repairs
from ostore.engine.resuming import Resuming
from ostore.engine.store import ObjectStore
from ostore.engine.tending import Tending
from ostore.erasure.codec import Codecs
from ostore.erasure.geometry import Geometry
from ostore.interfaces import IMessageBus, IMetadataStore, INodes
from ostore.model.messages import Signer
from ostore.model.nodes import Heartbeat
from ostore.model.tokens import Tokens
from ostore.model.versions import ClusterFacts
from ostore.service.failing import StartError
from ostore.service.settings import Settings
from ostore.streaming.budget import Budget
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers

CODED_BYTES = 64 << 20
"""The most bytes of coded stripes in flight, all uploads together."""


JOBS = ("uploads", "retention", "orphans", "garbage", "census", "scrub", "rebalance")
"""The names of the maintenance jobs."""


async def tell_nobody(_: str, __: ClusterFacts) -> None:
    """Where nodes learn of an epoch from the orders that bear it."""


async def drain_nobody(_: str, __: bool) -> None:
    """Where nodes cannot be drained."""


@attrs.frozen
class Engine:
    """The parts that the service starts, stops and shows."""

    cluster: Cluster
    putting: Putting
    mending: Mending
    repairs: Repairs
    store: ObjectStore
    hands: Collecting
    jobs: JobBook
    tending: Tending
    moving: Moving


def assemble(
    settings: Settings,
    bus: IMessageBus,
    nodes: INodes,
    metadata: IMetadataStore,
    signer: Signer,
    clock: Clock,
    entropy: Callable[[int], bytes],
    workers: Workers,
    *,
    tell: Tell = tell_nobody,
    drain: Drain = drain_nobody,
    expected: frozenset[str] = frozenset(),
    belongs: Callable[[Heartbeat], bool] = lambda _: True,
    near: Callable[[str], bool] = lambda _: False,
    inside: bool = False,
    brakes: Callable[[], list[str]] = list,
    faults: Callable[[], list[str]] = list,
    tokens: Tokens | None = None,
    adopted: Callable[[], None] = lambda: None,
) -> Engine:
    """Wire one engine; nothing is started. Raises StartError.

    Without `tokens` it takes no resumable uploads.
    """
    cluster = Cluster(
        bus,
        nodes,
        signer,
        clock,
        entropy,
        heartbeat=settings.heartbeat,
        node_timeout=settings.node_timeout,
        locate_timeout=settings.locate_timeout,
        expected=expected,
        belongs=belongs,
        near=near,
        inside=inside,
    )
    codecs = codecs_named(settings.codec)
    repairs = Repairs()
    recording = Recording(metadata, clock, entropy)
    writing = Writing(
        cluster,
        nodes,
        codecs,
        clock,
        entropy,
        Budget(CODED_BYTES),
        Coding(
            Geometry(settings.data_shards, settings.parity_shards),
            settings.write_quorum,
            settings.laggard,
            settings.orphan_grace,
            settings.compression == "zstd",
        ),
        workers,
    )
    renewing = Renewing(
        cluster, nodes, clock, max(settings.laggard, settings.locate_timeout)
    )
    putting = Putting(writing, metadata, recording, renewing, repairs)
    getting = Getting(
        cluster, nodes, clock, codecs, repairs, workers, settings.locate_timeout
    )
    mending = Mending(
        cluster,
        nodes,
        metadata,
        getting,
        repairs,
        clock,
        entropy,
        rebuild_delay=settings.rebuild_delay,
    )
    hands = Collecting(cluster, nodes, metadata, clock, tell)
    tending = Tending(
        cluster,
        nodes,
        metadata,
        repairs,
        hands,
        clock,
        rebuild_delay=settings.rebuild_delay,
    )
    moving = Moving(cluster, nodes, metadata, tending, clock, entropy, drain)
    jobs = JobBook(metadata, clock, entropy, JOBS)
    store = ObjectStore(
        cluster,
        nodes,
        metadata,
        recording,
        putting,
        getting,
        mending,
        repairs,
        jobs,
        hands,
        moving,
        brakes,
        codecs.name,
        __version__,
        faults,
        None if tokens is None else Resuming(putting, tokens, settings.upload_expiry),
        adopted,
        settings.garbage_expiry,
    )
    return Engine(
        cluster, putting, mending, repairs, store, hands, jobs, tending, moving
    )


def codecs_named(provider: str) -> Codecs:
    """The codecs of that provider. Raises StartError where it does not work."""
    try:
        return Codecs(provider)
    except ValueError as error:
        raise StartError(
            f"codec {provider}: {error}: allowed is auto or zfec"
        ) from None
