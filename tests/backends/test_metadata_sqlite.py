"""SQLite behind the contract of `IMetadataStore`, inline and with its threads."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter, ThreadWriter
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers, ThreadWorkers
from tests.contracts import metadata


class InlineContractTests(metadata.MetadataContract, TestCase):
    """Everything in the caller, as in the simulator."""

    async def make_store(self, clock: Clock) -> SqliteStore:
        """A store in a folder of its own."""
        folder = Path(self.mktemp())
        folder.mkdir()
        path = str(folder / "metadata.sqlite")
        store = SqliteStore(path, clock, InlineWorkers(), InlineWriter(), durable=False)
        await store.start()
        self.addCleanup(store.stop)
        return store


class ThreadContractTests(metadata.MetadataContract, TestCase):
    """The writer's thread and two readers, as in service."""

    async def make_store(self, clock: Clock) -> SqliteStore:
        """A store in a folder of its own."""
        from twisted.internet import reactor  # noqa: PLC0415 - only where it is needed

        folder = Path(self.mktemp())
        folder.mkdir()
        workers = ThreadWorkers(reactor, 2, "metadata")
        workers.start()
        self.addCleanup(workers.stop)
        writer = ThreadWriter(reactor)  # type: ignore[arg-type] # a module
        store = SqliteStore(str(folder / "metadata.sqlite"), clock, workers, writer)
        await store.start()

        async def stop() -> None:
            await store.stop()

        self.addCleanup(stop)
        return store
