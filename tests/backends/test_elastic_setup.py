"""Setting up a search server: until it stands, or until it will never do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.elastic import ElasticStore
from ostore.backends.metadata.elastic_client import (
    NO_QUERY,
    Rejected,
    Reply,
    SearchFailed,
)
from ostore.backends.metadata.elastic_setup import template
from ostore.model.errors import MetadataUnavailable
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import start
from tests.contracts.metadata import put

Handler = Callable[[str, str, Any], Reply | Exception | None]


class Server:
    """What set-up asks a server; `instead` answers first, None leaves it to these."""

    def __init__(self) -> None:
        self.node: Any = {"version": "3.8.0", "build_type": "tar"}
        self.templates: dict[str, Any] = {}
        self.indices: dict[str, Any] = {}
        self.nodes = 1
        self.asked: list[tuple[str, str]] = []
        self.copies: list[str] = []
        self.instead: Handler = lambda *_: None
        self.hangs = False

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: Any = None,
        lines: Sequence[Any] | None = None,
        idempotent: bool = False,
    ) -> Reply:
        """One exchange."""
        self.asked.append((method, path))
        if self.hangs:
            await Deferred()
        other = self.instead(method, path, body)
        if isinstance(other, Exception):
            raise other
        if other is not None:
            return other
        if path == "/_nodes/_local":
            return Reply(200, {"nodes": {"x": self.node}})
        if path.startswith("/_cluster/health"):
            health = {"status": "green", "number_of_data_nodes": self.nodes}
            return Reply(200, health)
        if path.startswith("/_index_template/"):
            return self._template(method, path.rpartition("/")[2], body)
        if path.endswith("/_bulk"):
            self.copies.append(query["wait_for_active_shards"])
            raise SearchFailed("not here")
        return self._index(method, path.strip("/"), body)

    def _template(self, method: str, name: str, body: Any) -> Reply:
        if method == "PUT":
            self.templates[name] = body
            return Reply(200, {"acknowledged": True})
        if name not in self.templates:
            return Reply(404, {"error": {"type": "resource_not_found_exception"}})
        standing = {"name": name, "index_template": self.templates[name]}
        return Reply(200, {"index_templates": [standing]})

    def _index(self, method: str, name: str, body: Any) -> Reply:
        if method == "PUT":
            (alias,) = body["aliases"]
            made = {**self.templates[alias]["template"], "aliases": body["aliases"]}
            self.indices[name] = made
            return Reply(200, {"acknowledged": True})
        found = {k: v for k, v in self.indices.items() if name in v["aliases"]}
        return Reply(200, found) if found else Reply(404, {"error": {"type": "no"}})


class SetupTests(SynchronousTestCase):
    """A store on a scripted server and a clock of the test's own."""

    def setUp(self) -> None:
        """A server with nothing on it."""
        self.server = Server()
        self.timers = Timers()
        self.refused: list[str] = []

    def store(self) -> ElasticStore:
        """A store whose set-up runs."""
        clock = Clock(self.timers, self.timers.seconds, self.timers.seconds)
        numbers = count()
        store = ElasticStore(
            self.server,
            "es:9200",
            clock,
            lambda length: next(numbers).to_bytes(8, "big").rjust(length, b"\0"),
            self.refused.append,
        )
        self.successResultOf(start(store.start()))
        self.addCleanup(lambda: self.successResultOf(start(store.stop())))
        return store

    def health(self, store: ElasticStore) -> str | None:
        """What it says of itself."""
        return self.successResultOf(start(store.health()))

    def pass_time(self, seconds: float) -> None:
        """Let timers run."""
        for _ in range(int(seconds * 10)):
            self.timers.advance(0.1)

    def test_from_nothing(self) -> None:
        """Templates, then indices with their aliases; a second store changes nothing."""
        self.assertIsNone(self.health(self.store()))
        self.assertEqual(
            set(self.server.indices), {"ostore-heads-v1", "ostore-cluster-v1"}
        )
        self.assertEqual(
            self.server.templates["ostore-heads"], template("ostore-heads")
        )
        self.server.asked.clear()
        self.assertIsNone(self.health(self.store()))
        self.assertEqual({method for method, _ in self.server.asked}, {"GET"})

    def test_hanging(self) -> None:
        """A server that hangs holds up nobody who asks for the health."""
        store = self.store()
        self.server.hangs = True
        asked = start(store.health())
        self.assertNoResult(asked)
        self.timers.advance(2.0)
        self.assertEqual(
            self.successResultOf(asked), "no answer from es:9200 within 2 s"
        )
        self.server.hangs = False
        self.assertIsNone(self.health(store))

    def test_servers_that_it_speaks_to(self) -> None:
        """Elasticsearch 7, 8, 9 and OpenSearch 1, 2, 3; any other is refused, once."""
        for version in ("7.17.28", "8.17.0", "9.2.0", "1.3.0", "2.19.1", "3.8.0"):
            self.server.node["version"] = version
            self.assertIsNone(self.health(self.store()), version)
        self.assertEqual(self.refused, [])
        for version in ("6.8.0", "7.9.3", "10.0.0", "4.0.0", "x", ""):
            self.server.node["version"] = version
            store = self.store()
            self.assertIsNotNone(self.health(store))
            self.pass_time(60)
            (sentence,) = self.refused
            self.refused.clear()
            self.assertIn("es:9200", sentence)

    def test_old_servers_with_new_numbers(self) -> None:
        """Elasticsearch 1 to 3 are not taken for OpenSearch, nor is anything else."""
        nodes: list[Any] = [{"version": "2.4.0"}, {}, [], "x", None]
        for node in nodes:
            self.server.node = node
            self.store()
            self.assertEqual(len(self.refused), 1, node)
            self.refused.clear()

    def test_an_outage_is_waited_out(self) -> None:
        """Until it is over everything is MetadataUnavailable, and nobody is refused."""
        self.server.instead = lambda *_: SearchFailed("connection refused")
        store = self.store()
        self.assertEqual(self.health(store), "connection refused")
        for work in (store.add_version(put("n")), store.cluster(), store.hashes("", 1)):
            failure = self.failureResultOf(start(work))
            failure.trap(MetadataUnavailable)
        self.pass_time(300)
        tries = len(self.server.asked)
        self.assertLess(tries, 80)
        self.server.instead = lambda *_: None
        self.pass_time(10)
        self.assertIsNone(self.health(store))
        self.assertEqual(self.refused, [])

    def test_credentials_refused(self) -> None:
        """At start and later: one sentence once, and not ready."""
        store = self.store()
        self.server.instead = lambda *_: Rejected("es:9200 refuses the credentials")
        self.pass_time(60)
        self.assertEqual(self.refused, ["es:9200 refuses the credentials"])
        self.assertEqual(self.health(store), "es:9200 refuses the credentials")
        self.server.instead = lambda *_: None
        self.assertIsNone(self.health(store))

    def test_another_api_is_faster(self) -> None:
        """An index that appears meanwhile is taken as it is."""
        race = [True]

        def instead(method: str, path: str, body: Any) -> Reply | None:
            if method == "PUT" and path == "/ostore-heads-v1" and race.pop():
                self.server._index(method, "ostore-heads-v1", body)
                kind = {"type": "resource_already_exists_exception"}
                return Reply(400, {"error": kind})
            return None

        self.server.instead = instead
        self.assertIsNone(self.health(self.store()))

    def test_what_is_not_as_it_must_be(self) -> None:
        """Durability, fields and aliases are checked; each has its sentence."""
        self.store()
        heads = self.server.indices["ostore-heads-v1"]
        index = template("ostore-heads")["template"]
        fields = index["mappings"]["properties"]
        lazy = {"index": {"translog": {"durability": "async"}}}
        text = {"properties": {**fields, "key": {"type": "text"}}, "dynamic": "strict"}
        loose = {"properties": fields, "dynamic": "true"}
        for change, word in (
            ({"settings": lazy}, "durability"),
            ({"mappings": text}, "mapping of key"),
            ({"mappings": loose}, "strict"),
        ):
            self.server.indices["ostore-heads-v1"] = {**heads, **change}
            self.assertIn(word, self.health(self.store()) or "")
        self.server.indices["ostore-heads-v1"] = heads
        self.server.indices["ostore-heads-v2"] = heads
        self.assertIn("alias of one index", self.health(self.store()) or "")
        self.assertEqual(self.refused, [])

    def test_an_older_template_is_replaced(self) -> None:
        """A newer one stays."""
        self.store()
        ours = self.server.templates["ostore-heads"]
        for version, kept in ((0, False), (2, True)):
            theirs = {**ours, "version": version}
            self.server.templates["ostore-heads"] = theirs
            self.assertIsNone(self.health(self.store()))
            self.assertEqual(self.server.templates["ostore-heads"] is theirs, kept)

    def test_copies_follow_the_cluster(self) -> None:
        """A write asks for two copies where there are two data nodes, one otherwise."""
        store = self.store()
        for nodes, copies in ((1, "1"), (2, "2"), (5, "2"), (1, "1")):
            self.server.nodes = nodes
            self.pass_time(11)
            self.server.copies.clear()
            self.write(store)
            self.assertEqual(self.server.copies[:1], [copies])

    def write(self, store: ElasticStore) -> None:
        """One write, which this server refuses in the end."""

        def instead(method: str, path: str, body: Any) -> Reply | None:
            if path.endswith("_mget"):
                docs = [{"_id": each["_id"], "found": False} for each in body["docs"]]
                return Reply(200, {"docs": docs})
            return None

        self.server.instead = instead
        work: Deferred[Any] = start(store.add_version(put("n")))
        self.pass_time(40)
        self.failureResultOf(work).trap(MetadataUnavailable)
