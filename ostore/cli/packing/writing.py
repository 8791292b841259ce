"""A pack, written to a local file member by member."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import attrs

from ostore.cli import coding
from ostore.cli.answer import CHUNK
from ostore.cli.failures import Failure
from ostore.cli.packing import records
from ostore.cli.packing.records import STORED, ZSTD, Member
from ostore.cli.source import Source
from ostore.cli.target import Landing

MAX_INDEX = 64 << 20
"""Bytes; an index is read whole."""


class Packer:
    """Adds files to a pack; whoever made the landing settles it after `finish`.

    The same files give the same bytes.
    """

    def __init__(self, landing: Landing, *, zstd: bool) -> None:
        self.count = 0
        self._landing = landing
        self._zstd = zstd
        self._at = 0
        self._index = bytearray()
        self._buffer = bytearray(CHUNK)

    def add(self, path: Path, name: str) -> int:
        """Add a file; its size. Raises Failure, Changed."""
        with Source(path) as source:
            if len(self._index) + len(name.encode()) + 256 > MAX_INDEX:
                raise Failure("too many files for one pack: make several")
            begun = Member(
                name=name,
                size=source.size,
                stored=source.size,
                crc=0,
                method=STORED,
                offset=self._at,
                modified=source.modified,
                mode=source.mode,
                hash=bytes(32),
            )
            small = source.size <= CHUNK
            member = self._small(source, begun) if small else self._large(source, begun)
        self._index += records.central(member)
        self.count += 1
        return member.size

    def finish(self) -> int:
        """Write the index; the size of the pack."""
        hash = hashlib.sha256(self._index).hexdigest()
        tail = records.end(self.count, self._at, len(self._index), hash)
        self._write(bytes(self._index) + tail)
        return self._at

    def _small(self, source: Source, begun: Member) -> Member:
        chunks = source.chunks(0, source.size, self._buffer)
        content = kept = b"".join(map(memoryview.tobytes, chunks))
        source.check()
        method = STORED
        if self._zstd and len(coded := coding.small(content)) < len(content):
            kept, method = coded, ZSTD
        member = attrs.evolve(
            begun,
            stored=len(kept),
            crc=zlib.crc32(content),
            method=method,
            hash=hashlib.sha256(content).digest(),
        )
        self._write(records.local(member) + kept)
        return member

    def _large(self, source: Source, begun: Member) -> Member:
        """The header is written twice: its checksums are known behind the bytes."""
        # zstd adds a few bytes to what it cannot compress.
        large = source.size + source.size // 128 > 0xFFFF0000
        begun = attrs.evolve(begun, method=ZSTD if self._zstd else STORED)
        first = self._at
        self._write(records.local(begun, large=large))
        crc, hasher, began = 0, hashlib.sha256(), self._at

        def plain() -> Iterator[memoryview]:
            nonlocal crc
            for chunk in source.chunks(0, source.size, self._buffer):
                crc = zlib.crc32(chunk, crc)
                hasher.update(chunk)
                yield chunk

        for chunk in coding.compressed(plain()) if self._zstd else plain():
            self._write(chunk)
        source.check()
        member = attrs.evolve(
            begun, stored=self._at - began, crc=crc, hash=hasher.digest()
        )
        self._landing.write(memoryview(records.local(member, large=large)), first)
        return member

    def _write(self, data: bytes | memoryview) -> None:
        self._landing.write(memoryview(data), self._at)
        self._at += len(data)
