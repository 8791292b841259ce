"""One writer: changes wait in line and are committed together."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.backends.metadata.schema import start_log_anew, translate
from ostore.model.errors import MetadataUnavailable, NoSpace, OutcomeUnknown

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]

_log = Logger()


class Writer(Protocol):
    """Runs changes one after the other, each in a transaction that is committed."""

    def start(self, connection: sqlite3.Connection, check: Callable[[], None]) -> None:
        """Begin; `check` raises when a commit must not be acknowledged."""

    async def stop(self) -> None:
        """Finish what was accepted; the connection is the caller's again."""

    async def submit(self, change: Change[T]) -> T:
        """What `change` returns or raises, once its transaction is durable."""
        ...


@attrs.define(eq=False)
class _Waiting:
    change: Change[Any]
    result: Deferred[Any]


class ThreadWriter:
    """Writes in a thread of its own; whatever waits meanwhile is one commit.

    Everything but `_work` runs in the reactor. One change alone is committed at
    once. At most `limit` changes wait, at most `batch` share a commit.
    """

    def __init__(
        self, reactor: IReactorFromThreads, limit: int = 10_000, batch: int = 256
    ) -> None:
        self._reactor = reactor
        self._limit = limit
        self._batch = batch
        self._waiting = 0
        self._line: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._ended: Deferred[None] | None = None

    def start(self, connection: sqlite3.Connection, check: Callable[[], None]) -> None:
        """Start the thread."""
        self._ended = Deferred()
        self._thread = threading.Thread(
            target=self._work,
            args=(connection, check, self._ended),
            name="metadata-writer",
            daemon=True,
        )
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was accepted, then end the thread."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._line.put(None)
            await ended
            self._thread.join()

    async def submit(self, change: Change[T]) -> T:
        """What `change` returns or raises; it goes on when the caller is cancelled.

        Raises MetadataUnavailable when too many wait.
        """
        if self._ended is None:
            raise MetadataUnavailable("the metadata store is closed")
        if self._waiting >= self._limit:
            raise MetadataUnavailable("too many writes wait for the metadata store")
        self._waiting += 1
        result: Deferred[T] = Deferred()
        self._line.put(_Waiting(change, result))
        return await result

    def _work(
        self,
        connection: sqlite3.Connection,
        check: Callable[[], None],
        ended: Deferred[None],
    ) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if batch:
                outcomes = commit(connection, [each.change for each in batch], check)
                self._reactor.callFromThread(self._deliver, batch, outcomes)
        self._reactor.callFromThread(ended.callback, None)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """The next changes, waiting for the first; and whether they are the last."""
        batch: list[_Waiting] = []
        try:
            item = self._line.get()
            while item is not None:
                batch.append(item)
                if len(batch) == self._batch:
                    return batch, False
                item = self._line.get_nowait()
        except Empty:
            return batch, False
        return batch, True

    def _deliver(self, batch: list[_Waiting], outcomes: Sequence[object]) -> None:
        self._waiting -= len(batch)
        for each, outcome in zip(batch, outcomes, strict=True):
            each.result.callback(outcome)  # a Failure takes the way of an error


class InlineWriter:
    """Writes at once, in the caller: tests and the simulator."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    def start(self, connection: sqlite3.Connection, check: Callable[[], None]) -> None:
        """Take the connection."""
        self._connection, self._check = connection, check

    async def stop(self) -> None:
        """Give the connection back."""
        self._connection = None

    async def submit(self, change: Change[T]) -> T:
        """What `change` returns or raises."""
        if self._connection is None:
            raise MetadataUnavailable("the metadata store is closed")
        (outcome,) = commit(self._connection, [change], self._check)
        if isinstance(outcome, Failure):
            outcome.raiseException()
        result: T = outcome
        return result


def commit(
    connection: sqlite3.Connection,
    changes: Sequence[Change[Any]],
    check: Callable[[], None],
) -> list[Any]:
    """Run all in one transaction, in order; their results, a Failure for an error.

    A change that raises is undone and hurts no other. When the transaction itself
    fails, all fail: with NoSpace or MetadataUnavailable before the COMMIT, with
    OutcomeUnknown in it, for the log may hold what could not be synced. A log that
    cannot grow is begun anew, once.
    """
    outcomes = _commit(connection, changes, check)
    if isinstance(outcomes, NoSpace) and _begun_anew(connection):
        outcomes = _commit(connection, changes, check)
    if isinstance(outcomes, Exception):
        return [_failure(outcomes)] * len(changes)
    return outcomes


def _commit(
    connection: sqlite3.Connection,
    changes: Sequence[Change[Any]],
    check: Callable[[], None],
) -> list[Any] | Exception:
    committing = False
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_apply(connection, change) for change in changes]
        committing = True
        connection.execute("COMMIT")
        check()
    except Exception as error:  # noqa: BLE001 - handed to everyone who waits
        _log.error("a metadata transaction failed: {error}", error=error)
        _roll_back(connection)
        return _fate(error, committing)
    return outcomes


def _begun_anew(connection: sqlite3.Connection) -> bool:
    try:
        start_log_anew(connection)
    except sqlite3.Error as error:
        _log.error("the log could not be emptied: {error}", error=error)
        return False
    return True


def _fate(error: Exception, committing: bool) -> Exception:
    if not isinstance(error, sqlite3.Error):
        return error
    failed = translate(error)
    if committing and not isinstance(failed, NoSpace):
        return OutcomeUnknown("the write may yet appear")
    return failed


def _apply(connection: sqlite3.Connection, change: Change[Any]) -> Any:
    connection.execute("SAVEPOINT change")
    try:
        outcome = change(connection)
    except Exception as error:
        if not connection.in_transaction:
            raise  # SQLite itself has undone everything
        connection.execute("ROLLBACK TO change")
        if isinstance(error, sqlite3.Error):
            _log.error("a metadata write failed: {error}", error=error)
            error = translate(error)
        outcome = _failure(error)
    connection.execute("RELEASE change")
    return outcome


def _failure(error: Exception) -> Failure:
    return Failure(error)  # type: ignore[no-untyped-call] # as Twisted leaves it


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        connection.rollback()
    except sqlite3.Error as error:
        _log.error("a metadata transaction was not undone: {error}", error=error)
