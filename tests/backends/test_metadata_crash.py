"""SQLite and the power cut: killed processes and torn logs."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import ostore
from tests.backends.test_metadata_files import FileCase
from tests.backends.test_metadata_model import run
from tests.contracts.metadata import put

NAMES = ("a", "b", "c")

WRITER = """
import os, sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import ThreadWriter
from ostore.model.versions import NewVersion
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers

store = SqliteStore(
    sys.argv[1],
    Clock(reactor, time.monotonic, time.time),
    InlineWorkers(),
    ThreadWriter(reactor, batch=4),
)

async def write(name):
    while True:
        new = NewVersion(name, os.urandom(16).hex(), hash=os.urandom(32).hex(), size=9)
        made = await store.add_version(new)
        os.write(1, f"{name} {made.number} {new.put_id} {new.hash}\\n".encode())

async def main():
    await store.start()
    for name in sys.argv[2:] * 3:
        Deferred.fromCoroutine(write(name)).addErrback(lambda f: os._exit(1))

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
"""


class KillTests(FileCase):
    """A real process, killed while it writes."""

    def test_acknowledged_versions_survive(self) -> None:
        """After each of 6 kills every acknowledged version is there; no number lacks."""
        chance = random.Random(3)
        acknowledged: list[list[str]] = []
        path = str(self.path.absolute())
        for _ in range(6):
            child = subprocess.Popen(
                [sys.executable, "-c", WRITER, path, *NAMES],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(ostore.__file__).parents[1],
            )
            assert child.stdout is not None
            with child.stdout:
                for _ in range(chance.randrange(1, 200)):
                    acknowledged.append(child.stdout.readline().split())
                child.kill()
                acknowledged += [line.split() for line in child.stdout]
            self.assertEqual(child.wait(), -9)

            store = self.open_store()
            for name, number, put_id, hash in acknowledged:
                found = run(store.by_put_id("", name, put_id))
                assert found is not None
                self.assertEqual((found.number, found.hash), (int(number), hash))
            for name in NAMES:
                numbers = [
                    one.number for one in run(store.versions_of("", name, 0, 9**9))
                ]
                self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
            run(store.stop())


class TornLogTests(FileCase):
    """What a power cut leaves of the log beside a database."""

    def setUp(self) -> None:
        """10 versions in the database, 10 in the log; `ends` is where each ends."""
        super().setUp()
        store = self.open_store()
        for _ in range(10):
            run(store.add_version(put("n")))
        store._open[0].execute("PRAGMA wal_checkpoint(TRUNCATE)")
        log = self.folder / "metadata.sqlite-wal"
        self.ends = []
        for _ in range(10):
            run(store.add_version(put("n")))
            self.ends.append(log.stat().st_size)
        self.database = self.path.read_bytes()
        self.log = log.read_bytes()
        run(store.stop())
        self.rounds = 0

    def check(self, log: bytes) -> None:
        """A store over this log opens, with the versions whose frames are whole."""
        self.rounds += 1
        folder = self.folder / str(self.rounds)
        folder.mkdir()
        path = folder / "metadata.sqlite"
        path.write_bytes(self.database)
        (folder / "metadata.sqlite-wal").write_bytes(log)
        same = next(
            (i for i, byte in enumerate(self.log) if log[i : i + 1] != bytes([byte])),
            len(self.log),
        )
        expected = 10 + sum(end <= same for end in self.ends)

        store = self.open_store(path)
        found = [one.number for one in run(store.versions_of("", "n", 0, 99))]
        self.assertEqual(found, list(range(1, expected + 1)))
        self.assertEqual(run(store.add_version(put("n"))).number, expected + 1)
        whole = store._open[0].execute("PRAGMA integrity_check").fetchall()
        self.assertEqual(whole, [("ok",)])
        run(store.stop())

    def test_a_torn_log_gives_a_prefix_of_the_history(self) -> None:
        """Cut, zeroed or garbled anywhere: exactly the commits before that are there."""

        @settings(max_examples=80, deadline=None, database=None)
        @given(
            at=st.integers(0, len(self.log)),
            how=st.sampled_from(["cut", "zeros", "garbage", "flip"]),
        )
        def torn(at: int, how: str) -> None:
            rest = len(self.log) - at
            head, tail = self.log[:at], self.log[at:]
            if how == "cut":
                tail = b""
            elif how == "zeros":
                tail = bytes(rest)
            elif how == "garbage":
                tail = random.Random(at).randbytes(rest)
            elif tail:
                tail = bytes([tail[0] ^ 1]) + tail[1:]
            self.check(head + tail)

        torn()

    def test_at_every_commit(self) -> None:
        """Cut right behind a commit its version is there; a byte earlier it is not."""
        for end in self.ends:
            self.check(self.log[:end])
            self.check(self.log[: end - 1])
