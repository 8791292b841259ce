"""The metadata store over real search servers, which are also killed and paused."""

from __future__ import annotations

import atexit
import json
import os
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from ostore.backends.metadata.elastic import ElasticStore, make_store
from ostore.streaming.clock import Clock
from tests.contracts import metadata
from tests.support.searchserver import SearchServer

_servers: dict[str, SearchServer] = {}


def server(kind: str) -> SearchServer:
    """The server of that kind that all tests of this process share."""
    if kind not in _servers:
        folder = Path(tempfile.mkdtemp(prefix="ostore-search-"))
        folder.chmod(0o755)
        _servers[kind] = SearchServer(folder, kind)
        atexit.register(_servers[kind].close)
        _servers[kind].start()
    return _servers[kind]


def ask(url: str, method: str, path: str, body: object = None) -> Any:
    """A request past the store, as an operator makes it."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def forget(url: str) -> None:
    """Remove what earlier tests left."""
    for path in (
        "/ostore-heads-v1",
        "/ostore-cluster-v1",
        "/_index_template/ostore-heads",
        "/_index_template/ostore-cluster",
    ):
        try:
            ask(url, "DELETE", path)
        except HTTPError as error:
            error.close()


class SearchTests(TestCase):
    """A store over a real server."""

    kind = "opensearch-3"
    timeout = 300

    async def open(self, clock: Clock | None = None, url: str = "") -> ElasticStore:
        """A store that is set up."""
        clock = clock or Clock(reactor, reactor.seconds, reactor.seconds)
        store = make_store([url or self.url], reactor, clock, os.urandom, self.fail)
        await store.start()
        self.addCleanup(store.stop)
        for _ in range(600):
            if await store.health() is None:
                return store
            await clock.sleep(0.1)
        raise AssertionError(await store.health())

    @property
    def url(self) -> str:
        """Where the server is."""
        return os.environ.get("DEVURL") or server(self.kind).url


class OpenSearchContractTests(metadata.MetadataContract, SearchTests):
    """OpenSearch 3 behind the contract of `IMetadataStore`."""

    async def make_store(self, clock: Clock) -> ElasticStore:
        """An empty one; its timers are the reactor's."""
        forget(self.url)
        return await self.open(Clock(reactor, clock.monotonic, clock.wall))

    async def settle(self) -> None:
        """Make searches see what was acknowledged."""
        ask(self.url, "POST", "/ostore-heads/_refresh")


class ElasticsearchContractTests(OpenSearchContractTests):
    """Elasticsearch 9 behind the same contract."""

    kind = "elasticsearch-9"
