"""The search engine's store behind the contract of `IMetadataStore`, on a fake server."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import count
from typing import Any

from twisted.internet.task import Clock as Timers
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ostore.backends.metadata.elastic import ElasticStore
from ostore.backends.metadata.elastic_client import Search
from ostore.model.errors import MetadataUnavailable, OutcomeUnknown
from ostore.model.versions import ClusterFacts
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
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


class LeaseTests(SynchronousTestCase):
    """Two services, each with a clock of its own."""

    def setUp(self) -> None:
        """The first one's wall clock is an hour ahead."""
        self.timers = Timers()
        self.ahead = 3600.0
        server = FakeSearch()
        walls = lambda: self.timers.seconds() + self.ahead, self.timers.seconds
        self.first, self.second = (
            elastic_store(server, Clock(self.timers, self.timers.seconds, wall), number)
            for number, wall in enumerate(walls)
        )
        for work in (self.first.start(), self.second.start()):
            self.successResultOf(start(work))
        facts = ClusterFacts("c" * 32, 1)
        self.successResultOf(start(self.first.create_cluster(facts)))

    def lease(self, store: ElasticStore, owner: str) -> int | None:
        """The epoch of the lease, if it is given."""
        found = self.successResultOf(start(store.lease(owner, 30)))
        return None if found is None else found.epoch

    def test_left_by_a_wrong_clock(self) -> None:
        """A lease that ends in an hour is over once nobody renewed it for its length."""
        self.assertEqual(self.lease(self.first, "a"), 2)
        for _ in range(3):
            self.assertIsNone(self.lease(self.second, "b"))
            self.timers.advance(10)
        self.assertEqual(self.lease(self.second, "b"), 3)

    def test_renewed_by_a_wrong_clock(self) -> None:
        """As long as it is renewed it is not taken away."""
        for _ in range(20):
            self.assertEqual(self.lease(self.first, "a"), 2)
            self.timers.advance(10)
            self.assertIsNone(self.lease(self.second, "b"))

    def test_set_right_again(self) -> None:
        """The owner keeps it when its clock is set right."""
        self.assertEqual(self.lease(self.first, "a"), 2)
        self.ahead = 0.0
        self.timers.advance(10)
        self.assertEqual(self.lease(self.first, "a"), 2)
        self.timers.advance(29)
        self.assertIsNone(self.lease(self.second, "b"))
        self.timers.advance(1)
        self.assertEqual(self.lease(self.second, "b"), 3)


class PartialTests(SynchronousTestCase):
    """Half the shards are not open: nothing is told that might be wrong."""

    def setUp(self) -> None:
        """A store with one version, before the shards close."""
        self.timers = Timers()
        self.server = FakeSearch()
        clock = Clock(self.timers, self.timers.seconds, lambda: 1000.0)
        self.store = elastic_store(self.server, clock)
        for work in (self.store.start(), self.store.add_version(metadata.put("n"))):
            self.successResultOf(start(work))
        self.server.partial = True

    def unavailable(self, work: Coroutine[Any, Any, object]) -> None:
        """It waits for the shards, in vain."""
        waiting = start(work)
        self.timers.pump([0.25] * 200)
        self.failureResultOf(waiting, MetadataUnavailable, OutcomeUnknown)

    def test_reads_of_a_name(self) -> None:
        """A shard that is not open is no absent name."""
        self.unavailable(self.store.latest("", "n"))
        self.unavailable(self.store.versions_of("", "absent", 0, 9))

    def test_writes(self) -> None:
        """They fail, and nothing was written."""
        self.unavailable(self.store.add_version(metadata.put("n")))
        self.server.partial = False
        page = self.successResultOf(start(self.store.versions_of("", "n", 0, 9)))
        self.assertEqual(len(page), 1)

    def test_questions_over_all_names(self) -> None:
        """An answer of half the shards is none: not even that a content is unused."""
        for work in (
            self.store.content(metadata.hash_of(1)),
            self.store.content(metadata.hash_of(9)),
            self.store.hashes("", 9),
            self.store.degraded("", 9),
            self.store.listing("", "", "", "", 9),
            self.store.all_versions("", ("", 0), 9),
        ):
            self.unavailable(work)

    def test_it_goes_on_by_itself(self) -> None:
        """A read that met closed shards is answered once they open."""
        waiting = start(self.store.latest("", "n"))
        self.assertNoResult(waiting)
        self.server.partial = False
        self.timers.pump([0.25] * 4)
        found = self.successResultOf(waiting)
        self.assertEqual(found and found.number, 1)
