"""The one writer: batches, limits, and what becomes of a transaction that fails."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ostore.backends.metadata.schema import connect
from ostore.backends.metadata.writer import InlineWriter, ThreadWriter, commit
from ostore.model.errors import (
    MetadataUnavailable,
    NoSpace,
    NotFound,
    OstoreError,
    OutcomeUnknown,
)
from ostore.streaming.tasks import gather, start


def insert(value: int) -> Any:
    """A change that writes one row and gives its value."""

    def change(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO t VALUES (?, zeroblob(2000))", (value,))
        return value

    return change


def refuse(db: sqlite3.Connection) -> None:
    """A change that writes, then finds that it must not."""
    insert(1000)(db)
    raise NotFound("no")


def nothing() -> None:
    """No check."""


class Faulty(sqlite3.Connection):
    """A connection whose next `times` statements that begin with `fails` do."""

    fails = ""
    times = 1
    code = sqlite3.SQLITE_IOERR
    undone = False

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """Run it, or fail."""
        if self.fails and self.times and sql.startswith(self.fails):
            self.times -= 1
            if self.undone:
                self.rollback()
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorcode = self.code
            raise error
        return super().execute(sql, *args)


class CommitTests(SynchronousTestCase):
    """One transaction of several changes."""

    def setUp(self) -> None:
        """A table to write to."""
        self.db = sqlite3.connect(self.mktemp(), isolation_level=None, factory=Faulty)
        self.addCleanup(self.db.close)
        self.db.execute("CREATE TABLE t (v INTEGER UNIQUE, b BLOB)")

    def rows(self) -> list[int]:
        """What is stored."""
        self.assertFalse(self.db.in_transaction)
        return [v for (v,) in self.db.execute("SELECT v FROM t ORDER BY v")]

    def kinds(self, outcomes: list[Any]) -> list[object]:
        """Results, and for failures their type."""
        return [one.type if isinstance(one, Failure) else one for one in outcomes]

    def test_a_failing_change_hurts_no_other(self) -> None:
        """What it wrote is undone, and the others of its batch are committed."""
        changes = [insert(1), refuse, insert(2), insert(1), insert(3)]
        outcomes = commit(self.db, changes, nothing)
        self.assertEqual(self.kinds(outcomes), [1, NotFound, 2, MetadataUnavailable, 3])
        self.assertEqual(self.rows(), [1, 2, 3])

    def test_a_defect_hurts_no_other(self) -> None:
        """An error that nobody foresaw goes to its caller alone."""
        outcomes = commit(self.db, [insert(1), lambda _: 1 // 0, insert(2)], nothing)
        self.assertEqual(self.kinds(outcomes), [1, ZeroDivisionError, 2])
        self.assertEqual(self.rows(), [1, 2])

    def test_a_full_disk(self) -> None:
        """A change that finds no room is NoSpace; what is stored stays readable."""
        commit(self.db, [insert(1)], nothing)
        (pages,) = self.db.execute("PRAGMA page_count").fetchone()
        self.db.execute(f"PRAGMA max_page_count = {pages + 1}")
        outcomes = commit(self.db, [insert(i) for i in range(2, 12)], nothing)
        self.assertIn(NoSpace, self.kinds(outcomes))
        kept = [one for one in outcomes if not isinstance(one, Failure)]
        self.assertEqual(self.rows(), [1, *kept])

    def fails(self, statement: str, kind: type[OstoreError], code: int) -> None:
        """Every change of a batch fails with `kind`, and none is stored."""
        self.db.fails, self.db.code = statement, code
        outcomes = commit(self.db, [insert(1), refuse, insert(2)], nothing)
        self.assertEqual(self.kinds(outcomes), [kind] * 3)
        self.assertEqual(self.rows(), [])
        self.assertEqual(commit(self.db, [insert(7)], nothing), [7])

    def test_no_transaction(self) -> None:
        """When none can begin, nothing happened."""
        self.fails("BEGIN", MetadataUnavailable, sqlite3.SQLITE_BUSY)

    def test_an_error_in_the_commit_leaves_the_outcome_open(self) -> None:
        """The log may hold what could not be synced, and a power cut bring it back."""
        self.fails("COMMIT", OutcomeUnknown, sqlite3.SQLITE_IOERR_FSYNC)

    def test_a_disk_full_in_the_commit(self) -> None:
        """Without room for its last frame no transaction is in the log."""
        self.db.times = 2
        self.fails("COMMIT", NoSpace, sqlite3.SQLITE_FULL)

    def test_a_log_that_cannot_grow(self) -> None:
        """It is begun anew, and the transaction takes its room."""
        self.db.fails, self.db.code = "COMMIT", sqlite3.SQLITE_FULL
        outcomes = commit(self.db, [insert(1), refuse, insert(2)], nothing)
        self.assertEqual(self.kinds(outcomes), [1, NotFound, 2])
        self.assertEqual(self.rows(), [1, 2])

    def test_a_transaction_undone_under_a_change(self) -> None:
        """When SQLite gives up the whole transaction, nobody is told of success."""
        self.db.undone = True
        self.fails("ROLLBACK TO", MetadataUnavailable, sqlite3.SQLITE_IOERR)

    def test_the_check_comes_before_the_acknowledgement(self) -> None:
        """Files that are gone after the commit make its outcome unknown."""

        def gone() -> None:
            raise OutcomeUnknown("gone")

        outcomes = commit(self.db, [insert(1)], gone)
        self.assertEqual(self.kinds(outcomes), [OutcomeUnknown])


class WriterTests(TestCase):
    """The thread, and its stand-in."""

    def setUp(self) -> None:
        """A writer over a table, with a gate that holds its thread."""
        from twisted.internet import reactor  # noqa: PLC0415 - only where it is needed

        self.reactor = cast("IReactorFromThreads", reactor)
        folder = Path(self.mktemp())
        folder.mkdir()
        self.db = connect(str(folder / "t"), durable=True)
        self.db.execute("CREATE TABLE t (v INTEGER UNIQUE, b BLOB)")
        self.addCleanup(self.db.close)
        self.gate = threading.Event()
        self.statements: list[str] = []

    def writer(self, **limits: int) -> ThreadWriter:
        """A writer that has started."""
        writer = ThreadWriter(self.reactor, **limits)
        writer.start(self.db, nothing)
        self.addCleanup(writer.stop)
        self.addCleanup(self.gate.set)
        return writer

    async def hold(self, writer: ThreadWriter) -> Deferred[bool]:
        """Keep the thread in a change of its own until the gate opens."""
        reached: Deferred[None] = Deferred()

        def wait(_: sqlite3.Connection) -> bool:
            self.reactor.callFromThread(reached.callback, None)
            return self.gate.wait(60)

        held = start(writer.submit(wait))
        await reached
        self.db.set_trace_callback(self.statements.append)
        return held

    def commits(self) -> int:
        """Transactions committed since the thread was held."""
        return self.statements.count("COMMIT")

    async def test_waiting_writes_share_a_commit(self) -> None:
        """600 that wait behind one are committed in batches of 256, in order."""
        writer = self.writer()
        held = await self.hold(writer)
        waiting = [start(writer.submit(insert(i))) for i in range(600)]
        self.gate.set()
        self.assertEqual(await gather(waiting), list(range(600)))
        self.assertTrue(await held)
        self.assertEqual(self.commits(), 1 + 3)

    async def test_the_line_is_bounded(self) -> None:
        """Beyond the limit a write is refused at once; later there is room again."""
        writer = self.writer(limit=5)
        held = await self.hold(writer)
        waiting = [start(writer.submit(insert(i))) for i in range(4)]
        (refused,) = await gather([writer.submit(insert(9))])
        self.assertIsInstance(refused, MetadataUnavailable)
        self.gate.set()
        await held
        await gather(waiting)
        self.assertEqual(await writer.submit(insert(9)), 9)

    async def test_stop_finishes_what_was_accepted(self) -> None:
        """Writes that wait are committed before the thread ends; then none is taken."""
        writer = self.writer(batch=10)
        held = await self.hold(writer)
        waiting = [start(writer.submit(insert(i))) for i in range(45)]
        stopping = start(writer.stop())
        (late,) = await gather([writer.submit(insert(99))])
        self.assertIsInstance(late, MetadataUnavailable)
        self.gate.set()
        await stopping
        await held
        self.assertEqual(await gather(waiting), list(range(45)))
        names = [thread.name for thread in threading.enumerate()]
        self.assertNotIn("metadata-writer", names)

    async def test_a_cancelled_write_hurts_no_other(self) -> None:
        """Its caller is let go; it is written all the same, as are the others."""
        writer = self.writer()
        held = await self.hold(writer)
        first, second = (start(writer.submit(insert(i))) for i in (1, 2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.gate.set()
        await held
        self.assertEqual(await second, 2)
        self.assertEqual(self.db.execute("SELECT count(*) FROM t").fetchone(), (2,))

    async def test_inline(self) -> None:
        """The inline writer commits at once, and refuses when it is stopped."""
        writer = InlineWriter()
        writer.start(self.db, nothing)
        self.assertEqual(await writer.submit(insert(1)), 1)
        (outcome,) = await gather([writer.submit(refuse)])
        self.assertIsInstance(outcome, NotFound)
        await writer.stop()
        (outcome,) = await gather([writer.submit(insert(2))])
        self.assertIsInstance(outcome, MetadataUnavailable)
        self.assertEqual(self.db.execute("SELECT v FROM t").fetchall(), [(1,)])
