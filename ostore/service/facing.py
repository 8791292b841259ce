"""What standalone and api services do alike: metadata in SQLite, repairs, the api."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import ThreadWriter
from ostore.interfaces import IMetadataStore
from ostore.maintenance.counting import Census
from ostore.maintenance.course import Job
from ostore.maintenance.garbage import Garbage
from ostore.maintenance.orphans import Orphans
from ostore.maintenance.pace import Foreground, Pace
from ostore.maintenance.rebalance import Rebalance
from ostore.maintenance.retention import Retention
from ostore.maintenance.runner import Runner
from ostore.maintenance.scrub import Scrub
from ostore.maintenance.uploads import Uploads
from ostore.model.signing import AnyHost, Guard, Nonces
from ostore.service.assembly import Engine
from ostore.service.process import Process
from ostore.service.serving import Serving
from ostore.service.settings import Settings
from ostore.streaming.pools import ThreadWorkers, Workers
from ostore.web.api.jobs import Administration
from ostore.web.api.root import Api

READ_THREADS = 2
"""Threads for pages of metadata."""
CODING_THREADS = 2
"""Threads that compress."""
TURN = 0.5
"""Seconds between two looks at which maintenance job is due."""
RATES = 4000.0, 100.0
"""Steps of maintenance a second: with nobody there, and beside requests."""
MARKS = 60.0
"""Seconds between two looks at what the metadata calls degraded."""


async def open_sqlite(process: Process, path: str) -> SqliteStore:
    """The metadata in that file."""
    workers = ThreadWorkers(process.reactor, READ_THREADS, "metadata")
    workers.start()
    process.undo(workers.stop)
    store = SqliteStore(
        path,
        process.clock,
        workers,
        ThreadWriter(process.reactor),
        durable=process.settings.durable,
    )
    await store.start()
    process.undo(store.stop)
    return store


def make_pace(process: Process) -> Pace:
    """How fast this process may do what nobody waits for."""
    return Pace(process.clock, Foreground(process.clock), *RATES)


async def start_repairs(
    process: Process, engine: Engine, metadata: IMetadataStore, pace: Pace
) -> None:
    """Mend what is found, and what the metadata calls degraded."""
    await engine.mending.start(pace.take)
    process.undo(engine.mending.stop)

    async def read_marks() -> None:
        for _ in range(int(MARKS)):
            if await metadata.health() is None:
                return await engine.mending.read_marks()
            await process.clock.sleep(1.0)
        return None  # whoever shows the service's health says why

    process.repeat(MARKS, read_marks, "reading degraded marks").now()


def coding_workers(process: Process) -> Workers:
    """Threads for what would hold up the reactor."""
    workers = ThreadWorkers(process.reactor, CODING_THREADS, "coding")
    workers.start()
    process.undo(workers.stop)
    return workers


def jobs_of(
    settings: Settings, engine: Engine, metadata: IMetadataStore
) -> Sequence[Job]:
    """All maintenance jobs."""
    every = settings.maintenance_interval
    return (
        Uploads(engine.hands, every),
        Retention(metadata, settings.keep_versions, every),
        Orphans(engine.hands, settings.orphan_grace, every),
        Garbage(engine.hands, settings.garbage_expiry, every),
        Census(engine.tending, every),
        Scrub(engine.tending, settings.scrub_period),
        Rebalance(engine.moving, every),
    )


def start_maintenance(
    process: Process, engine: Engine, metadata: IMetadataStore, pace: Pace
) -> None:
    """Run the jobs, or what is asked for of them."""
    settings = process.settings
    runner = Runner(
        jobs_of(settings, engine, metadata),
        engine.jobs,
        engine.hands,
        metadata,
        pace,
        process.clock,
        process.entropy,
        planned=settings.repair,
    )
    process.undo(runner.stop)
    process.repeat(TURN, runner.turn, "maintenance").now()


def make_api(
    process: Process,
    engine: Engine,
    workers: Workers,
    foreground: Foreground,
    page: Callable[[bytes], Awaitable[bytes]] | None = None,
    figures: Callable[[], Mapping[str, float]] = dict,
) -> Api:
    """The api; `page` makes of what this process counts what /metrics shows."""
    guard = Guard(process.keys, AnyHost, process.clock.wall, Nonces())
    return Api(
        engine.store,
        process.clock,
        process.access_log(),
        workers,
        admin=Administration(guard, process.clock.wall),
        took=foreground.took,
        require_digest=process.settings.require_digest,
        instant_upload=process.settings.instant_upload,
        page=page,
        figures=figures,
    )


def serve_api(process: Process, api: Api, listening: int | None = None) -> Serving:
    """The api on its port, or on a socket that listens already."""
    serving = Serving(
        process.reactor,
        process.settings.listen,
        api,
        process.clock,
        process.entropy,
        process.settings,
        process.certificates.server(mutual=False),
        listening,
    )
    process.undo(serving.stop)
    return serving
