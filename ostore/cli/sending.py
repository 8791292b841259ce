"""A file as the verbs send it: compressed first when that is wanted."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from ostore.cli import coding
from ostore.cli.console import Bars
from ostore.cli.sent import Limits, Sent
from ostore.cli.session import Session
from ostore.cli.source import Source
from ostore.cli.target import Landing

IN_MEMORY = 4 << 20
"""Bytes up to which a file is compressed in memory."""


class Sender:
    """Sends the files of one command; threads may share it."""

    def __init__(self, session: Session, limits: Limits, compress: str) -> None:
        self._uploads = session.uploads(limits)
        self._journal = session.journal
        self._endpoint = str(session.client.endpoint)
        self._zstd = compress == "zstd"

    def file(
        self,
        path: Path,
        name: str,
        headers: Mapping[str, str],
        bars: Bars,
        hash: str | None = None,
    ) -> Sent:
        """Send a file; `hash` is its SHA-256 when it is known already."""
        headers = typed(name, headers)
        with Source(path) as source:
            if self._zstd:
                return self._coded(source, name, headers, bars)
            return self._plain(source, name, headers, bars, hash)

    def stream(
        self, stream: IO[bytes], name: str, headers: Mapping[str, str], bars: Bars
    ) -> Sent:
        """Send what a stream gives."""
        bar = bars.bar(name, None)
        headers = typed(name, headers)
        try:
            if self._zstd:
                headers = {**headers, "Content-Encoding": "zstd"}
                coded = cast("IO[bytes]", Pull(coding.encoded(stream)))
                return self._uploads.stream(coded, name, headers, bar)
            return self._uploads.stream(stream, name, headers, bar)
        finally:
            bar.end()

    def _plain(
        self,
        source: Source,
        name: str,
        headers: Mapping[str, str],
        bars: Bars,
        hash: str | None,
    ) -> Sent:
        bar = bars.bar(name, source.size)
        try:
            return self._uploads.file(source, name, headers, bar, hash)
        finally:
            bar.end()

    def _coded(
        self, source: Source, name: str, headers: Mapping[str, str], bars: Bars
    ) -> Sent:
        """Compress first: in memory when small, else into a file of its own.

        The file is named by the object and the plain content, so that a killed
        command goes on with it.
        """
        plain = source.hash()
        assert plain is not None
        head = {
            **headers,
            "Content-Encoding": "zstd",
            coding.PLAIN_HASH: plain,
            coding.PLAIN_SIZE: str(source.size),
        }
        if source.size <= IN_MEMORY:
            chunks = source.chunks(0, source.size, bytearray(source.size or 1))
            coded = coding.small(b"".join(map(bytes, chunks)))
            source.check()
            return self._uploads.content(coded, name, head)
        path = self._journal.place("zst", self._endpoint, name, plain)
        if not path.exists():
            self._compress(source, path)
        with Source(path) as kept:
            sent = self._plain(kept, name, head, bars, None)
        path.unlink(missing_ok=True)
        return sent

    def _compress(self, source: Source, path: Path) -> None:
        at = 0
        with Landing(path) as landing, source.path.open("rb") as stream:
            for chunk in coding.encoded(stream):
                landing.write(memoryview(chunk), at)
                at += len(chunk)
            source.check()
            # A file that is there is taken for whole.
            landing.settle(durable=True)


def typed(name: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers, with the Content-Type that the name's end says where they lack it."""
    if "Content-Type" in headers:
        return headers
    # What is built in, so that every machine says the same.
    kind, coding = mimetypes.MimeTypes(()).guess_type(f"/{name}")
    if coding is not None:
        kind = {"gzip": "application/gzip", "bzip2": "application/x-bzip2"}.get(coding)
    return headers if kind is None else {**headers, "Content-Type": kind}


class Pull(io.RawIOBase):
    """Chunks, read as a stream."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        size = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
