"""What is asked and answered in a conversation: operations as bytes, both ways.

Big-endian throughout. A key is hash (32 bytes), index (1) and layout id (16).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from math import isfinite
from typing import Any, Final

import attrs

from ostore.backends.nodes.protocol import MAX_DETAIL
from ostore.backends.nodes.records import ANSWER_ROOM
from ostore.erasure.framing import Frame, FrameParser, Table
from ostore.model.errors import (
    Malformed,
    NodeFull,
    NodeUnreachable,
    Refused,
    ShardError,
    ShardMissing,
    ShardRefused,
    ShardRotten,
)
from ostore.model.layouts import (
    MAX_SHARDS,
    MAX_SIZE,
    Holding,
    Layout,
    ShardFacts,
    ShardKey,
)

MAX_FRAMES = 256
"""Frames in one operation or answer."""


class Operation(IntEnum):
    """What a record asks for."""

    PUT = 1
    OPEN = 2
    FIND = 3
    RENEW = 4
    RESTORE = 5
    CONDEMN = 6
    DISCARD = 7
    ERASE = 8
    BAD = 9
    GLANCE = 10


class Status(IntEnum):
    """How an answer begins; from MISSING to REFUSED_NOW a sentence follows."""

    DONE = 0
    MISSING = 1
    ROTTEN = 2
    REFUSED = 3
    FULL = 4
    UNREACHABLE = 5
    REFUSED_NOW = 6
    ELSEWHERE = 7
    """Not over a conversation: too large, or unknown here. Nothing was done."""
    LEAVING = 255
    """Number 0: the node takes no further operations, and waits for the end."""


ERRORS: Final[dict[type[Exception], Status]] = {
    ShardMissing: Status.MISSING,
    ShardRotten: Status.ROTTEN,
    ShardRefused: Status.REFUSED,
    NodeFull: Status.FULL,
    NodeUnreachable: Status.UNREACHABLE,
    Refused: Status.REFUSED_NOW,
    Malformed: Status.REFUSED,
}
_RAISED: Final[dict[int, type[ShardError]]] = {
    Status.MISSING: ShardMissing,
    Status.ROTTEN: ShardRotten,
    Status.REFUSED: ShardRefused,
    Status.FULL: NodeFull,
    Status.UNREACHABLE: NodeUnreachable,
    Status.REFUSED_NOW: ShardRefused,
}

_KEY = struct.Struct(">32sB16s")
_PUT = struct.Struct(">32sB16sBBQdd")
"""Key, k, m, size, deadline (seconds since 1970; negative for none), age."""
_OPEN = struct.Struct(">32sB16sBI")
"""Key, whether a bad one too, bytes that the answer may have."""
_HASH = struct.Struct(">32s")
_RENEW = struct.Struct(">32s16s")
_ORDER = struct.Struct(">32sB16sdq")
"""Key, least age, epoch (negative for none)."""
_DISCARD = struct.Struct(">32sB16s16sq")
"""Key, token, epoch."""
_FACTS = struct.Struct(">32sB16sBBQQdB")
"""Key, k, m, size, bytes on disk, age, state."""
_TABLE = struct.Struct(">I")
_ERASED = struct.Struct(">Q")

_STATES = ("whole", "bad", "garbage")
_HOLDING = ("none", "have", "unsure")


# Arguments


@attrs.frozen
class Put:
    """A whole small shard."""

    key: ShardKey
    layout: Layout
    deadline: float | None
    age: float
    frames: Sequence[Frame]


def pack_put(
    key: ShardKey, layout: Layout, deadline: float | None, age: float
) -> bytes:
    """What stands before the frames of a put."""
    until = -1.0 if deadline is None else max(0.0, deadline)
    return _PUT.pack(*_ids(key), layout.data, layout.parity, layout.size, until, age)


def read_put(data: memoryview) -> Put:
    """Read pack_put() and frames. Raises Malformed, ShardRefused."""
    if len(data) < _PUT.size:
        raise Malformed("the operation is cut short")
    *ids, k, m, size, until, age = _PUT.unpack_from(data)
    key = _key(*ids)
    if not (k and k + m <= MAX_SHARDS and size <= MAX_SIZE):
        raise Malformed("there is no such layout")
    if not (isfinite(until) and isfinite(age) and age >= 0):
        raise Malformed("deadline and age are numbers")
    return Put(
        key,
        Layout(k, m, size, key.layout),
        None if until < 0 else until,
        age,
        _frames(bytes(data[_PUT.size :])),
    )


def pack_open(key: ShardKey, *, bad: bool, room: int) -> bytes:
    """A shard for reading; the answer has at most `room` bytes."""
    return _OPEN.pack(*_ids(key), bad, room)


def read_open(data: memoryview) -> tuple[ShardKey, bool, int]:
    """Read pack_open(). Raises Malformed."""
    hash, index, layout, bad, room = _exactly(_OPEN, data)
    return _key(hash, index, layout), bool(bad), room


def room_of(operation: int, data: memoryview) -> int:
    """Bytes that the result may have, as the operation says."""
    if operation in (Operation.OPEN, Operation.GLANCE) and len(data) == _OPEN.size:
        return int(_OPEN.unpack(data)[-1])
    return ANSWER_ROOM


def pack_hash(hash: str) -> bytes:
    """A content."""
    return bytes.fromhex(hash)


def read_hash(data: memoryview) -> str:
    """Read pack_hash(). Raises Malformed."""
    (hash,) = _exactly(_HASH, data)
    return str(hash.hex())


def pack_renew(hash: str, layout: str) -> bytes:
    """One layout of a content."""
    return bytes.fromhex(hash + layout)


def read_renew(data: memoryview) -> tuple[str, str]:
    """Read pack_renew(). Raises Malformed."""
    hash, layout = _exactly(_RENEW, data)
    return hash.hex(), layout.hex()


def pack_order(key: ShardKey, age: float, epoch: int | None) -> bytes:
    """What may be done to a shard of that age, under which lease."""
    return _ORDER.pack(*_ids(key), age, -1 if epoch is None else epoch)


def read_order(data: memoryview) -> tuple[ShardKey, float, int | None]:
    """Read pack_order(). Raises Malformed."""
    hash, index, layout, age, epoch = _exactly(_ORDER, data)
    if not (isfinite(age) and age >= 0):
        raise Malformed("an age is a number from 0")
    return _key(hash, index, layout), age, None if epoch < 0 else epoch


def pack_discard(key: ShardKey, token: str, epoch: int | None) -> bytes:
    """A condemned shard and its token."""
    given = -1 if epoch is None else epoch
    return _DISCARD.pack(*_ids(key), bytes.fromhex(token), given)


def read_discard(data: memoryview) -> tuple[ShardKey, str, int | None]:
    """Read pack_discard(). Raises Malformed."""
    hash, index, layout, token, epoch = _exactly(_DISCARD, data)
    return _key(hash, index, layout), token.hex(), None if epoch < 0 else epoch


def pack_key(key: ShardKey) -> bytes:
    """One shard."""
    return _KEY.pack(*_ids(key))


def read_key(data: memoryview) -> ShardKey:
    """Read pack_key(). Raises Malformed."""
    return _key(*_exactly(_KEY, data))


# Results


@attrs.frozen
class Opened:
    """An open shard; `frames` are all of its frames, or None where they are too many."""

    facts: ShardFacts
    table: Table
    frames: Sequence[Frame] | None


def pack_opened(facts: ShardFacts, table: bytes) -> bytes:
    """What stands before the frames of an open shard."""
    return _facts(facts) + _TABLE.pack(len(table)) + table


def read_opened(data: memoryview) -> Opened:
    """Read pack_opened() and frames. Raises NodeUnreachable."""
    begin = _FACTS.size + _TABLE.size
    try:
        (length,) = _TABLE.unpack_from(data, _FACTS.size)
        facts = _read_facts(_FACTS.unpack_from(data))
        table = Table.from_bytes(data[begin : begin + length])
        frames = _frames(bytes(data[begin + length :]))
    except (struct.error, ShardRotten, ShardRefused, Malformed):
        raise NodeUnreachable("the node's answer is no shard") from None
    cut = table.geometry
    for frame in frames:
        if frame.number >= len(table):
            raise NodeUnreachable("the node's answer has too many frames")
        row = table.row(frame.number)
        if frame.row != row or len(frame.block) != cut.block(row.stored):
            raise NodeUnreachable("the node's frame differs from the stripe table")
    return Opened(facts, table, frames if len(frames) == len(table) else None)


def read_glanced(data: memoryview) -> Frame | None:
    """The only frame in an answer, checked; None when it is none."""
    try:
        (frame,) = _frames(bytes(data))
    except (ShardRefused, ValueError):
        return None
    return frame


def pack_holding(holding: Holding) -> list[bytes]:
    """What a node holds of a content."""
    state = bytes((_HOLDING.index(holding.state),))
    return [state, *map(_facts, holding.shards)]


def read_holding(data: memoryview) -> Holding:
    """Read pack_holding(). Raises NodeUnreachable."""
    if not data or data[0] >= len(_HOLDING) or (len(data) - 1) % _FACTS.size:
        raise NodeUnreachable("the node's answer is no holding")
    shards = tuple(map(_read_facts, _FACTS.iter_unpack(data[1:])))
    return Holding(_HOLDING[data[0]], shards)


def pack_erased(size: int) -> bytes:
    """Bytes freed."""
    return _ERASED.pack(size)


def read_erased(data: memoryview) -> int:
    """Read pack_erased(). Raises NodeUnreachable."""
    if len(data) != _ERASED.size:
        raise NodeUnreachable("the node's answer is no number of bytes")
    return int.from_bytes(data, "big")


def read_token(data: memoryview) -> str:
    """A condemnation's token. Raises NodeUnreachable."""
    if len(data) != 16:
        raise NodeUnreachable("the node's answer is no token")
    return data.hex()


def error_of(status: int, sentence: memoryview) -> ShardError:
    """The error that an answer stands for."""
    kind = _RAISED.get(status)
    if kind is None:
        return NodeUnreachable(f"the node answered with status {status}")
    return kind(
        bytes(sentence[: 4 * MAX_DETAIL]).decode("utf-8", "replace")[:MAX_DETAIL]
    )


# Parts


def _ids(key: ShardKey) -> tuple[bytes, int, bytes]:
    return bytes.fromhex(key.hash), key.index, bytes.fromhex(key.layout)


def _key(hash: bytes, index: int, layout: bytes) -> ShardKey:
    if index >= MAX_SHARDS:
        raise Malformed(f"a shard's index is below {MAX_SHARDS}")
    return ShardKey(hash.hex(), index, layout.hex())


def _exactly(form: struct.Struct, data: memoryview) -> tuple[Any, ...]:
    if len(data) != form.size:
        raise Malformed("the operation has not its length")
    return form.unpack(data)


def _frames(data: bytes) -> Sequence[Frame]:
    """Frames of a shard from its first on, each checked. Raises ShardRefused."""
    parser = FrameParser()
    frames = parser.feed(data)
    parser.finish()
    if len(frames) > MAX_FRAMES:
        raise ShardRefused(f"a shard in one operation has at most {MAX_FRAMES} frames")
    return frames


def _facts(facts: ShardFacts) -> bytes:
    layout = facts.layout
    return _FACTS.pack(
        *_ids(facts.key),
        layout.data,
        layout.parity,
        layout.size,
        facts.bytes,
        facts.age,
        _STATES.index(facts.state),
    )


def _read_facts(fields: tuple[Any, ...]) -> ShardFacts:
    hash, index, id, k, m, size, bytes, age, state = fields
    possible = 1 <= k <= k + m <= MAX_SHARDS and index < k + m and size <= MAX_SIZE
    if not (possible and isfinite(age) and state < len(_STATES)):
        raise NodeUnreachable("the node's answer is no shard")
    layout = Layout(k, m, size, id.hex())
    return ShardFacts(hash.hex(), index, layout, bytes, age, _STATES[state])
