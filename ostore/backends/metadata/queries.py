"""What reads the store: functions over one connection, each a few index steps."""

from __future__ import annotations

import json
import sqlite3

from ostore.backends.metadata.rows import COLUMNS, indices, successor, version_of
from ostore.model.layouts import Layout
from ostore.model.versions import ClusterFacts, Degraded, Lease, Note, Page, Version

MARKS = 10_000
"""About as many marks does one answer of `degraded` carry in all."""

MARKS_EACH = 1000
"""The most marks of one content in it; the others show when these are cleared."""

_END = b""
"""Behind every text: SQLite sorts a blob so."""

_BY_NAME = f"SELECT {COLUMNS} FROM version WHERE bucket = ? AND name = ?"  # noqa: S608 - a constant
_LATEST = f"{_BY_NAME} ORDER BY number DESC LIMIT 1"
_VERSION = f"{_BY_NAME} AND number = ?"
_BY_PUT_ID = f"{_BY_NAME} AND put_id = ?"
_VERSIONS_OF = f"{_BY_NAME} AND number > ? ORDER BY number LIMIT ?"
_ALL_VERSIONS = f"""
    SELECT {COLUMNS} FROM version WHERE bucket = ? AND (name, number) > (?, ?)
    ORDER BY name, number LIMIT ?
"""  # noqa: S608 - a constant
_CONTENT = f"SELECT {COLUMNS} FROM version WHERE hash = ? AND deleted = 0 LIMIT 1"  # noqa: S608 - a constant
_LISTING = f"""
    SELECT {", ".join("version." + c for c in COLUMNS.split(", "))}
    FROM head INDEXED BY head_live CROSS JOIN version
    ON version.bucket = head.bucket AND version.name = head.name
        AND version.number = head.latest
    WHERE head.bucket = ? AND head.live = 1 AND head.name >= ? AND head.name < ?
    ORDER BY head.name LIMIT ?
"""  # noqa: S608 - a constant
_NAMES = """
    SELECT name FROM head INDEXED BY head_live
    WHERE bucket = ? AND live = 1 AND name >= ? AND name < ? ORDER BY name LIMIT ?
"""
_HASHES = """
    WITH RECURSIVE step (hash) AS (
        SELECT min(hash) FROM version WHERE deleted = 0 AND hash > ?
        UNION ALL
        SELECT (SELECT min(hash) FROM version WHERE deleted = 0 AND hash > step.hash)
        FROM step WHERE step.hash IS NOT NULL
    )
    SELECT hash FROM step WHERE hash IS NOT NULL LIMIT ?
"""
_DEGRADED = """
    SELECT hash, layout, missing FROM degraded
    WHERE (remaining, hash, layout) > (?, ?, ?)
    ORDER BY remaining, hash, layout LIMIT ?
"""
_REMAINING = "SELECT remaining FROM degraded WHERE hash = ? AND layout = ?"
_MARKS = """
    SELECT bucket, name, number, data, parity, raw FROM version
    WHERE hash = ? AND layout = ? AND missing <> 0 LIMIT ?
"""
_CLUSTER = "SELECT key, value FROM meta WHERE key IN ('cluster id', 'cluster epoch')"

_META = "SELECT value FROM meta WHERE key = ?"


def latest(db: sqlite3.Connection, bucket: str, name: str) -> Version | None:
    """The newest version of a name."""
    return _maybe(db, _LATEST, bucket, name)


def version(
    db: sqlite3.Connection, bucket: str, name: str, number: int
) -> Version | None:
    """One version of a name."""
    return _maybe(db, _VERSION, bucket, name, number)


def by_put_id(
    db: sqlite3.Connection, bucket: str, name: str, put_id: str
) -> Version | None:
    """The version that a put_id made."""
    return _maybe(db, _BY_PUT_ID, bucket, name, put_id)


def content(db: sqlite3.Connection, hash: str) -> Version | None:
    """Any version that refers to a content."""
    return _maybe(db, _CONTENT, hash)


def versions_of(
    db: sqlite3.Connection, bucket: str, name: str, after: int, limit: int
) -> list[Version]:
    """A page of one name's versions."""
    return _all(db, _VERSIONS_OF, bucket, name, after, limit)


def all_versions(
    db: sqlite3.Connection, bucket: str, name: str, number: int, limit: int
) -> list[Version]:
    """A page of a bucket's versions behind (name, number)."""
    return _all(db, _ALL_VERSIONS, bucket, name, number, limit)


def listing(
    db: sqlite3.Connection,
    bucket: str,
    prefix: str,
    delimiter: str,
    after: str,
    limit: int,
) -> Page:
    """The first `limit` entries (items and prefixes) that are greater than `after`.

    `next` is the last entry of a page that others follow. A prefix is an entry of its
    own text: `after` = "a/" or "a/b" are both behind the entry "a/", and so behind
    everything in it. What a prefix holds is passed over in one step.
    """
    items: list[Version] = []
    prefixes: list[str] = []
    end = successor(prefix) or _END
    low = first(prefix, delimiter, after)
    last = after
    while low is not None:
        room = limit - len(items) - len(prefixes)
        found, low = _names(db, (bucket, low, end, room + 1), prefix, delimiter)
        if shown := found[:room]:
            span = (bucket, shown[0], shown[-1] + "\0", room)
            items += map(version_of, db.execute(_LISTING, span))
            last = shown[-1]
        if len(found) > room or (low is not None and len(found) == room):
            return Page(tuple(items), tuple(prefixes), last)
        if low is not None:
            prefixes.append(low)
            last, low = low, successor(low)
    return Page(tuple(items), tuple(prefixes))


def _names(
    db: sqlite3.Connection,
    asked: tuple[str, str, str | bytes, int],
    prefix: str,
    delimiter: str,
) -> tuple[list[str], str | None]:
    """Live names up to the first that is rolled up, and what stands for that one.

    The versions are left alone: of a folder's content no more than a name is read.
    """
    found: list[str] = []
    for (name,) in db.execute(_NAMES, asked):
        folder = rolled_up(name, prefix, delimiter)
        if folder is not None:
            return found, folder
        found.append(name)
    return found, None


def first(prefix: str, delimiter: str, after: str) -> str | None:
    """The least name that can belong to an entry greater than `after`."""
    if after.startswith(prefix):
        folder = rolled_up(after, prefix, delimiter)
        if folder is not None:
            return successor(folder)
    return max(prefix, after + "\0") if after else prefix


def rolled_up(name: str, prefix: str, delimiter: str) -> str | None:
    """The prefix that stands for the name in a listing, if one does."""
    found = name.find(delimiter, len(prefix)) if delimiter else -1
    return None if found < 0 else name[: found + len(delimiter)]


def hashes(db: sqlite3.Connection, after: str, limit: int) -> list[str]:
    """Distinct contents; one index step each, however many versions share it."""
    return [hash for (hash,) in db.execute(_HASHES, (after, limit))]


def degraded(
    db: sqlite3.Connection, after: str, remaining: int | None, limit: int
) -> list[Degraded]:
    """A page of incomplete contents behind the cursor `after`.

    `remaining` is the number of shards it had left when it was shown; None takes the
    present one, and begins anew when the content is complete by now.
    """
    position = (-1, "", "")
    if after:
        hash, _, layout = after.partition("/")
        if remaining is None:
            found = db.execute(_REMAINING, (hash, layout)).fetchall()
            remaining = found[0][0] if found else None
        if remaining is not None:
            position = (remaining, hash, layout)
    marks = max(10, MARKS // max(limit, 1))
    return [
        _degraded(db, hash, layout, missing, marks)
        for hash, layout, missing in db.execute(_DEGRADED, (*position, limit))
    ]


def _degraded(
    db: sqlite3.Connection, hash: str, layout: str, missing: int, limit: int
) -> Degraded:
    rows = db.execute(_MARKS, (hash, layout, min(limit, MARKS_EACH))).fetchall()
    data, parity, raw = rows[0][3:]
    return Degraded(
        hash,
        Layout(data, parity, raw, layout),
        indices(missing),
        tuple(row[:3] for row in rows),
    )


def cluster(db: sqlite3.Connection) -> ClusterFacts | None:
    """Id and epoch, once they are set."""
    found = dict(db.execute(_CLUSTER).fetchall())
    if not found:
        return None
    return ClusterFacts(found["cluster id"], int(found["cluster epoch"]))


def lease(db: sqlite3.Connection) -> Lease | None:
    """The lease that stands, or has run out."""
    found = db.execute(_META, ("lease",)).fetchall()
    return Lease(**json.loads(found[0][0])) if found else None


def note(db: sqlite3.Connection, key: str) -> Note | None:
    """A small document; its mark counts its changes."""
    found = db.execute(_META, (f"note {key}",)).fetchall()
    if not found:
        return None
    mark, _, text = found[0][0].partition(" ")
    return Note(json.loads(text), mark)


def _maybe(db: sqlite3.Connection, query: str, *values: str | int) -> Version | None:
    # All rows are fetched: a statement left half-way would hold its snapshot.
    rows = db.execute(query, values).fetchall()
    return version_of(rows[0]) if rows else None


def _all(db: sqlite3.Connection, query: str, *values: str | int) -> list[Version]:
    return [version_of(row) for row in db.execute(query, values)]
