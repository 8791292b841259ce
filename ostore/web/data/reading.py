"""A shard that is read: bare bytes, frames, or its stripe table."""

from __future__ import annotations

import json
from bisect import bisect_right

from ostore.backends.nodes.protocol import FACTS, FRAMES, LAYOUT, TABLE, facts_to_json
from ostore.backends.shards.reading import Reader
from ostore.erasure.framing import FRAME_HEADER, Frame
from ostore.interfaces import IFrameStream
from ostore.model.ranges import Span, parse_ranges
from ostore.streaming.reply import Reply
from ostore.streaming.resource import Call

PIECE = 256 * 1024
"""Bytes of a stripe table sent at a time."""


class _Blocks:
    """The bytes of some blocks, of which the first and the last may be cut."""

    def __init__(self, stream: IFrameStream, skip: int, length: int) -> None:
        self._stream = stream
        self._skip = skip
        self._left = length

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""
        frame = await self._stream.read() if self._left else None
        if frame is None:
            return b""
        piece = bytes(memoryview(frame.block)[self._skip :][: self._left])
        self._skip = 0
        self._left -= len(piece)
        return piece


class _Frames:
    """Frames as they travel."""

    def __init__(self, stream: IFrameStream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        """The next frame; b"" at the end."""
        frame = await self._stream.read()
        return b"" if frame is None else _packed(frame)


async def send_table(call: Call, reader: Reader) -> None:
    """The stripe table, and the shard's facts in a header."""
    table = reader.table.to_bytes()
    reply = call.reply
    _name(reply, reader, TABLE, len(table))
    facts = facts_to_json(reader.facts)
    reply.headers[FACTS] = json.dumps(facts, separators=(",", ":"))
    if call.method != "HEAD":
        for at in range(0, len(table), PIECE):
            await reply.write(table[at : at + PIECE])
    await reply.finish()


async def send_frames(
    call: Call, reader: Reader, stripes: tuple[int, int] | None
) -> None:
    """The frames of some stripes; all without `stripes` = (first, last)."""
    first, last = stripes or (0, len(reader.table))
    stop = min(last + 1, len(reader.table))
    first = min(first, stop)
    length = reader.block_offset(stop) - reader.block_offset(first)
    length += (stop - first) * FRAME_HEADER.size
    stream = reader.frames(first, stop)
    await _send(call, reader, FRAMES, length, stream, _Frames(stream))


async def send_bytes(call: Call, reader: Reader) -> None:
    """The blocks one behind the other, or a range of them. Raises Unsatisfiable."""
    stripes = len(reader.table)
    size = reader.block_offset(stripes)
    span = Span(0, size)
    wanted = call.header("Range") if call.method == "GET" else None
    spans = parse_ranges(wanted, size) if wanted is not None else None
    call.reply.headers["Accept-Ranges"] = "bytes"
    if spans is not None and len(spans) == 1:
        span = spans[0]
        call.reply.status = 206
        call.reply.headers["Content-Range"] = span.content_range(size)
    first = stop = 0
    if span.length:
        numbers = range(stripes)
        first = bisect_right(numbers, span.start, key=reader.block_offset) - 1
        stop = bisect_right(numbers, span.stop - 1, key=reader.block_offset)
    stream = reader.frames(first, stop)
    blocks = _Blocks(stream, span.start - reader.block_offset(first), span.length)
    kind = "application/octet-stream"
    await _send(call, reader, kind, span.length, stream, blocks)


async def _send(
    call: Call,
    reader: Reader,
    kind: str,
    length: int,
    stream: IFrameStream,
    pieces: _Blocks | _Frames,
) -> None:
    """Pump the pieces; the head waits for the first, so that errors stay clean."""
    try:
        if call.method == "HEAD":
            _name(call.reply, reader, kind, length)
            await call.reply.finish()
            return
        piece = await pieces.read()
        _name(call.reply, reader, kind, length)
        while piece:
            await call.reply.write(piece)
            piece = await pieces.read()
        await call.reply.finish()
    finally:
        await stream.close()


def _name(reply: Reply, reader: Reader, kind: str, length: int) -> None:
    reply.headers["Content-Type"] = kind
    reply.headers["Content-Length"] = str(length)
    reply.headers[LAYOUT] = reader.facts.layout.header()


def _packed(frame: Frame) -> bytes:
    return b"".join((frame.header(), frame.block))
