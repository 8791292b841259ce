"""Pages with a delimiter over few names and over many.

`python benchmarks/listing.py [--store sqlite opensearch-3] [--names 200000]`. Each
store is filled twice, with 2,000 names and with `--names`, in one shape: half of them
lie in 1,000 folders below `f/`, half below `n/`, where 999 names stand beside one
folder. A page of 1,000 entries is the same for both; compare the ratios of one run.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.nodes import run
from ostore.backends.metadata.elastic import make_store
from ostore.backends.metadata.elastic_documents import head_document, head_id
from ostore.backends.metadata.elastic_setup import HEADS
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import ThreadWriter
from ostore.interfaces import IMetadataStore
from ostore.model.heads import Head, append
from ostore.model.layouts import Layout
from ostore.model.versions import NewVersion
from ostore.streaming.clock import Clock
from ostore.streaming.pools import ThreadWorkers
from ostore.streaming.tasks import gather
from tests.support.searchserver import SearchServer

reactor: Any = installed
CLOCK = Clock(reactor, time.monotonic, time.time)
FEW = 2000
PAGES = {
    "folders": ("f/", "/", 1000),
    "names": ("n/", "/", 1000),
    "names -": ("n/", "-", 1000),
    "root": ("", "/", 2),
}
"""Prefix, delimiter, and how many entries there are."""
ROUNDS = 40
BATCH = 1000


def names(count: int) -> Iterator[str]:
    """So many names, half below f/ and half below n/."""
    for number in range(count // 2):
        yield f"f/{number % 1000:04d}/{number}"
    for number in range(999):
        yield f"n/name{number:04d}"
    for number in range(count - count // 2 - 999):
        yield f"n/all-/{number}"


def versions(count: int) -> Iterator[NewVersion]:
    """A first version of each name."""
    for name in names(count):
        hash = hashlib.sha256(name.encode()).hexdigest()
        headers = {"content-type": "text/plain"}
        layout = Layout(4, 2, 5, hash[:32])
        yield NewVersion(name, hash[32:], hash, 5, headers=headers, layout=layout)


async def sqlite(folder: Path, count: int) -> IMetadataStore:
    """A filled store in that folder."""
    workers = ThreadWorkers(reactor, 2, "metadata")
    workers.start()
    reactor.addSystemEventTrigger("after", "shutdown", workers.stop)
    writer = ThreadWriter(reactor)
    path = folder / f"{count}.sqlite"
    store = SqliteStore(str(path), CLOCK, workers, writer, durable=False)
    await store.start()
    left = versions(count)
    while batch := list(islice(left, BATCH)):
        await gather(store.add_version(each) for each in batch)
    return store


async def search(server: SearchServer, count: int) -> IMetadataStore:
    """A filled store on that server, which forgets what it had."""
    for path in (f"/{HEADS}-v1", "/ostore-cluster-v1"):
        _ = exchange(server, "DELETE", path)
    store = make_store([server.url], reactor, CLOCK, os.urandom, print)
    await store.start()
    while await store.health() is not None:
        await CLOCK.sleep(0.1)
    left = versions(count)
    while batch := list(islice(left, BATCH)):
        lines: list[object] = []
        for each in batch:
            head, _ = append(Head("", each.name), each, int(time.time() * 1000))
            lines.append({"create": {"_id": head_id("", each.name)}})
            lines.append(head_document(head))
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if exchange(server, "POST", f"/{HEADS}/_bulk", text)["errors"]:
            raise SystemExit("the search server took not everything")
    _ = exchange(server, "POST", f"/{HEADS}/_refresh")
    while exchange(server, "GET", f"/{HEADS}/_stats/merge")["_all"]["total"]["merges"][
        "current"
    ]:
        await CLOCK.sleep(0.5)
    return store


def exchange(server: SearchServer, method: str, path: str, body: str = "") -> Any:
    """One request past the store."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Content-Type": "application/x-ndjson"}
    connection.request(method, path, body or None, headers)
    found = json.load(connection.getresponse())
    connection.close()
    return found


async def time_pages(stores: Sequence[IMetadataStore]) -> list[dict[str, float]]:
    """The least milliseconds of each page, for each store; they take turns.

    The least is what the page costs when nothing else runs on the machine.
    """
    found: list[dict[str, float]] = [{} for _ in stores]
    for label, (prefix, delimiter, expected) in PAGES.items():
        times: list[list[float]] = [[] for _ in stores]
        for _ in range(ROUNDS + 3):
            for store, taken in zip(stores, times, strict=True):
                began = time.perf_counter()
                page = await store.listing("", prefix, delimiter, "", 1000)
                taken.append(1000 * (time.perf_counter() - began))
                if len(page.items) + len(page.prefixes) != expected:
                    raise SystemExit(
                        f"{label}: {len(page.items)}, {len(page.prefixes)}"
                    )
        for each, taken in zip(found, times, strict=True):
            each[label] = min(taken[3:])
    return found


async def compare(kind: str, folder: Path, many: int) -> None:
    """Fill, time, print."""
    folder.mkdir(parents=True)
    server = None if kind == "sqlite" else SearchServer(folder, kind)
    if server is not None:
        server.start()
    try:
        stores = []
        figures = []
        for count in (FEW, many):
            began = time.perf_counter()
            if server is None:
                stores.append(await sqlite(folder, count))
            else:  # it holds one of them at a time
                store = await search(server, count)
                figures += await time_pages([store])
                await store.stop()
            print(f"{kind}: {count} names, {time.perf_counter() - began:.0f} s")
        figures += await time_pages(stores) if stores else []
        for store in stores:
            await store.stop()
        few, more = figures
        for label in PAGES:
            print(
                f"{kind:14}{label:10}{few[label]:10.2f} ms{more[label]:10.2f} ms"
                f"{more[label] / few[label]:8.2f}",
                flush=True,
            )
    finally:
        if server is not None:
            server.close()


def main(words: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", nargs="+", default=["sqlite", "opensearch-3"])
    parser.add_argument("--names", type=int, default=200_000)
    options = parser.parse_args(words)
    folder = Path(tempfile.mkdtemp(prefix="bench-listing-"))
    folder.chmod(0o755)

    async def work() -> None:
        for kind in options.store:
            await compare(kind, folder / kind, options.names)

    try:
        return run(work, stay=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
