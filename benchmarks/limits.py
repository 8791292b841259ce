"""What the machine does of the same work without the service."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.clients import Job, content
from benchmarks.load import Load
from benchmarks.servers import Server
from benchmarks.works import MIB, WORKS, Work
from ostore.erasure.codec import Codecs
from ostore.erasure.geometry import Buffer, Geometry

STRIPE = 1 << 20
GEOMETRY = Geometry(4, 2)
_PIECE = 64 << 20
_LOG = 64 << 20
"""Bytes that a log is written ahead with; it begins anew when they are used."""
_RECORD = 128
"""Bytes of what a record has beside its block."""
_PAGE = 1000
_SECONDS = 1.0
LEAN = Path(__file__).with_name("lean.py")


class Limits:
    """What the machine does of the same work, beside a server of plain files."""

    def __init__(self, load: Load, plain: Server, folder: Path) -> None:
        self._load = load
        self._plain = plain
        self._folder = folder

    @contextmanager
    def files(self, job: Job) -> Iterator[None]:
        """The files that this job reads; large ones as long as it is measured."""
        paths = []
        for client, count in enumerate(job.readable):
            for turn in range(count):
                name = f"{job.reads}/{client}/{turn}"
                paths.append(self._folder / name.replace("/", "-"))
                if paths[-1].exists():
                    continue
                with paths[-1].open("wb") as file:
                    file.writelines(content(name, job.size))
                    if job.size >= MIB:  # else it would be written beside the work
                        os.fdatasync(file.fileno())
        try:
            yield
        finally:
            for path in paths if job.size >= MIB else ():
                path.unlink()

    def of(self, name: str, job: Job) -> float:
        """Requests a second, MiB/s, or seconds of a listing."""
        work = WORKS[name]
        if work.method == "LIST":
            return listing(self._folder, sum(job.readable))
        if work.method == "MIXED":
            return self._mixed(work, job)
        if work.size > MIB and work.method == "PUT":
            return work.size / MIB / large(self._folder, work.size)
        rate = self._small(work) if work.method == "PUT" else self._read(job)
        return rate * (work.size / MIB if work.large else 1)

    def _read(self, job: Job) -> float:
        seconds = job.seconds if job.size >= MIB else min(job.seconds, _SECONDS)
        job = attrs.evolve(job, port=self._plain.port, seconds=seconds)
        return self._load.do(job).rate

    def _small(self, work: Work) -> float:
        return small(self._folder, work.size, work.clients, _SECONDS)

    def _mixed(self, work: Work, job: Job) -> float:
        """What each part needs alone, added up; a deletion is a row."""
        parts = {
            "GET": self._read(attrs.evolve(job, method="GET")),
            "HEAD": self._read(attrs.evolve(job, method="HEAD")),
            "PUT": self._small(work),
            "DELETE": rows(self._folder, work.clients, _SECONDS),
        }
        shares = {"GET": 0.45, "HEAD": 0.30, "PUT": 0.15, "DELETE": 0.10}
        return 1 / sum(shares[method] / rate for method, rate in parts.items())


def large(folder: Path, size: int) -> float:
    """Seconds to hash, code and durably write that many random bytes as six shards.

    One thread, nothing overlaps: SHA-256 of each stripe, its parity, the blocks
    appended to six files; then each file synced and named, and the folder synced.
    """
    content = memoryview(os.urandom(min(size, _PIECE)))
    codec = Codecs().get(GEOMETRY)
    block = STRIPE // GEOMETRY.data
    names = [folder / f"limit.{index}" for index in range(GEOMETRY.shards)]
    started = time.perf_counter()
    hasher = hashlib.sha256()
    files = [
        folder.joinpath(f"limit.{i}.temp").open("wb", buffering=0)
        for i in range(len(names))
    ]
    for at in range(0, size, STRIPE):
        stripe = content[at % _PIECE : at % _PIECE + STRIPE]
        hasher.update(stripe)
        blocks = [stripe[i : i + block] for i in range(0, STRIPE, block)]
        shards: list[Buffer] = [*blocks, *codec.encode(blocks)]
        for file, piece in zip(files, shards, strict=True):
            file.write(piece)
    for index, file in enumerate(files):
        os.fdatasync(file.fileno())
        file.close()
        folder.joinpath(f"limit.{index}.temp").rename(names[index])
    _sync_folder(folder)
    took = time.perf_counter() - started
    for name in names:
        name.unlink()
    return took


def small(folder: Path, size: int, clients: int, seconds: float) -> float:
    """Contents a second, in batches of `clients` as long as that.

    Of each content SHA-256, parity and a record for each of six logs, which are
    written ahead; each log takes those of the batch in one write and one sync, all
    six at once; then one SQLite transaction (WAL, FULL) has a row for each content.
    """
    codec = Codecs().get(GEOMETRY)
    noise = memoryview(os.urandom(size + 4096))
    block = size // GEOMETRY.data
    with contextlib.ExitStack() as ended:
        pool = ended.enter_context(ThreadPoolExecutor(GEOMETRY.shards))
        paths = [folder / f"log.{number}" for number in range(GEOMETRY.shards)]
        logs = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
        for log, path in zip(logs, paths, strict=True):
            ended.callback(path.unlink)
            ended.callback(os.close, log)
            os.pwrite(log, bytes(_LOG), 0)
            os.fsync(log)
        rows = ended.enter_context(_Rows(folder))
        at = done = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            records: list[list[Buffer]] = [[] for _ in logs]
            hashes = []
            for number in range(done, done + clients):
                content = noise[number % 4096 : number % 4096 + size]
                hashes.append(hashlib.sha256(content).hexdigest())
                blocks = [content[i : i + block] for i in range(0, size, block)]
                head = hashes[-1].encode().ljust(_RECORD)
                shards: list[Buffer] = [*blocks, *codec.encode(blocks)]
                for mine, shard in zip(records, shards, strict=True):
                    mine.extend((head, shard))
            written = clients * (block + _RECORD)
            at = 0 if at + written > _LOG else at
            list(pool.map(_append, logs, records, [at] * len(logs)))
            rows.add(done, hashes)
            at += written
            done += clients
        return done / (time.perf_counter() - started)


def rows(folder: Path, clients: int, seconds: float) -> float:
    """Rows a second, in transactions of `clients`: what deletions come to."""
    with _Rows(folder) as table:
        done, hashes = 0, ["0" * 64] * clients
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            table.add(done, hashes)
            done += clients
        return done / (time.perf_counter() - started)


def listing(folder: Path, count: int) -> float:
    """Seconds to read that many names from SQLite, and make JSON, in pages of 1,000."""
    with _Rows(folder) as table:
        table.add(0, ["0" * 64] * count)
        return table.pages()


class _Rows:
    """A table of names in a file of its own, which goes with the block."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "limit.sqlite"

    def __enter__(self) -> _Rows:
        self._base = sqlite3.connect(self._path, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.execute(
            "CREATE TABLE names (name TEXT PRIMARY KEY, number INTEGER, hash TEXT,"
            " size INTEGER, created REAL, headers TEXT, layout TEXT) WITHOUT ROWID"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()

    def add(self, first: int, hashes: Sequence[str]) -> None:
        """One transaction."""
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany(
            "INSERT INTO names VALUES (?, 1, ?, 4096, 1.0, '{}', '4+2')",
            ((f"names/{first + n:09}", hash) for n, hash in enumerate(hashes)),
        )
        self._base.execute("COMMIT")

    def pages(self) -> float:
        """Seconds of all of them."""
        started = time.perf_counter()
        after = ""
        while True:
            found = self._base.execute(
                "SELECT name, number, hash, size, created FROM names WHERE name > ?"
                " ORDER BY name LIMIT ?",
                (after, _PAGE),
            ).fetchall()
            keys = ("name", "version", "hash", "size", "created")
            items = [dict(zip(keys, row, strict=True)) for row in found]
            json.dumps({"items": items, "next": after}).encode()
            if len(found) < _PAGE:
                return time.perf_counter() - started
            after = found[-1][0]


def _append(log: int, records: list[Buffer], at: int) -> None:
    os.pwrite(log, b"".join(records), at)
    os.fdatasync(log)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
