"""Connections for pages: one for each thread that reads at the same time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

from ostore.model.errors import MetadataUnavailable

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """Owns the connections it lends to `run`, from the first one to `close`.

    `run` is called in worker threads and opens as many connections as there are threads
    at most; one that failed is not used again. `close` waits for nobody, what is still
    lent closes on return.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def run(
        self,
        query: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What `query` reads, all from one snapshot."""
        with self._lock:
            if self._closed:
                raise MetadataUnavailable("the metadata store is closed")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            connection.execute("BEGIN")
            found = query(connection, *args, **kwargs)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._back(connection)
        return found

    def close(self) -> None:
        """Close what is not lent; nothing is lent any more."""
        with self._lock:
            self._closed = True
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)
