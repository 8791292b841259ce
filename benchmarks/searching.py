"""PUTs of a cluster whose metadata lies in a search server, beside that server alone.

One api, one data process with six roots, RabbitMQ, and the search server, all on this
machine. In each round 32 clients PUT new contents of 4 KiB; then the documents which
that made are read back and given to the server once more, to an index of the same
template, by `_bulk` with the same parameters: by two connections in batches of the
size that the api had, which may have two under way, and by 32 connections one in each.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from benchmarks import client, conversations
from benchmarks.clients import Job
from benchmarks.figures import number
from benchmarks.load import Load
from benchmarks.profiling import profile
from benchmarks.servers import Processes
from benchmarks.works import SEARCH, WORKS
from ostore.backends.metadata.elastic_setup import HEADS
from tests.support.livecluster import SEARCH as KIND
from tests.support.rabbitmq import RabbitMQ
from tests.support.searchserver import SearchServer

WORK = "put-4k-c32"
LANES = 2
"""Batches that an api has under way at once."""
AGAIN = "bench-heads"
"""The alias of the index that takes the documents once more."""
COUNTED = """
import os, time
from ostore.backends.metadata import elastic_bulk
told = os.open("batches", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
class Batches(elastic_bulk.Batches):
    def __init__(self, send, *words, **options):
        async def counted(items):
            began = time.perf_counter()
            try:
                return await send(items)
            finally:
                took = time.perf_counter() - began
                if send.__self__._alias == "ostore-heads":
                    line = f"{send.__name__} {len(items)} {took}\\n"
                    os.write(told, line.encode())
        super().__init__(counted, *words, **options)
elastic_bulk.Batches = Batches
"""
"""What an api does before it starts, to tell of its batches in a file."""
CLIENTS = 32
SINGLY = 2_000
"""The most documents that are given to the server one by one."""
_MOST = 10_000
_PATIENCE = 60.0


class Counted(conversations.Changed):
    """An api that tells of its batches."""

    BEFORE = COUNTED


@attrs.frozen
class Round:
    """Rates a second, batches of the api, CPU ms of each process for one PUT.

    `alone` is the search server's rate, `server_alone` its CPU then; `singly` and
    `server_singly` the same of documents that come one by one. `batch` and `reads`
    are documents in a `_bulk` and an `_mget`; what is `busy` is the share of the time
    in which a batch was under way, of the two that may be.
    """

    put: float
    p50: float
    p99: float
    alone: float
    singly: float
    batch: float
    bulk_ms: float
    bulk_busy: float
    reads: float
    mget_ms: float
    mget_busy: float
    api: float
    data: float
    server: float
    server_alone: float
    server_singly: float
    clients: float


class Search:
    """The search server: asked as the api asks it, and by its statistics."""

    def __init__(self, server: SearchServer) -> None:
        self._server = server
        self.processes = Processes(server.port, (server.pid,))

    def prepare(self) -> None:
        """Make the index that takes documents again, from the template of heads."""
        self.ask("PUT", f"/{HEADS}-v900", f'{{"aliases": {{"{AGAIN}": {{}}}}}}')

    def documents(self, prefix: str) -> Sequence[Mapping[str, Any]]:
        """The heads of names below a prefix, at most 10,000."""
        self.ask("POST", f"/{HEADS}/_refresh")
        query = {"prefix": {"key": f"\0{prefix}/"}}
        words = json.dumps({"size": _MOST, "query": query})
        return list(self.ask("POST", f"/{HEADS}/_search", words)["hits"]["hits"])

    def take(
        self, documents: Sequence[Mapping[str, Any]], batch: int, lanes: int
    ) -> tuple[float, float]:
        """Documents a second in batches of that size, so many at once; CPU ms of one."""
        bodies = []
        for at in range(0, len(documents), batch):
            lines: list[object] = []
            for each in documents[at : at + batch]:
                name = {"_id": f"{each['_id']}-{lanes}"}
                lines += ({"create": name}, each["_source"])
            bodies.append("".join(json.dumps(line) + "\n" for line in lines))
        path = f"/{AGAIN}/_bulk?require_alias=true&timeout=3s&wait_for_active_shards=1"

        def begin(lane: int) -> Callable[[], list[float]]:
            connection = self._connection()

            def run() -> list[float]:
                latencies = []
                for body in bodies[lane::lanes]:
                    sent = time.perf_counter()
                    found = _exchange(connection, "POST", path, body)
                    latencies.append(time.perf_counter() - sent)
                    if found["errors"]:
                        raise ConnectionError(f"not all was taken: {str(found)[:300]}")
                connection.close()
                return latencies

            return run

        before = self.processes.cpu()
        took, _ = client.together(lanes, begin)
        used = self.processes.cpu() - before
        return len(documents) / took, used / len(documents) * 1000

    def ask(self, method: str, path: str, body: str | None = None) -> Any:
        """One request. Raises ConnectionError unless it went well."""
        connection = self._connection()
        try:
            return _exchange(connection, method, path, body)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)


def measure(
    options: Any, folder: Path, load: Load, facts: Mapping[str, str]
) -> Mapping[str, Any]:
    """Measure and print, write JSON and a table."""
    with ExitStack() as stack:
        broker = RabbitMQ()
        stack.callback(broker.close)
        broker.start()
        server = SearchServer(folder / "search", KIND)
        stack.callback(server.close)
        server.start()
        metadata = ["--es-server", server.url]
        place = folder / "cluster"
        one = stack.enter_context(
            conversations.cluster(place, broker.url(), Counted, metadata)
        )
        _await_ready(one.port)
        search = Search(server)
        search.prepare()
        seconds = 1.0 if options.quick else 8.0
        _ = _round(load, one, search, place, "warm", 2 * seconds)
        rounds = [
            _round(load, one, search, place, f"{WORK}-{turn}", seconds)
            for turn in range(1 if options.quick else options.rounds)
        ]
        if options.profiles is not None:
            options.profiles.mkdir(parents=True, exist_ok=True)
            runs = iter(range(1000))
            text = profile(
                one.api,
                options.seconds,
                folder / "profile",
                lambda: load.do(_job(one.port, f"profile-{next(runs)}", seconds)),
            )
            (options.profiles / f"{WORK}-search.txt").write_text(text)
    found = {
        "machine": dict(facts),
        "service": f"cluster, {KIND}",
        "rounds": [attrs.asdict(each) for each in rounds],
        "goal": SEARCH,
        "ratio": statistics.median(each.put / each.alone for each in rounds),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    text = _table(rounds)
    options.json.with_suffix(".md").write_text(text)
    print(f"\n{text}")
    return found


def _await_ready(port: int) -> None:
    """Until a PUT goes through: the api sets the search server up first."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        connection = client.Connection(port)
        try:
            head = connection.head("PUT", "/objects/ready", 4)
            connection.socket.sendall(head + b"test")
            connection.finish(200)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
        finally:
            connection.close()


def _job(port: int, prefix: str, seconds: float) -> Job:
    work = WORKS[WORK]
    return Job(port, "PUT", work.size, range(CLIENTS), 300, seconds, prefix)


def _round(
    load: Load,
    one: conversations.Cluster,
    search: Search,
    folder: Path,
    prefix: str,
    seconds: float,
) -> Round:
    api, data = Processes(0, (one.api,)), Processes(0, (one.data,))
    kinds = (api, data, search.processes)
    before = [each.cpu() for each in kinds]
    told = folder / "batches"
    skip = told.stat().st_size
    result = load.do(_job(one.port, prefix, seconds))
    used = [each.cpu() - was for each, was in zip(kinds, before, strict=True)]
    count = len(result.latencies)
    batch, bulk_ms, bulk_busy = _batches(told, "_bulk", skip)
    reads, mget_ms, mget_busy = _batches(told, "_mget", skip)
    documents = search.documents(prefix)
    if len(documents) != count:
        raise ConnectionError(f"{len(documents)} heads after {count} PUTs")
    alone, server_alone = search.take(documents, max(1, round(batch)), LANES)
    singly, server_singly = search.take(documents[:SINGLY], 1, CLIENTS)
    found = Round(
        put=result.rate,
        p50=result.slower_than(0.5) * 1000,
        p99=result.slower_than(0.99) * 1000,
        alone=alone,
        singly=singly,
        batch=batch,
        bulk_ms=bulk_ms,
        bulk_busy=bulk_busy / LANES / (result.ended - result.began),
        reads=reads,
        mget_ms=mget_ms,
        mget_busy=mget_busy / LANES / (result.ended - result.began),
        api=used[0] / count * 1000,
        data=used[1] / count * 1000,
        server=used[2] / count * 1000,
        server_alone=server_alone,
        server_singly=server_singly,
        clients=result.cpu / count * 1000,
    )
    words = (f"{name} {number(value)}" for name, value in attrs.asdict(found).items())
    print(f"{prefix:<16}{'  '.join(words)}  ratio {found.put / alone:.2f}", flush=True)
    return found


def _batches(path: Path, kind: str, skip: int) -> tuple[float, float, float]:
    """Of batches of that kind, told behind the first bytes of the file.

    Documents in one, ms that one takes, and seconds of all.
    """
    lines = [line.split() for line in path.read_text()[skip:].splitlines()]
    counts = [int(count) for name, count, _ in lines if name == kind]
    took = [float(seconds) for name, _, seconds in lines if name == kind]
    if not counts:
        return 0.0, 0.0, 0.0
    return statistics.mean(counts), statistics.mean(took) * 1000, sum(took)


def _table(rounds: Sequence[Round]) -> str:
    def median(name: str) -> str:
        return number(statistics.median(getattr(each, name) for each in rounds))

    def spread(name: str) -> str:
        values = [getattr(each, name) for each in rounds]
        return f"{median(name)} ({number(min(values))} to {number(max(values))})"

    def busy(name: str) -> str:
        share = statistics.median(getattr(each, f"{name}_busy") for each in rounds)
        return f"{median(f'{name}_ms')} / {100 * share:.0f} %"

    ratio = statistics.median(each.put / each.alone for each in rounds)
    singly = statistics.median(each.put / each.singly for each in rounds)
    met = "yes" if ratio >= SEARCH else "no"
    rows = (
        ("PUT of 4 KiB, 32 clients, a second", "", spread("put"), ""),
        ("of these p50 / p99, ms", "", f"{median('p50')} / {median('p99')}", ""),
        (f"{KIND} alone, documents a second", "", spread("alone"), ""),
        ("ratio", f"{SEARCH:g}", f"{ratio:.2f}", met),
        (
            "the same, one document in each `_bulk`, 32 at once",
            "",
            spread("singly"),
            "",
        ),
        ("ratio to that", "", f"{singly:.2f}", ""),
        ("documents in a `_bulk` of the api", "", spread("batch"), ""),
        ("one takes ms / of the time two are under way", "", busy("bulk"), ""),
        ("documents in an `_mget` of the api", "", spread("reads"), ""),
        ("one takes ms / of the time two are under way", "", busy("mget"), ""),
        ("CPU of a PUT, ms: api", "", median("api"), ""),
        ("data service", "", median("data"), ""),
        ("search server", "", median("server"), ""),
        ("clients", "", median("clients"), ""),
        ("CPU of a document alone, ms: search server", "", median("server_alone"), ""),
        ("the same, one in each `_bulk`", "", median("server_singly"), ""),
    )
    lines = ["| what | goal | reached | met |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None
) -> Any:
    headers = {"Content-Type": "application/x-ndjson"}
    if body is None or not path.partition("?")[0].endswith("_bulk"):
        headers = {"Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    found = json.load(response)
    if response.status >= 300:
        raise ConnectionError(f"{method} {path}: {response.status} {str(found)[:300]}")
    return found
