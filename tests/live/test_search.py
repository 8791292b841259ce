"""The metadata store over real search servers, which are also killed and paused."""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import attrs
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ostore.backends.metadata.elastic import ElasticStore, make_store
from ostore.backends.metadata.elastic_client import Client, Limits
from ostore.backends.metadata.elastic_exchange import Exchange
from ostore.backends.metadata.elastic_hosts import parse_hosts
from ostore.model.errors import MetadataUnavailable, OutcomeUnknown
from ostore.model.versions import NewVersion, Version
from ostore.streaming.clock import Clock
from ostore.streaming.tasks import gather, start
from tests.contracts import metadata
from tests.contracts.metadata import hash_of, put
from tests.live import servers
from tests.support.proxy import Proxy
from tests.support.searchserver import SearchServer

REAL = Clock(reactor, reactor.seconds, reactor.seconds)
IMPATIENT = Limits(quick=1.0, slow=3.0)

_servers: dict[str, SearchServer] = {}


def server(kind: str) -> SearchServer:
    """The server of that kind that all tests of this process share."""
    if kind == servers.SEARCH:
        return servers.search()
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

    kind = servers.SEARCH
    timeout = 300

    async def open(
        self, clock: Clock = REAL, url: str = "", limits: Limits | None = None
    ) -> ElasticStore:
        """A store that is set up."""
        url = url or self.url
        if limits is None:
            store = make_store([url], reactor, clock, os.urandom, self.fail)
        else:
            exchange = Exchange(reactor)
            hosts = parse_hosts([url])
            client = Client(hosts, exchange, clock, random.random, limits)
            end = client.close
            store = ElasticStore(client, url, clock, os.urandom, self.fail, end)
        await store.start()
        self.addCleanup(lambda: start(store.stop()))
        await self.until_well(store)
        return store

    async def until_well(self, store: ElasticStore) -> None:
        """Wait until the store says that it works."""
        for _ in range(600):
            if await store.health() is None:
                return
            await REAL.sleep(0.1)
        raise AssertionError(await store.health())

    @property
    def url(self) -> str:
        """Where the server is."""
        return server(self.kind).url


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


class Writers:
    """Writes to a few names through two stores, and keeps what was acknowledged."""

    def __init__(self, stores: Sequence[ElasticStore]) -> None:
        self.acknowledged: list[Version] = []
        self.unsure: list[NewVersion] = []
        self.failed = 0
        self.going = True
        self._stores = stores

    async def run(self, number: int) -> None:
        """Write until `going` ends."""
        while self.going:
            new = put(f"name {number % 3}", random.randrange(1, 50))
            try:
                store = self._stores[number % len(self._stores)]
                self.acknowledged.append(await store.add_version(new))
            except OutcomeUnknown:
                self.unsure.append(new)
            except MetadataUnavailable:
                self.failed += 1
                await REAL.sleep(0.05)


class OutageTests(SearchTests):
    """A server that goes and comes back, under load from two stores."""

    async def story(
        self, outage: Callable[[], Any], url: str = "", *, harmed: bool = True
    ) -> None:
        """Write; let it happen; write on. Nothing acknowledged is lost or doubled."""
        forget(self.url)
        stores = [await self.open(url=url, limits=IMPATIENT) for _ in range(2)]
        writers = Writers(stores)
        running = [start(writers.run(number)) for number in range(6)]
        await self.more(writers)
        await outage()
        for store in stores:
            await self.until_well(store)
        await self.more(writers)
        writers.going = False
        for each in running:
            await each
        if harmed:
            self.assertGreater(writers.failed + len(writers.unsure), 0)
        await self.check(stores, writers)

    async def more(self, writers: Writers) -> None:
        """Wait until 20 more writes were acknowledged."""
        goal = len(writers.acknowledged) + 20
        while len(writers.acknowledged) < goal:
            await REAL.sleep(0.05)

    async def check(self, stores: Sequence[ElasticStore], writers: Writers) -> None:
        """Each name has consecutive numbers, and each acknowledged version is there."""
        kept: dict[str, Version] = {}
        for name in {one.name for one in writers.acknowledged}:
            both = [list(await one.versions_of("", name, 0, 10**6)) for one in stores]
            self.assertEqual(both[0], both[1])
            numbers = [one.number for one in both[0]]
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
            times = [one.created for one in both[0]]
            self.assertEqual(sorted(set(times)), times)
            for one in both[0]:
                self.assertNotIn(one.put_id, kept)
                kept[one.put_id] = one
        for one in writers.acknowledged:
            self.assertEqual(kept.pop(one.put_id), one)
        self.assertLessEqual(set(kept), {new.put_id for new in writers.unsure})
        for new in writers.unsure:
            found = await stores[0].by_put_id("", new.name, new.put_id)
            self.assertEqual(found, kept.get(new.put_id))

    async def test_a_restart(self) -> None:
        """SIGTERM, and a new process."""
        one = server(self.kind)

        async def restart() -> None:
            await deferToThread(one.stop)
            await deferToThread(one.start)

        await self.story(restart)

    async def test_a_crash(self) -> None:
        """SIGKILL, and a new process."""
        one = server(self.kind)

        async def crash() -> None:
            await deferToThread(one.kill)
            await deferToThread(one.start)

        await self.story(crash)

    async def test_a_pause(self) -> None:
        """SIGSTOP for 4 s: calls end in time, and work again afterwards."""
        one = server(self.kind)

        async def pause() -> None:
            one.signal(signal.SIGSTOP)
            try:
                await REAL.sleep(4.0)
            finally:
                one.signal(signal.SIGCONT)

        await self.story(pause)

    async def test_a_black_hole(self) -> None:
        """Connections that swallow everything, and then break."""
        proxy = Proxy(reactor, server(self.kind).port)
        self.addCleanup(lambda: start(proxy.close()))

        async def swallow() -> None:
            proxy.swallow()
            await REAL.sleep(4.0)
            proxy.cut()

        await self.story(swallow, f"http://127.0.0.1:{proxy.port}")

    async def test_cut_connections(self) -> None:
        """Connections that break again and again; nobody need fail for long."""
        proxy = Proxy(reactor, server(self.kind).port)
        self.addCleanup(lambda: start(proxy.close()))

        async def cut() -> None:
            for _ in range(20):
                proxy.cut()
                await REAL.sleep(0.1)

        await self.story(cut, f"http://127.0.0.1:{proxy.port}", harmed=False)

    async def test_no_answer_from_a_part(self) -> None:
        """While shards are still being opened, pages are whole or an error."""
        forget(self.url)
        writer, store = await self.open(), await self.open(limits=IMPATIENT)
        names = [f"n{number:03}" for number in range(300)]
        for outcome in await gather(
            [writer.add_version(put(each, 1 + at)) for at, each in enumerate(names)]
        ):
            self.assertIsInstance(outcome, Version)
        one = server(self.kind)
        await deferToThread(one.kill)
        starting = deferToThread(one.start)
        failed = whole = 0
        while not (starting.called and whole):
            answers = await gather(
                [
                    store.hashes("", 1000),
                    store.content(hash_of(300)),
                    store.all_versions("", ("", 0), 1000),
                ]
            )
            for answer in answers:
                if isinstance(answer, Exception):
                    self.assertIsInstance(answer, MetadataUnavailable)
                    failed += 1
                elif isinstance(answer, Version):
                    self.assertEqual(answer.hash, hash_of(300))
                else:
                    assert answer is not None
                    self.assertEqual(len(answer), 300)
                    whole += 1
        await starting
        self.assertGreater(failed, 0)


class ManyNamesTests(SearchTests):
    """More than one search can give."""

    async def test_12_000_names(self) -> None:
        """Every listing of them is whole and in order, page by page or in one."""
        forget(self.url)
        store = await self.open()
        names = sorted(f"{at % 1500:04}/{at}" for at in range(12_000))
        for some in range(0, len(names), 1000):
            made = await gather(
                [
                    store.add_version(put(name, 1 + at))
                    for at, name in enumerate(names[some : some + 1000], some)
                ]
            )
            self.assertEqual([one for one in made if isinstance(one, Exception)], [])
        ask(self.url, "POST", "/ostore-heads/_refresh")

        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await store.listing("", "", "", after, 1000)
            found += [one.name for one in page.items]
            after = page.next
        self.assertEqual(found, names)

        folders: list[str] = []
        after = ""
        while after is not None:
            page = await store.listing("", "", "/", after, 1000)
            folders += page.prefixes
            after = page.next
        self.assertEqual(folders, [f"{at:04}/" for at in range(1500)])

        everything = await store.all_versions("", ("", 0), 20_000)
        self.assertEqual([one.name for one in everything], names)
        hashes = await store.hashes("", 20_000)
        self.assertEqual(hashes, [hash_of(1 + at) for at in range(12_000)])


class ArchiveTests(SearchTests):
    """A name with more versions than its head holds."""

    async def test_300_versions(self) -> None:
        """All are read, found, purged and unmarked as the newest are."""
        forget(self.url)
        store = await self.open()
        other = await self.open()
        layout = metadata.layout_of(1)
        made = []
        for at in range(1, 301):
            marks = (0,) if at in {5, 299} else ()
            new = put("n", at, layout=layout, degraded=marks)
            made.append(await store.add_version(new))
        ask(self.url, "POST", "/ostore-heads/_refresh")
        for one in (store, other):
            self.assertEqual(list(await one.versions_of("", "n", 0, 999)), made)
            self.assertEqual(list(await one.versions_of("", "n", 33, 99)), made[33:132])
            self.assertEqual(list(await one.all_versions("", ("m", 1), 999)), made)
            self.assertEqual(await one.version("", "n", 7), made[6])
            found = await one.by_put_id("", "n", made[8].put_id)
            self.assertEqual(found, made[8])
            self.assertEqual(await one.content(hash_of(10)), made[9])
        self.assertEqual(len(await store.hashes("", 999)), 300)
        again = NewVersion("n", made[1].put_id, hash_of(2), 5)
        self.assertEqual(await other.add_version(again), made[1])

        self.assertTrue(await other.purge("", "n", 10))
        self.assertFalse(await store.purge("", "n", 10))
        self.assertIsNone(await store.content(hash_of(10)))
        self.assertIsNone(await store.version("", "n", 10))

        degraded = await store.degraded("", 9)
        shown = {mark for one in degraded for mark in one.marks}
        self.assertEqual(shown, {("", "n", 5), ("", "n", 299)})
        await store.clear_degraded([("", "n", 5), ("", "n", 6)])
        self.assertEqual((await other.version("", "n", 5)).degraded, ())  # type: ignore[union-attr]  # it is there
        left = [one for one in made if one.number != 10]
        left[4] = attrs.evolve(left[4], degraded=())
        while left:
            self.assertEqual(await other.latest("", "n"), left[-1])
            self.assertTrue(await store.purge("", "n", left.pop().number))
        self.assertIsNone(await other.latest("", "n"))
        self.assertEqual((await other.add_version(put("n"))).number, 301)


class GrowthTests(SearchTests):
    """A wider index behind the same alias, as docs/metadata.md says."""

    async def test_split(self) -> None:
        """Writes fail while they are blocked, reads go on, and nothing is missing."""
        forget(self.url)
        store = await self.open(limits=IMPATIENT)
        made = []
        for at in range(1, 101):
            made.append(await store.add_version(put("old", at)))
            await store.add_version(put(f"n/{at}", at))
        block = {"index.blocks.write": True}
        ask(self.url, "PUT", "/ostore-heads-v1/_settings", block)
        (outcome,) = await gather([store.add_version(put("old"))])
        self.assertIsInstance(outcome, MetadataUnavailable)
        self.assertEqual(await store.latest("", "old"), made[-1])
        settings = {"index.number_of_shards": 16, "index.blocks.write": None}
        ask(
            self.url,
            "PUT",
            "/ostore-heads-v1/_split/ostore-heads-v2",
            {"settings": settings},
        )
        self.addCleanup(ask, self.url, "DELETE", "/ostore-heads-v2")
        path = "/_cluster/health/ostore-heads-v2?wait_for_status=yellow&timeout=60s"
        await deferToThread(ask, self.url, "GET", path)
        actions = [
            {"remove": {"index": "ostore-heads-v1", "alias": "ostore-heads"}},
            {"add": {"index": "ostore-heads-v2", "alias": "ostore-heads"}},
        ]
        ask(self.url, "POST", "/_aliases", {"actions": actions})
        ask(self.url, "DELETE", "/ostore-heads-v1")

        for one in (store, await self.open(limits=IMPATIENT)):
            self.assertEqual(list(await one.versions_of("", "old", 0, 999)), made)
            self.assertEqual(len(await one.hashes("", 999)), 100)
            page = await one.listing("", "", "/", "", 9)
            self.assertEqual((len(page.items), page.prefixes), (1, ("n/",)))
            made.append(await one.add_version(put("old", 1)))
            self.assertEqual(made[-1].number, len(made))
