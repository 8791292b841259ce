"""Shards in the segment log, by the names that the store knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ostore.backends.shards.files import Files
from ostore.backends.shards.ledger import Ledger
from ostore.backends.shards.new import NewShard
from ostore.backends.shards.reading import Opened, Source
from ostore.backends.shards.segments.form import (
    MARK_SIZE,
    RECORD,
    STANDING,
    Flawed,
    Kind,
    Row,
    parse_record,
)
from ostore.backends.shards.segments.log import SegmentLog
from ostore.backends.shards.segments.writer import Done, Entry
from ostore.erasure.checksums import crc32c
from ostore.erasure.framing import Frame
from ostore.erasure.geometry import Buffer
from ostore.erasure.shardfile import (
    FOOTER_SIZE,
    PROLOGUE,
    check_prologue,
    parse_footer,
    parse_index,
)
from ostore.erasure.single import single_frame
from ostore.model.errors import ShardError, ShardMissing, ShardRotten
from ostore.model.layouts import ShardFacts, ShardKey
from ostore.streaming.clock import Clock

Looked = tuple[Sequence[ShardFacts], Sequence[tuple[Row, bool]]]
"""Facts of whole ones; of the others whether they are there, but rotten."""


class PackedShards:
    """What a store does with shards that are records; owned by it.

    What changes one is called in the content's turn. Until the log was loaded it is not
    `known` what is here, and nothing can be changed: NodeUnreachable.
    """

    def __init__(self, log: SegmentLog, clock: Clock) -> None:
        self.ledger = Ledger()
        """The store's; it gives another one with each count."""
        self._log = log
        self._clock = clock

    @property
    def known(self) -> bool:
        """Whether every shard is known."""
        return self._log.loaded

    def __len__(self) -> int:
        return self._log.rows.standing

    async def any(self) -> bool:
        """Whether any shard is here, garbage included; looks at the disk if need be."""
        return self._log.rows.total > 0 if self.known else await self._log.any()

    def hashes(self, after: str) -> Iterator[str]:
        """Contents with a hash greater than `after`, ascending."""
        for hash in self._log.rows.hashes(bytes.fromhex(after)):
            if any(row.kind != Kind.DELETE for row in self._log.rows.of(hash)):
                yield hash.hex()

    def without(self, hash: str) -> bool:
        """Whether it is known that there is nothing of that content."""
        return self._log.loaded and not self._log.rows.holds(bytes.fromhex(hash))

    def keys(self, hash: str, *, bad: bool = False) -> list[ShardKey]:
        """The shards of a content outside garbage; the bad ones only with `bad`."""
        return [row.key for row in self._standing(hash) if bad or not self._bad(row)]

    def facts(self, hash: str) -> list[ShardFacts]:
        """All that is here of a content, garbage included."""
        now = self._clock.wall()
        found = self._log.rows.of(bytes.fromhex(hash))
        return [
            row._replace(kind=Kind.BAD).facts(now)
            if row.kind in STANDING and self._bad(row)
            else row.facts(now)
            for row in sorted(found, key=lambda row: (row.number, row.birth))
            if row.kind != Kind.DELETE
        ]

    def younger(self, key: ShardKey, age: float) -> bool:
        """Whether it stands here, and not for so long."""
        since = self._clock.wall() - age
        return any(row.time > since for row in self._named(key))

    # Reading

    async def find(self, hash: str) -> Looked:
        """Open those that are not known to be bad, and check their heads."""
        found: list[ShardFacts] = []
        doubtful: list[tuple[Row, bool]] = []
        for row in self._standing(hash):
            if self._bad(row):
                continue
            try:
                _check(await self._log.fetch(row, RECORD.size), row)
                found.append(row.facts(self._clock.wall()))
            except (ShardMissing, ShardRotten) as error:
                doubtful.append((row, isinstance(error, ShardRotten)))
        return found, doubtful

    async def settled(self, hash: str) -> Sequence[ShardFacts]:
        """The same; what is not whole is struck off. In turn."""
        found, doubtful = await self.find(hash)
        for row, rotten in doubtful:
            self._doubt(row, rotten=rotten)
        return found

    async def open(self, key: ShardKey, *, bad: bool) -> Opened | None:
        """One shard with all its bytes, or None when it is not among these.

        One that is bad only with `bad`. Raises ShardRotten, ShardMissing, and notes it.
        """
        named = self._named(key)
        if not named:
            return None
        row = named[0]
        if not bad and self._bad(row):
            raise ShardRotten("the shard was found rotten before")
        try:
            payload = await self._payload(row, damaged=bad)
            facts = row.facts(self._clock.wall())
            return _opened(self._log.files, payload, key, facts)
        except (ShardMissing, ShardRotten) as error:
            self._doubt(row, rotten=isinstance(error, ShardRotten))
            raise

    def glance(self, key: ShardKey) -> Frame | None:
        """The block of a shard of one stripe, if it is here, right and in memory.

        None says nothing: open() tells what is wrong, if anything is.
        """
        named = self._named(key) if self._log.loaded else ()
        if len(named) != 1 or self._bad(named[0]):
            return None
        row = named[0]
        try:
            data = self._log.at_hand(row, row.span)
            if data is None:
                return None
            view = memoryview(data)
            if crc32c(view[RECORD.size :]) != _check(view[: RECORD.size], row):
                return None
        except ShardError:
            return None
        return single_frame(key, view[RECORD.size :])

    # Changing

    async def put(self, new: NewShard) -> None:
        """Add a shard, or renew the one that stands; a bad one goes to garbage."""
        standing = self._named(new.key)
        if standing and await self.refresh(new.key, new.deadline):
            return
        now = self._clock.wall()
        entries = [_change(old, Kind.GARBAGE, now) for old in standing]
        await self._log.append([*entries, _entry(new, now)], new.deadline)

    def add(self, new: NewShard, done: Done) -> None:
        """Add a shard of a content of which nothing is here; see SegmentLog.add()."""
        self._log.add([_entry(new, self._clock.wall())], new.deadline, done)

    async def refresh(self, key: ShardKey, deadline: float | None = None) -> bool:
        """Give it a new age if it stands, and every byte is right."""
        for row in self._named(key):
            if not self._bad(row) and await self._whole(row):
                now = self._clock.wall()
                await self._log.append([_change(row, Kind.RENEW, now)], deadline)
                return True
        return False

    async def renew(self, hash: str, layout: str) -> Sequence[ShardFacts]:
        """Give a new age to the shards of a layout that can be opened; those."""
        found = await self.settled(hash)
        keys = {facts.key for facts in found if facts.layout.id == layout}
        if not keys:
            return ()
        now = self._clock.wall()
        rows = [row for row in self._standing(hash) if row.key in keys]
        await self._log.append([_change(row, Kind.RENEW, now) for row in rows])
        return [row._replace(time=now).facts(now) for row in rows]

    async def give_back(
        self, hash: str, layout: str | None, standing: set[ShardKey], *, fresh: bool
    ) -> Sequence[ShardKey]:
        """Bring back from garbage what is whole and does not stand; gives the names.

        `fresh`: with a new age.
        """
        garbage = [
            row
            for row in self._log.rows.of(bytes.fromhex(hash))
            if row.kind == Kind.GARBAGE
            and row.key not in standing
            and layout in (None, row.key.layout)
        ]
        garbage.sort(key=lambda row: (row.name, row.birth))
        now = self._clock.wall()
        given: list[Entry] = []
        for _, copies in groupby(garbage, key=lambda row: row.name):
            for row in copies:
                if await self._whole(row):
                    moment = now if fresh else row.time
                    given.append(_change(row, Kind.RESTORE, moment))
                    break
        if given:
            await self._log.append(given)
        return [each.row.key for each in given]

    async def discard(self, key: ShardKey) -> bool:
        """Move it to garbage, its age beginning anew; False when it is not here."""
        now = self._clock.wall()
        changes = [_change(row, Kind.GARBAGE, now) for row in self._named(key)]
        if changes:
            await self._log.append(changes)
        return bool(changes)

    async def erase(self, key: ShardKey, age: float) -> int:
        """Remove for good what garbage has of it and is so old: bytes freed."""
        now = self._clock.wall()
        gone = [
            row
            for row in self._log.rows.of(bytes.fromhex(key.hash))
            if row.kind == Kind.GARBAGE and row.key == key and now - row.time >= age
        ]
        if gone:
            await self._log.append([_change(row, Kind.DELETE, now) for row in gone])
        return sum(row.span for row in gone)

    # Its own

    def _standing(self, hash: str) -> list[Row]:
        rows = self._log.rows.of(bytes.fromhex(hash))
        return [row for row in rows if row.kind in STANDING]

    def _named(self, key: ShardKey) -> list[Row]:
        layout = bytes.fromhex(key.layout)
        return [
            row
            for row in self._standing(key.hash)
            if row.number == key.index and row.layout == layout
        ]

    def _bad(self, row: Row) -> bool:
        bad = self.ledger.bad
        return row.kind == Kind.BAD or (bool(bad) and row.key in bad)

    def _doubt(self, row: Row, *, rotten: bool) -> None:
        if rotten:
            self.ledger.rot(row.key)
        elif self._log.rows.get(row.hash, row.birth) is not None:
            self._log.rows.remove(row)
            self.ledger.lost += 1

    async def _whole(self, row: Row) -> bool:
        try:
            await self._payload(row)
        except (ShardMissing, ShardRotten):
            return False
        return True

    async def _payload(self, row: Row, *, damaged: bool = False) -> Buffer:
        """The shard file's bytes; with `damaged` also when some of them are not right.

        Raises ShardMissing, ShardRotten.
        """
        data = memoryview(await self._log.fetch(row, row.span))
        payload = data[RECORD.size :]
        try:
            crc = _check(data[: RECORD.size], row)
            if crc32c(payload) != crc:
                raise ShardRotten("a record differs from its checksum")
        except ShardRotten:
            if not damaged:
                raise
        return payload


def _entry(new: NewShard, now: float) -> Entry:
    key, layout = new.key, new.layout
    row = Row(
        bytes.fromhex(key.hash),
        bytes.fromhex(key.layout),
        0,
        0,
        now - new.age,
        0,
        0,
        0,
        layout.size,
        key.index,
        layout.data,
        layout.parity,
        Kind.PUT,
    )
    return Entry(row, new.parts)


def _change(row: Row, kind: Kind, moment: float) -> Entry:
    return Entry(row._replace(kind=kind, time=moment))


def _check(head: Buffer, row: Row) -> int:
    """The crc of the payload, if that is the row's record. Raises ShardRotten."""
    try:
        found, crc = parse_record(head, bytes(head[:MARK_SIZE]), row.offset)
    except Flawed as error:
        raise ShardRotten(str(error)) from error
    if (found.name, found.birth) != (row.name, row.birth):
        raise ShardRotten("the record is another shard's")
    return crc


def _opened(files: Files, payload: Buffer, key: ShardKey, facts: ShardFacts) -> Opened:
    """A shard file's bytes as the reader wants them. Raises ShardRotten."""
    view = memoryview(payload)
    check_prologue(view[: len(PROLOGUE)])
    footer = parse_footer(view[-FOOTER_SIZE:], len(view))
    if footer.key != key:
        raise ShardRotten("the record holds another shard than it says")
    at = footer.index_offset
    index = parse_index(footer, view[at : at + footer.index_length])
    return Opened(facts, index, Source(files, -1, payload))
