"""Content codings that a client puts on and takes off: zstd and gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import zstandard

from ostore.cli.answer import CHUNK
from ostore.cli.failures import Damaged

UNDONE = ("zstd", "gzip")
LEVEL = 3
SIP = 2048
"""Bytes of zstd undone at once: they become 64 MiB at the very most."""
FAULTS = (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError)
"""What the decoders raise for bytes that are none of theirs."""
PLAIN_HASH, PLAIN_SIZE = "X-Ostore-Meta-Plain-Sha256", "X-Ostore-Meta-Plain-Size"
"""Kept with what was coded before it was sent: what it is when undone."""


def compressed(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Chunks as one zstd frame."""
    work = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    for chunk in chunks:
        if coded := work.compress(chunk):
            yield coded
    yield work.flush()


def encoded(stream: IO[bytes]) -> Iterator[bytes]:
    """The stream as one zstd frame."""
    return compressed(iter(lambda: stream.read(CHUNK), b""))


def small(plain: bytes) -> bytes:
    """Bytes as one zstd frame."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(plain)


def decoded(stream: IO[bytes], coding: str) -> Iterator[bytes]:
    """What such a stream holds, a bounded chunk at a time. Raises Damaged."""
    try:
        if coding == "gzip":
            reader = gzip.GzipFile(fileobj=stream, mode="rb")
            while chunk := reader.read(CHUNK):
                yield chunk
        else:
            yield from unzstd(stream)
    except FAULTS as error:
        raise Damaged(
            f"the content is not the {coding} that its Content-Encoding says: {error}; "
            "--raw gives it as it is kept"
        ) from error


def unzstd(stream: IO[bytes]) -> Iterator[bytes]:
    """The frames of zstd, one behind the other. Raises FAULTS."""
    work = zstandard.ZstdDecompressor()
    frame = None
    while read := stream.read(CHUNK):
        for at in range(0, len(read), SIP):
            given = read[at : at + SIP]
            while given:
                frame = frame or work.decompressobj()
                if plain := frame.decompress(given):
                    yield plain
                given = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it was cut")
