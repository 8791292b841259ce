"""The SQLite file: its tables, how it is opened, and which files are refused.

    version    one row a version; the columns from `owner` on are kept for later
    head       one row a name that ever was: it stays when all versions are gone, so
               that no number is used twice and `created` always grows
    degraded   one row for each (hash, layout) that a version marks as incomplete
    meta       schema number, cluster id, epoch, the lease, and a row each for notes

Text compares as BINARY, which is the order of UTF-8 bytes. Shard indices are sets of
bits: bit i of `missing` stands for shard i.
"""

from __future__ import annotations

import sqlite3

from ostore.model.errors import MetadataUnavailable, NoSpace, OstoreError, Refused

APPLICATION = 0x6F737472
"""`PRAGMA application_id`: the letters "ostr"."""

OLDEST = (3, 37)
"""The first SQLite with STRICT tables."""

SCHEMA = 1
"""The schema that this code reads and writes."""

_TABLES = f"""
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE head (
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    high INTEGER NOT NULL,
    created INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (bucket, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX head_live ON head (bucket, name, latest) WHERE live = 1;

CREATE TABLE version (
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    put_id TEXT NOT NULL,
    headers TEXT NOT NULL,
    data INTEGER,
    parity INTEGER,
    raw INTEGER,
    layout TEXT,
    missing INTEGER NOT NULL,
    owner TEXT,
    tags TEXT,
    lock_until INTEGER,
    expires INTEGER,
    checksums TEXT,
    parts TEXT,
    PRIMARY KEY (bucket, name, number)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX version_put ON version (bucket, name, put_id);
CREATE INDEX version_hash ON version (hash) WHERE deleted = 0;
CREATE INDEX version_degraded ON version (hash, layout, missing) WHERE missing <> 0;

CREATE TABLE degraded (
    hash TEXT NOT NULL,
    layout TEXT NOT NULL,
    missing INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    PRIMARY KEY (hash, layout)
) STRICT, WITHOUT ROWID;
CREATE INDEX degraded_worst ON degraded (remaining, hash, layout);

INSERT INTO meta VALUES ('schema', '{SCHEMA}');
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
"""  # noqa: S608 - constants

_BUSY_SECONDS = 5
_CACHE_KIB = 8192
_WAL_KEPT = 64 << 20
_ROOM = 1 << 20
"""Bytes that file and log have ahead from the start on."""
_MAKE_ROOM = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS room;
CREATE TABLE room (bytes BLOB);
INSERT INTO room VALUES (zeroblob({_ROOM}));
COMMIT;
DROP TABLE room;
"""  # noqa: S608 - constants


def connect(path: str, *, durable: bool) -> sqlite3.Connection:
    """A connection that opens no transaction by itself; one thread at a time.

    `durable` syncs at every commit; without it a power cut may take the last
    commits, but never leaves a broken file.
    """
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    for pragma in (
        f"synchronous = {'FULL' if durable else 'NORMAL'}",
        f"fullfsync = {int(durable)}",
        f"cache_size = -{_CACHE_KIB}",
        f"journal_size_limit = {_WAL_KEPT}",
        "temp_store = MEMORY",
        "trusted_schema = OFF",
        "cell_size_check = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables in a new file; Refused for a foreign or newer one."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise Refused(
            f"{path} needs SQLite 3.37 or newer; this is {sqlite3.sqlite_version}"
        )
    new = _recognise(connection, path)
    if _one(connection, "PRAGMA journal_mode = WAL") != "wal":
        raise Refused(f"{path} lies on a file system that allows no write-ahead log")
    if new:
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
    for table in ("meta", "head", "version", "degraded"):
        connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()  # noqa: S608 - constants


def make_room(connection: sqlite3.Connection) -> None:
    """Let file and log grow ahead, so that deletions still fit on a full disk.

    On a disk that is full already it does nothing.
    """
    try:
        connection.executescript(_MAKE_ROOM)
        start_log_anew(connection)
    except sqlite3.Error as error:
        connection.rollback()
        if _primary(error) != sqlite3.SQLITE_FULL:
            raise


def start_log_anew(connection: sqlite3.Connection) -> None:
    """Bring the log's pages home: what is written next takes its room again."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _recognise(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the file is still empty; changes nothing."""
    application = _one(connection, "PRAGMA application_id")
    tables = _one(connection, "SELECT count(*) FROM sqlite_schema")
    if application == 0 and tables == 0:
        return True
    if application != APPLICATION:
        raise Refused(f"{path} is a database of another program")
    schema = int(_one(connection, "SELECT value FROM meta WHERE key = 'schema'"))
    if schema > SCHEMA:
        raise Refused(
            f"{path} has schema {schema}, written by a newer ostore; "
            f"this one reads up to schema {SCHEMA}"
        )
    return False


def _one(connection: sqlite3.Connection, query: str) -> str | int:
    rows: list[tuple[str | int]] = connection.execute(query).fetchall()
    return rows[0][0]


def unusable(error: sqlite3.Error, path: str) -> Refused:
    """Why a file could not be opened, in one line."""
    match _primary(error):
        case sqlite3.SQLITE_NOTADB:
            return Refused(f"{path} is not a metadata database")
        case sqlite3.SQLITE_CORRUPT:
            return Refused(f"{path} is damaged: {error}")
        case _:
            return Refused(f"{path} cannot be opened: {error}")


def translate(error: sqlite3.Error) -> OstoreError:
    """What a failed statement means to the caller."""
    if _primary(error) == sqlite3.SQLITE_FULL:
        return NoSpace("the metadata store's disk is full")
    return MetadataUnavailable("the metadata store failed")


def _primary(error: sqlite3.Error) -> int:
    """The primary result code; 0 for errors of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
