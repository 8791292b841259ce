"""The search engine's store behind the contract of `IMetadataStore`, on a fake server."""

from __future__ import annotations

from itertools import count

from twisted.trial.unittest import TestCase

from ostore.backends.metadata.elastic import ElasticStore
from ostore.backends.metadata.elastic_client import Search
from ostore.streaming.clock import Clock
from tests.contracts import metadata
from tests.support.fakesearch import PRIMARY, REPLICA, FakeSearch


def elastic_store(search: Search, clock: Clock, process: int = 0) -> ElasticStore:
    """A store, not started, whose chances are the same each time."""
    numbers = count(process << 32)

    def entropy(length: int) -> bytes:
        return next(numbers).to_bytes(8, "big").rjust(length, b"\0")

    def refused(sentence: str) -> None:
        raise AssertionError(sentence)

    return ElasticStore(search, "fake:9200", clock, entropy, refused)


class ContractTests(metadata.MetadataContract, TestCase):
    """Readers on the replica."""

    chosen = REPLICA

    async def make_store(self, clock: Clock) -> ElasticStore:
        """A store on a server of its own."""
        self.server = FakeSearch(self.chosen)
        store = elastic_store(self.server, clock)
        await store.start()
        self.addCleanup(store.stop)
        return store

    async def settle(self) -> None:
        """Searches see what was written."""
        self.server.refresh()


class PrimaryContractTests(ContractTests):
    """Readers on the primary."""

    chosen = PRIMARY
