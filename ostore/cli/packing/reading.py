"""A pack on the service, of which only what is wanted is read."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator
from typing import IO, cast

from ostore.cli import coding
from ostore.cli.answer import CHUNK
from ostore.cli.download import Found, Reading
from ostore.cli.failures import Damaged, Failure, Refused, Unreachable
from ostore.cli.packing import records
from ostore.cli.packing.fields import Broken
from ostore.cli.packing.records import DEFLATED, LOCAL, METHODS, STORED, Member
from ostore.cli.packing.writing import MAX_INDEX
from ostore.cli.remote import Remote, target

TAIL = 256 << 10
"""Bytes asked for first: the end of the pack, and mostly the whole index."""
GAP = 256 << 10
"""Bytes of others that are rather read than left out by another request."""
IN_A_ROW = 20
"""Members that fail one after the other before the rest is given up."""


class Pack:
    """What is in one version of an object; made by `opened`.

    `whole` is false when the index was damaged and the members had to be looked for.
    """

    def __init__(
        self,
        remote: Remote,
        found: Found,
        members: list[Member],
        end: int,
        *,
        whole: bool,
    ) -> None:
        self.found = found
        self.whole = whole
        # Of two with one name the later counts, as with every zip.
        self.members = {member.name: member for member in members}
        self._remote = remote
        firsts = sorted({member.offset for member in members})
        self._ends = dict(zip(firsts, [*firsts[1:], end], strict=False))

    def contents(self, names: Collection[str]) -> Iterator[Content]:
        """The contents of these members, in the order in which they lie there.

        Each is read, or not, before the next is asked for.
        """
        wanted = sorted(
            (self.members[name] for name in names), key=lambda member: member.offset
        )
        cursor = Cursor(self._remote, self.found)
        untils = self._untils(wanted)
        failed = 0
        try:
            for member, until in zip(wanted, untils, strict=True):
                content = Content(cursor, member, self._ends[member.offset], until)
                yield content
                failed = failed + 1 if content.unreadable else 0
                if failed > IN_A_ROW:
                    raise Failure("too many members cannot be read: the rest is left")
        finally:
            cursor.close()

    def _untils(self, wanted: list[Member]) -> list[int]:
        """For each member where the request for it ends: behind a run of others."""
        untils: list[int] = []
        behind = 0
        for member in reversed(wanted):
            until = self._ends[member.offset]
            if untils and 0 <= behind - until <= GAP:
                until = untils[-1]
            untils.append(until)
            behind = member.offset
        return untils[::-1]


def opened(remote: Remote, name: str, version: int | None) -> Pack:
    """Read the index of a pack. Raises Failure for what is none."""
    head = {"Range": f"bytes=-{TAIL}"}
    answer = remote.client.ask(
        "GET", target(name, version), head, accept=(200, 206, 416)
    )
    try:
        if answer.code == 416:
            raise Failure(f"{name}: is empty, and no pack")
        found = Found.of(name, answer)
        if found.coding:
            raise Failure(f"{name}: is compressed as a whole: get it, then unzip it")
        tail = answer.read(TAIL)
    finally:
        answer.close()
    try:
        members, end = _indexed(remote, found, tail)
        return Pack(remote, found, members, end, whole=True)
    except Broken as broken:
        if _span(remote, found, 0, min(len(LOCAL), found.size)) != LOCAL:
            raise Failure(f"{name}: is no pack: {broken}") from broken
    members = list(_scanned(remote, found))
    return Pack(remote, found, members, found.size, whole=False)


def _indexed(remote: Remote, found: Found, tail: bytes) -> tuple[list[Member], int]:
    """The members, and where they end. Raises Broken."""
    end = records.read_end(tail, found.size)
    if end.size > MAX_INDEX:
        raise Failure(f"{found.name}: its index is too large to be read")
    begins = found.size - len(tail)
    if end.offset >= begins:
        index = tail[end.offset - begins :][: end.size]
    else:
        index = _span(remote, found, end.offset, end.offset + end.size)
    if end.hash is not None and hashlib.sha256(index).hexdigest() != end.hash:
        raise Broken("the index is damaged")
    members = list(records.read_index(index, end.count))
    if any(member.offset >= end.offset for member in members):
        raise Broken("the index points beyond the members")
    return members, end.offset


def _scanned(remote: Remote, found: Found) -> Iterator[Member]:
    """The members, found by their own headers."""
    cursor = Cursor(remote, found)
    at = 0
    try:
        while at < found.size:
            cursor.seek(at, found.size)
            try:
                head = cursor.header()
                member, size = records.read_local(head, at)
                if at + size + member.stored > found.size:
                    raise Broken("the member is longer than the pack")
            except Broken:
                at = cursor.next_header(at + 1)
                continue
            yield member
            at += size + member.stored
    finally:
        cursor.close()


def _span(remote: Remote, found: Found, first: int, end: int) -> bytes:
    with Reading(remote, found, None, (first, end)) as reading:
        return b"".join(iter(lambda: cast("IO[bytes]", reading).read(CHUNK), b""))


class Cursor:
    """A place in the pack that moves on; small gaps are read over."""

    def __init__(self, remote: Remote, found: Found) -> None:
        self.at = 0
        self.patient = True
        """Whether a failure is tried again; not after one that was given up."""
        self.alone = False
        """Whether each member is asked for by itself, as a failure may hit a run."""
        self._remote = remote
        self._found = found
        self._reading: Reading | None = None
        self._until = found.size
        self._ahead = b""

    def close(self) -> None:
        """Let go of the connection."""
        if self._reading is not None:
            self._reading.close()
        self._reading, self._ahead = None, b""

    def seek(self, offset: int, until: int) -> None:
        """Go there, to read up to `until`."""
        if (
            self._reading is None
            or until > self._until
            or not 0 <= offset - self.at <= GAP
        ):
            self.close()
            self.at, self._until = offset, until
            return
        while self.at < offset and self.read(min(CHUNK, offset - self.at)):
            pass

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end of the pack."""
        if self._reading is None:
            span = (self.at, self._until)
            attempts = None if self.patient else 1
            self._reading = Reading(
                self._remote, self._found, None, span, attempts=attempts
            )
        if not self._ahead:
            # Members are small; so are requests for their headers.
            self._ahead = cast("IO[bytes]", self._reading).read(max(size, 64 << 10))
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        self.at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes. Raises Broken when there are fewer."""
        parts: list[bytes] = []
        while size and (data := self.read(size)):
            parts.append(data)
            size -= len(data)
        if size:
            raise Broken("the pack ends early")
        return b"".join(parts)

    def header(self) -> bytes:
        """The whole header of the member that begins here. Raises Broken."""
        head = self.exactly(records.LOCAL_SIZE)
        return head + self.exactly(records.local_size(head) - len(head))

    def next_header(self, first: int) -> int:
        """Where the next member seems to begin, from there on."""
        self.seek(first, self._found.size)
        held, begins = b"", first
        while data := self.read(CHUNK):
            held += data
            if (at := held.find(LOCAL)) >= 0:
                return begins + at
            begins += max(0, len(held) - len(LOCAL) + 1)
            held = held[-len(LOCAL) + 1 :]
        return self._found.size


class Content:
    """One member's bytes; `chunks` may be asked for once."""

    def __init__(self, cursor: Cursor, member: Member, end: int, until: int) -> None:
        self.member = member
        self.unreadable = False
        self._cursor = cursor
        self._end = end
        self._until = until
        self._left = 0

    def chunks(self) -> Iterator[bytes]:
        """What the member holds. Raises Damaged at the end when it was wrong."""
        member, cursor = self.member, self._cursor
        size, crc, hasher = 0, 0, hashlib.sha256()
        try:
            self._begin()
            for chunk in self._plain():
                size += len(chunk)
                if size > member.size:
                    raise Broken("it is longer than its header says")
                crc = zlib.crc32(chunk, crc)
                hasher.update(chunk)
                yield chunk
        except (Unreachable, Refused):
            self.unreadable, cursor.patient, cursor.alone = True, False, True
            cursor.close()
            raise
        except (Broken, Damaged, *coding.FAULTS) as error:
            raise self._damaged(str(error)) from error
        hash = hasher.digest()
        if (size, crc, hash) != (member.size, member.crc, member.hash or hash):
            raise self._damaged("its checksum is another")
        cursor.patient = True

    def _begin(self) -> None:
        """Go to the member's bytes; when a run of them cannot be had, to it alone."""
        cursor = self._cursor
        if not cursor.alone:
            try:
                cursor.seek(self.member.offset, self._until)
                return self._enter()
            except (Unreachable, Refused):
                if self._until == self._end:
                    raise
                cursor.close()
                cursor.alone = True
        cursor.seek(self.member.offset, self._end)
        return self._enter()

    def _enter(self) -> None:
        member, cursor = self.member, self._cursor
        if records.local_name(cursor.header()) != member.name:
            raise Broken("there is another member in its place")
        if cursor.at + member.stored > self._end:
            raise Broken("it runs into the next one")
        self._left = member.stored

    def _plain(self) -> Iterator[bytes]:
        method = self.member.method
        if method not in METHODS:
            raise Failure(
                f"{self.member.name}: packed in a way unknown to this command"
            )
        if method == STORED:
            return iter(lambda: self.read(CHUNK), b"")
        if method == DEFLATED:
            return self._inflated()
        return coding.unzstd(cast("IO[bytes]", self))

    def _inflated(self) -> Iterator[bytes]:
        work = zlib.decompressobj(-zlib.MAX_WBITS)
        while data := self.read(CHUNK):
            while data:
                yield work.decompress(data, CHUNK)
                data = work.unconsumed_tail
        if not work.eof:
            raise Broken("it is cut")

    def read(self, size: int) -> bytes:
        """As it lies in the pack: at most so many bytes, none at its end."""
        data = self._cursor.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise Broken("the pack ends early")
        self._left -= len(data)
        return data

    def _damaged(self, why: str) -> Damaged:
        return Damaged(f"{self.member.name}: damaged in the pack: {why}")
