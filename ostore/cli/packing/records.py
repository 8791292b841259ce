"""The bytes of a pack around the members' own: a zip (APPNOTE 6.3), written and read.

What an ostore pack has beyond any zip: an extra field with each member's SHA-256, in
the local header as well, and a comment with the SHA-256 of the central directory. Sizes
and checksums always stand in the local headers, so that a pack whose index is lost can
be read from its front. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

from ostore.cli.packing.fields import (
    BIG,
    UTF8,
    ZIP64,
    Broken,
    dos_time,
    extra,
    extras,
    from_dos,
    is_short,
    name_of,
    widened,
)

STORED, DEFLATED, ZSTD = 0, 8, 93
METHODS = {STORED: "stored", DEFLATED: "deflate", ZSTD: "zstd"}

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
END, END64, LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
COMMENT = b"ostore-pack 1 "
"""Before the SHA-256 of the central directory, in hex."""

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
LOCAL_SIZE, END_SIZE, END64_SIZE = _LOCAL.size, _END.size, _END64.size
LOCATOR_SIZE = _LOCATOR.size

_TIME, _HASH = 0x5455, 0x534F
_SHA256 = b"\x01"
_MANY = 0xFFFF
_DESCRIPTOR, _ENCRYPTED = 0x8, 0x1
_UNIX = 3 << 8
_FILE = 0o100000


@attrs.frozen
class Member:
    """One file of a pack; `stored` is its size there, `hash` its SHA-256 if kept."""

    name: str
    size: int
    stored: int
    crc: int
    method: int
    offset: int
    modified: int
    mode: int
    hash: bytes | None


@attrs.frozen
class End:
    """Where the index lies, and what it holds; `hash` is its SHA-256 if kept."""

    count: int
    size: int
    offset: int
    hash: str | None
    own: int
    """Bytes from the first record of the end to the last byte."""


def local(member: Member, *, large: bool = False) -> bytes:
    """The header before a member's bytes; `large` makes room for sizes of 64 bits."""
    large = large or max(member.size, member.stored) >= BIG
    name = member.name.encode()
    fields = extra(ZIP64, struct.pack("<2Q", member.size, member.stored), large)
    fields += _kept(member)
    return (
        _LOCAL.pack(
            LOCAL,
            45 if large else 20,
            UTF8,
            member.method,
            *dos_time(member.modified),
            member.crc,
            BIG if large else member.stored,
            BIG if large else member.size,
            len(name),
            len(fields),
        )
        + name
        + fields
    )


def central(member: Member) -> bytes:
    """The member's entry in the index."""
    name = member.name.encode()
    large = [value >= BIG for value in (member.size, member.stored, member.offset)]
    wide = b"".join(
        struct.pack("<Q", value)
        for value, is_large in zip(
            (member.size, member.stored, member.offset), large, strict=True
        )
        if is_large
    )
    fields = extra(ZIP64, wide, bool(wide)) + _kept(member)
    version = 63 if member.method == ZSTD else 45 if wide else 20
    return (
        _CENTRAL.pack(
            CENTRAL,
            _UNIX | version,
            version,
            UTF8,
            member.method,
            *dos_time(member.modified),
            member.crc,
            BIG if large[1] else member.stored,
            BIG if large[0] else member.size,
            len(name),
            len(fields),
            0,
            0,
            0,
            (_FILE | member.mode) << 16,
            BIG if large[2] else member.offset,
        )
        + name
        + fields
    )


def end(count: int, offset: int, size: int, hash: str) -> bytes:
    """What stands behind the index."""
    comment = COMMENT + hash.encode()
    wide = b""
    if count >= _MANY or offset >= BIG or size >= BIG:
        wide = _END64.pack(
            END64, END64_SIZE - 12, _UNIX | 45, 45, 0, 0, count, count, size, offset
        ) + _LOCATOR.pack(LOCATOR, 0, offset + size, 1)
    small = min(count, _MANY)
    return (
        wide
        + _END.pack(
            END,
            0,
            0,
            small,
            small,
            min(size, BIG),
            min(offset, BIG),
            len(comment),
        )
        + comment
    )


def read_end(tail: bytes, total: int) -> End:
    """The end of a zip of `total` bytes, whose last are `tail`. Raises Broken."""
    at = _found_end(tail)
    *_, count, size, offset, _ = _END.unpack_from(tail, at)
    comment = tail[at + END_SIZE :]
    start = at
    if at >= LOCATOR_SIZE and tail[at - LOCATOR_SIZE :].startswith(LOCATOR):
        _, _, where, _ = _LOCATOR.unpack_from(tail, at - LOCATOR_SIZE)
        start = where - (total - len(tail))
        if not 0 <= start <= at - LOCATOR_SIZE - END64_SIZE:
            raise Broken("the end of the zip points beyond it")
        sign, *_, count, size, offset = _END64.unpack_from(tail, start)
        if sign != END64:
            raise Broken("the end of the zip points to something else")
    if offset + size > total - (len(tail) - start):
        raise Broken("the index lies beyond the end")
    hash = comment.removeprefix(COMMENT) if comment.startswith(COMMENT) else None
    text = None if hash is None else hash.decode("latin-1")
    return End(count, size, offset, text, len(tail) - start)


def _found_end(tail: bytes) -> int:
    """Where the last record begins whose comment reaches to the very end."""
    at = len(tail) - END_SIZE + 1
    while (at := tail.rfind(END, 0, max(0, at + 3))) >= 0:
        if at + END_SIZE + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
    raise Broken("there is no end of a zip")


def read_index(index: bytes, count: int) -> Iterator[Member]:
    """The members, in the order of the index. Raises Broken."""
    at = 0
    for _ in range(count):
        if len(index) - at < _CENTRAL.size:
            raise Broken("the index ends early")
        (
            sign, _, _, flags, method, time, date, crc, stored, size,
            name_size, extra_size, comment_size, _, _, attributes, offset,
        ) = _CENTRAL.unpack_from(index, at)  # fmt: skip
        if sign != CENTRAL:
            raise Broken("the index has something else than members")
        at += _CENTRAL.size
        name = name_of(index[at : at + name_size], flags)
        found = extras(index[at + name_size : at + name_size + extra_size])
        at += name_size + extra_size + comment_size
        if at > len(index):
            raise Broken("the index ends early")
        size, stored, offset = widened(found, (size, stored, offset))
        if name.endswith("/") and not size:
            continue
        if flags & _ENCRYPTED:
            method = -1
        yield _member(
            name, size, stored, crc, method, offset, (date, time), attributes, found
        )


def read_local(head: bytes, offset: int) -> tuple[Member, int]:
    """The member whose header begins `head`, and the size of the header.

    Raises Broken, also for one that says its sizes only behind its bytes.
    """
    if len(head) < LOCAL_SIZE:
        raise Broken("a header ends early")
    (
        sign, _, flags, method, time, date, crc, stored, size, name_size, extra_size,
    ) = _LOCAL.unpack_from(head)  # fmt: skip
    whole = LOCAL_SIZE + name_size + extra_size
    if sign != LOCAL or len(head) < whole:
        raise Broken("there is no header of a member")
    if flags & (_DESCRIPTOR | _ENCRYPTED):
        raise Broken("the header does not say how long the member is")
    name = name_of(head[LOCAL_SIZE : LOCAL_SIZE + name_size], flags)
    found = extras(head[LOCAL_SIZE + name_size : whole])
    size, stored = widened(found, (size, stored))
    member = _member(name, size, stored, crc, method, offset, (date, time), 0, found)
    return member, whole


def local_size(head: bytes) -> int:
    """How long the header is that begins so. Raises Broken."""
    if len(head) < LOCAL_SIZE or not head.startswith(LOCAL):
        raise Broken("there is no header of a member")
    *_, name_size, extra_size = _LOCAL.unpack_from(head)
    return LOCAL_SIZE + int(name_size) + int(extra_size)


def _member(
    name: str,
    size: int,
    stored: int,
    crc: int,
    method: int,
    offset: int,
    when: tuple[int, int],
    attributes: int,
    found: dict[int, bytes],
) -> Member:
    modified = from_dos(*when)
    given = found.get(_TIME, b"")
    if len(given) >= 5 and given[0] & 1:
        (modified,) = struct.unpack_from("<l", given, 1)
    kept = found.get(_HASH, b"")
    hash = kept[1:] if kept[:1] == _SHA256 and len(kept) == 33 else None
    mode = attributes >> 16 & 0o777
    return Member(name, size, stored, crc, method, offset, modified, mode, hash)


def _kept(member: Member) -> bytes:
    time = struct.pack("<Bl", 1, member.modified) if is_short(member.modified) else b""
    hash = b"" if member.hash is None else _SHA256 + member.hash
    return extra(_TIME, time, bool(time)) + extra(_HASH, hash, bool(hash))


def local_name(head: bytes) -> str:
    """The name in a whole header. Raises Broken."""
    *_, flags, _, _, _, _, _, _, size, _ = _LOCAL.unpack_from(head)
    return name_of(head[LOCAL_SIZE : LOCAL_SIZE + size], flags)
