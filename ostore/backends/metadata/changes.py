"""What changes the store: functions that run inside the writer's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from ostore.backends.metadata import queries
from ostore.backends.metadata.rows import COLUMNS, bits, indices, row_of, version_of
from ostore.model.errors import NotFound
from ostore.model.versions import ClusterFacts, Lease, NewVersion, Version

_HEAD = "SELECT high, created FROM head WHERE bucket = ? AND name = ?"
_INSERT = f"INSERT INTO version ({COLUMNS}) VALUES ({', '.join('?' * 14)})"  # noqa: S608 - constants
_SET_HEAD = "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?)"
_DELETE = """
    DELETE FROM version WHERE bucket = ? AND name = ? AND number = ?
    RETURNING hash, layout, missing
"""
_LATEST_HEAD = "UPDATE head SET latest = ?, live = ? WHERE bucket = ? AND name = ?"
_MARK = """
    UPDATE version SET missing = missing | ?
    WHERE bucket = ? AND name = ? AND number = ? AND layout IS NOT NULL
    RETURNING hash, layout
"""
_UNMARK = """
    UPDATE version SET missing = 0
    WHERE bucket = ? AND name = ? AND number = ? AND missing <> 0
    RETURNING hash, layout
"""
_NEXT_MARK = """
    SELECT missing, data + parity FROM version
    WHERE hash = ? AND layout = ? AND missing <> 0 AND missing > ?
    ORDER BY missing LIMIT 1
"""
_SET_DEGRADED = "INSERT OR REPLACE INTO degraded VALUES (?, ?, ?, ?)"
_DELETE_DEGRADED = "DELETE FROM degraded WHERE hash = ? AND layout = ?"
_SET_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_DELETE_META = "DELETE FROM meta WHERE key = ?"


def add_version(
    db: sqlite3.Connection, new: NewVersion, wall: Callable[[], float]
) -> Version:
    """Write the next version, or find the one that this put_id made.

    What there is not to delete is NotFound whatever the condition says, as RFC 9110
    section 13.2.1 asks.
    """
    made = queries.by_put_id(db, new.bucket, new.name, new.put_id)
    if made is not None:
        return made
    below = queries.latest(db, new.bucket, new.name)
    etag = None if below is None or below.deleted else below.hash
    if new.deleted and etag is None:
        raise NotFound("there is nothing to delete")
    new.condition.check(etag, None if below is None else below.created / 1000)

    key = (new.bucket, new.name)
    head = db.execute(_HEAD, key).fetchall()
    high, before = head[0] if head else (0, 0)
    number, created = high + 1, max(int(wall() * 1000), before + 1)
    row = row_of(new, number, created)
    db.execute(_INSERT, row)
    db.execute(_SET_HEAD, (*key, number, created, number, int(not new.deleted)))
    if new.degraded and new.layout is not None:
        _weigh(db, new.hash, new.layout.id)
    return version_of(row)


def purge(db: sqlite3.Connection, bucket: str, name: str, number: int) -> bool:
    """Remove one version; the newest that is left is the latest from now on."""
    gone = db.execute(_DELETE, (bucket, name, number)).fetchall()
    if not gone:
        return False
    below = queries.latest(db, bucket, name)
    latest, live = (0, 0) if below is None else (below.number, int(not below.deleted))
    db.execute(_LATEST_HEAD, (latest, live, bucket, name))
    hash, layout, missing = gone[0]
    if missing:
        _weigh(db, hash, layout)
    return True


def mark_degraded(
    db: sqlite3.Connection,
    marks: Sequence[tuple[str, str, int]],
    missing: Sequence[int],
) -> None:
    """Mark these versions, and weigh their contents anew."""
    touched: set[tuple[str, str]] = set()
    for mark in marks:
        touched.update(db.execute(_MARK, (bits(missing), *mark)).fetchall())
    for content in touched:
        _weigh(db, *content)


def clear_degraded(
    db: sqlite3.Connection, marks: Sequence[tuple[str, str, int]]
) -> None:
    """Unmark these versions, and weigh their contents anew."""
    touched: set[tuple[str, str]] = set()
    for mark in marks:
        touched.update(db.execute(_UNMARK, mark).fetchall())
    for content in touched:
        _weigh(db, *content)


def create_cluster(db: sqlite3.Connection, facts: ClusterFacts) -> ClusterFacts:
    """Set id and epoch unless they are set."""
    standing = queries.cluster(db)
    if standing is not None:
        return standing
    db.execute(_SET_META, ("cluster id", facts.id))
    db.execute(_SET_META, ("cluster epoch", str(facts.epoch)))
    return facts


def lease(
    db: sqlite3.Connection, owner: str, seconds: float, wall: Callable[[], float]
) -> Lease | None:
    """Take or renew the lease; a change of hands raises the epoch with it."""
    facts, standing = queries.cluster(db), queries.lease(db)
    if facts is None:
        return None
    now = wall()
    ours = standing is not None and standing.owner == owner
    if standing is not None and not ours and standing.until > now:
        return None
    taken = Lease(owner, facts.epoch + (not ours), now + seconds)
    db.execute(_SET_META, ("cluster epoch", str(taken.epoch)))
    db.execute(_SET_META, ("lease", json.dumps(attrs.asdict(taken))))
    return taken


def release(db: sqlite3.Connection, owner: str | None) -> None:
    """Drop the lease, if it is that owner's; without an owner whosever it is."""
    standing = queries.lease(db)
    if standing is not None and owner in (None, standing.owner):
        db.execute(_DELETE_META, ("lease",))


def set_note(
    db: sqlite3.Connection, key: str, value: Mapping[str, Any], mark: str
) -> bool:
    """Replace the note that bears the mark; an empty mark is that of none."""
    standing = queries.note(db, key)
    if mark != ("" if standing is None else standing.mark):
        return False
    text = f"{int(mark or 0) + 1} {json.dumps(value, separators=(',', ':'))}"
    db.execute(_SET_META, (f"note {key}", text))
    return True


def _weigh(db: sqlite3.Connection, hash: str, layout: str) -> None:
    """Bring `degraded` up to what the versions say: all that any of them misses.

    Steps from one set of missing shards to the next, however many versions share it.
    """
    missing = seen = shards = 0
    while row := db.execute(_NEXT_MARK, (hash, layout, seen)).fetchall():
        seen, shards = row[0]
        missing |= seen
    if missing:
        left = shards - len(indices(missing))
        db.execute(_SET_DEGRADED, (hash, layout, missing, left))
    else:
        db.execute(_DELETE_DEGRADED, (hash, layout))
