"""The SQLite file: who may open it, which files are refused, and what a page costs."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from twisted.internet.task import Clock as Timers
from twisted.trial.unittest import SynchronousTestCase

import ostore
from ostore.backends.metadata import changes, queries
from ostore.backends.metadata.readers import Readers
from ostore.backends.metadata.schema import connect
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.model.errors import MetadataUnavailable, OutcomeUnknown, Refused
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
from tests.backends.test_metadata_model import run
from tests.contracts.metadata import layout_of, marker, put

CHILD = """
import sys, time
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as Timers
from ostore.backends.metadata.sqlite import SqliteStore
from ostore.backends.metadata.writer import InlineWriter
from ostore.streaming.clock import Clock
from ostore.streaming.pools import InlineWorkers
clock = Clock(Timers(), time.monotonic, time.time)
store = SqliteStore(sys.argv[1], clock, InlineWorkers(), InlineWriter())
Deferred.fromCoroutine(store.start()).addErrback(lambda f: print(f.getErrorMessage()))
"""


class FileCase(SynchronousTestCase):
    """A folder with one store, all inline."""

    def setUp(self) -> None:
        """An empty folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "metadata.sqlite"

    def open_store(
        self, path: Path | None = None, *, durable: bool = True
    ) -> SqliteStore:
        """A store that has started."""
        clock = Clock(Timers(), time.monotonic, lambda: 1e9)
        store = SqliteStore(
            str(path or self.path),
            clock,
            InlineWorkers(),
            InlineWriter(),
            durable=durable,
        )
        run(store.start())
        self.addCleanup(lambda: run(store.stop()))
        return store

    def refused(self) -> str:
        """Why the store does not open: one line."""
        error = self.assertRaises(Refused, self.open_store)
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertIn(str(self.path), str(error))
        return str(error)


class OpeningTests(FileCase):
    """What `start` takes, and what it refuses."""

    def test_opened_again(self) -> None:
        """What was written is there when the file is opened the next time."""
        store = self.open_store()
        made = run(store.add_version(put("n")))
        run(store.stop())
        self.assertEqual(run(self.open_store().latest("", "n")), made)

    def test_the_file_says_what_it_is(self) -> None:
        """Application id, schema number and journal mode stand in the file."""
        run(self.open_store().stop())
        with sqlite3.connect(self.path) as db:
            for pragma, value in (
                ("application_id", 0x6F737472),
                ("user_version", 1),
                ("journal_mode", "wal"),
            ):
                found = db.execute(f"PRAGMA {pragma}").fetchone()
                self.assertEqual(found, (value,), pragma)
        db.close()

    def test_for_the_owner_alone(self) -> None:
        """The files hold names: nobody else may read them, whoever made them how."""
        for made_before in (False, True):
            if made_before:
                self.path.chmod(0o644)
            store = self.open_store()
            run(store.add_version(put("n")))
            run(store.listing("", "", "", "", 9))
            modes = {each.name: each.stat().st_mode for each in self.folder.iterdir()}
            self.assertEqual(len(modes), 4, modes)
            for name, mode in modes.items():
                self.assertEqual(mode & 0o777, 0o600, name)
            run(store.stop())

    def test_durability(self) -> None:
        """Strict syncs at each commit (FULL), relaxed does not (NORMAL)."""
        for durable, level in ((True, 2), (False, 1)):
            store = self.open_store(durable=durable)
            found = store._open[0].execute("PRAGMA synchronous").fetchone()
            self.assertEqual(found, (level,))
            run(store.stop())

    def test_one_user_at_a_time(self) -> None:
        """A second store on the path is refused until the first has stopped."""
        store = self.open_store()
        self.assertIn("in use by another process", self.refused())
        run(store.stop())
        self.open_store()

    def test_another_process_is_refused(self) -> None:
        """A real second process gets the same line, and the first goes on."""
        store = self.open_store()
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(self.path.absolute())],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(ostore.__file__).parents[1],
            check=True,
        )
        self.assertEqual(
            child.stdout,
            f"{self.path.absolute()} is in use by another process\n",
        )
        self.assertEqual(run(store.add_version(put("n"))).number, 1)

    def test_a_refused_store_lets_go(self) -> None:
        """After a refusal the path is free, and a better file is taken."""
        self.path.write_bytes(b"no database at all, but long enough to be read" * 100)
        clock = Clock(Timers(), time.monotonic, lambda: 1e9)
        store = SqliteStore(str(self.path), clock, InlineWorkers(), InlineWriter())
        self.assertRaises(Refused, lambda: run(store.start()))
        self.path.unlink()
        run(store.start())
        self.addCleanup(lambda: run(store.stop()))
        self.assertEqual(run(store.listing("", "", "", "", 9)).items, ())

    def test_an_empty_file_is_a_new_one(self) -> None:
        """As a crash between making the file and its tables leaves it."""
        self.path.touch()
        self.assertIsNone(run(self.open_store().health()))

    def test_a_strange_file(self) -> None:
        """What is no SQLite file is refused and left as it is."""
        strange = b"GIF89a, certainly no database" * 200
        self.path.write_bytes(strange)
        self.assertIn("is not a metadata database", self.refused())
        self.assertEqual(self.path.read_bytes(), strange)

    def test_a_database_of_another_program(self) -> None:
        """Other people's tables are refused and left as they are."""
        with sqlite3.connect(self.path) as db:
            db.execute("CREATE TABLE songs (title TEXT)")
        db.close()
        before = self.path.read_bytes()
        self.assertIn("a database of another program", self.refused())
        self.assertEqual(self.path.read_bytes(), before)

    def test_a_newer_schema(self) -> None:
        """A file that a later program wrote is refused with both numbers."""
        run(self.open_store().stop())
        with sqlite3.connect(self.path) as db:
            db.execute("UPDATE meta SET value = '7' WHERE key = 'schema'")
        db.close()
        why = self.refused()
        self.assertIn("has schema 7", why)
        self.assertIn("up to schema 1", why)

    def test_a_damaged_file(self) -> None:
        """A file that was cut, or whose tables are overwritten, is refused."""
        store = self.open_store()
        for i in range(50):
            run(store.add_version(put(f"n{i}")))
        run(store.stop())
        whole = self.path.read_bytes()
        for damaged in (
            whole[: len(whole) // 2],
            whole[:4096] + b"\xff" * (len(whole) - 4096),
            whole[:100] + b"\xff" * 3996 + whole[4096:],
        ):
            self.path.write_bytes(damaged)
            self.assertIn("is damaged", self.refused())
        self.path.write_bytes(whole)
        self.assertEqual(
            len(run(self.open_store().listing("", "", "", "", 99)).items), 50
        )

    def test_an_old_sqlite(self) -> None:
        """A library that lacks what the tables need is named, with its version."""
        self.patch(sqlite3, "sqlite_version_info", (3, 36, 0))
        self.assertIn("needs SQLite 3.37 or newer", self.refused())

    def test_a_missing_folder(self) -> None:
        """A path that cannot be made is refused, not worked round."""
        self.path = self.folder / "absent" / "metadata.sqlite"
        self.assertIn("No such file or directory", self.refused())

    def test_a_folder_in_its_place(self) -> None:
        """A folder of that name is refused."""
        self.path.mkdir()
        self.assertIn("cannot be opened", self.refused())


class RunningTests(FileCase):
    """Between `start` and `stop`, and after."""

    def test_after_stop(self) -> None:
        """A stopped store answers MetadataUnavailable, and stops once more in peace."""
        store = self.open_store()
        run(store.stop())
        run(store.stop())
        for work in (
            store.latest("", "n"),
            store.listing("", "", "", "", 9),
            store.add_version(put("n")),
        ):
            with self.assertRaises(MetadataUnavailable):
                run(work)
        self.assertEqual(run(store.health()), "the metadata store is closed")

    def test_a_negative_limit_is_none(self) -> None:
        """It shows nothing, where SQLite would show everything."""
        store = self.open_store()
        run(store.add_version(put("n")))
        self.assertEqual(run(store.versions_of("", "n", 0, -1)), [])
        self.assertEqual(run(store.all_versions("", ("", 0), -1)), [])
        self.assertEqual(run(store.hashes("", -1)), [])
        self.assertEqual(run(store.listing("", "", "", "", -1)).items, ())

    def test_room_for_deletions(self) -> None:
        """File and log have a mebibyte ahead at each start; the file grows once."""
        sizes = []
        for _ in range(2):
            store = self.open_store()
            log = self.path.with_name("metadata.sqlite-wal")
            self.assertGreaterEqual(log.stat().st_size, 1 << 20)
            with closing(sqlite3.connect(self.path)) as db:
                (free,) = db.execute("PRAGMA freelist_count").fetchone()
                (size,) = db.execute("PRAGMA page_size").fetchone()
            self.assertGreaterEqual(free * size, 1 << 20)
            run(store.stop())
            sizes.append(self.path.stat().st_size)
        self.assertEqual(sizes[0], sizes[1])

    def test_nothing_is_left_beside_the_file(self) -> None:
        """After `stop` the log is in the database; only the lock file stays."""
        store = self.open_store()
        run(store.add_version(put("n")))
        run(store.listing("", "", "", "", 9))
        run(store.stop())
        self.assertEqual(
            sorted(each.name for each in self.folder.iterdir()),
            ["metadata.sqlite", "metadata.sqlite.lock"],
        )

    def test_files_removed_under_a_running_store(self) -> None:
        """No write is acknowledged that would end with the process; health says it."""
        for gone in ("metadata.sqlite", "metadata.sqlite-wal"):
            folder = self.folder / gone
            folder.mkdir()
            store = self.open_store(folder / "metadata.sqlite")
            run(store.add_version(put("n")))
            (folder / gone).unlink()
            lost = put("n")
            with self.assertRaises(OutcomeUnknown):
                run(store.add_version(lost))
            with self.assertRaises(OutcomeUnknown):
                run(store.by_put_id(lost.bucket, lost.name, lost.put_id))
            self.assertIn("removed or replaced", run(store.health()) or "")
            run(store.stop())

    def test_a_damaged_page_is_an_error_not_an_answer(self) -> None:
        """What SQLite cannot read is MetadataUnavailable, and nothing of it leaks."""
        store = self.open_store()
        store._point = sqlite3.connect(":memory:")
        self.addCleanup(store._point.close)
        error = self.assertRaises(
            MetadataUnavailable, lambda: run(store.content("ab" * 32))
        )
        self.assertEqual(str(error), "the metadata store failed")

    def test_a_reader_that_outlives_the_store(self) -> None:
        """A page under way when the store stops is finished; its connection closes."""
        run(self.open_store().stop())
        lent: list[sqlite3.Connection] = []
        readers = Readers(lambda: connect(str(self.path), durable=True))

        def query(db: sqlite3.Connection) -> int:
            readers.close()
            lent.append(db)
            return len(queries.hashes(db, "", 9))

        self.assertEqual(readers.run(query), 0)
        with self.assertRaises(sqlite3.ProgrammingError):
            lent[0].execute("SELECT 1")
        with self.assertRaises(MetadataUnavailable):
            readers.run(query)

    def test_marks_are_capped(self) -> None:
        """Of a content with very many marks as many are shown as one answer holds."""
        store = self.open_store(durable=False)
        for i in range(1200):
            new = put(f"n{i:04}", layout=layout_of(1), degraded=(i % 3,))
            run(store.add_version(new))
        seen: list[int] = []
        while found := run(store.degraded("", 5)):
            self.assertEqual(len(found), 1)
            seen.append(len(found[0].marks))
            run(store.clear_degraded(found[0].marks))
        self.assertEqual(seen, [1000, 200])


class CostTests(FileCase):
    """Pages and point reads cost what they show, not what is stored."""

    def test_no_query_scans_or_sorts(self) -> None:
        """Every statement goes through an index, in the index's own order."""
        db = self.open_store()._open[1]
        checked = 0
        for module in (queries, changes):
            for name, query in vars(module).items():
                if not isinstance(query, str) or "?" not in query:
                    continue
                values = ["x"] * query.count("?")
                plan = db.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
                for *_, step in plan:
                    if step != "SCAN step":  # the hashes found so far, one by one
                        self.assertNotIn("SCAN", step, name)
                    self.assertNotIn("B-TREE", step, name)
                checked += 1
        self.assertGreaterEqual(checked, 20)

    def work(self, store: SqliteStore, delimiter: str, after: str) -> int:
        """Hundreds of virtual machine steps that a page of 3 takes."""
        run(store.listing("", "", delimiter, after, 3))
        (reader,) = store._readers._idle
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        reader.set_progress_handler(step, 100)
        page = run(store.listing("", "", delimiter, after, 3))
        reader.set_progress_handler(None, 0)
        self.assertEqual(len(page.items) + len(page.prefixes), 3)
        return steps

    def test_a_page_costs_the_page(self) -> None:
        """Thousands of deleted or rolled-up names make no page dearer."""
        store = self.open_store(durable=False)
        for name in ("a", "z", "zz"):
            run(store.add_version(put(name)))
        alone = self.work(store, "", "")
        for i in range(1500):
            run(store.add_version(put(f"deleted{i}")))
            run(store.add_version(marker(f"deleted{i}")))
        self.assertLessEqual(self.work(store, "", ""), alone + 1)
        for i in range(1500):
            run(store.add_version(put(f"folder/{i}")))
        self.assertLessEqual(self.work(store, "/", ""), alone + 3)
        self.assertLessEqual(self.work(store, "/", "b"), alone + 3)

    def test_hashes_cost_the_hashes(self) -> None:
        """A content of very many names is one step, as any other."""
        store = self.open_store(durable=False)
        for i in range(2000):
            run(store.add_version(put(f"n{i}", 1)))
        run(store.add_version(put("other", 2)))
        db = store._open[1]
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        db.set_progress_handler(step, 100)
        self.assertEqual(len(queries.hashes(db, "", 9)), 2)
        self.assertLess(steps, 5)
