"""What standalone and api services do alike: metadata in SQLite, repairs, the api."""

from __future__ import annotations

from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import ThreadWriter
from ostore.service.assembly import Engine
from ostore.service.process import Process
from ostore.service.serving import Serving
from ostore.streaming.pools import ThreadWorkers, Workers
from ostore.web.api.root import Api

READ_THREADS = 2
"""Threads for pages of metadata."""
CODING_THREADS = 2
"""Threads that compress."""
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


async def start_repairs(process: Process, engine: Engine) -> None:
    """Mend what is found, and what the metadata calls degraded."""
    await engine.mending.start()
    process.undo(engine.mending.stop)
    process.repeat(MARKS, engine.mending.read_marks, "reading degraded marks").now()


def coding_workers(process: Process) -> Workers:
    """Threads for what would hold up the reactor."""
    workers = ThreadWorkers(process.reactor, CODING_THREADS, "coding")
    workers.start()
    process.undo(workers.stop)
    return workers


def serve_api(process: Process, engine: Engine, workers: Workers) -> Serving:
    """The api on its port."""
    api = Api(
        engine.store,
        process.clock,
        process.access_log(),
        workers,
        require_digest=process.settings.require_digest,
    )
    serving = Serving(
        process.reactor,
        process.settings.listen,
        api,
        process.clock,
        process.entropy,
        process.settings,
        process.certificates.server(mutual=False),
    )
    process.undo(serving.stop)
    return serving
