"""Content codings that a client puts on and takes off: zstd and gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import IO, cast

import zstandard

from ostore.cli.client import CHUNK
from ostore.cli.failures import Damaged

UNDONE = ("zstd", "gzip")
LEVEL = 3
PLAIN_HASH, PLAIN_SIZE = "X-Ostore-Meta-Plain-Sha256", "X-Ostore-Meta-Plain-Size"
"""Kept with what was coded before it was sent: what it is when undone."""


def encoded(stream: IO[bytes]) -> Iterator[bytes]:
    """The stream as one zstd frame."""
    work = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
    while chunk := stream.read(CHUNK):
        if coded := work.compress(chunk):
            yield coded
    yield work.flush()


def decoded(stream: IO[bytes], coding: str) -> Iterator[bytes]:
    """What such a stream holds, a bounded chunk at a time. Raises Damaged."""
    reader: IO[bytes]
    if coding == "gzip":
        reader = cast("IO[bytes]", gzip.GzipFile(fileobj=stream, mode="rb"))
    else:
        work = zstandard.ZstdDecompressor()
        reader = work.stream_reader(stream, read_across_frames=True, closefd=False)
    try:
        while chunk := reader.read(CHUNK):
            yield chunk
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise Damaged(
            f"the content is not the {coding} that its Content-Encoding says: {error}; "
            "--raw gives it as it is kept"
        ) from error
