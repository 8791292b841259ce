"""A file as the verbs send it: compressed first when that is wanted."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from ostore.cli import coding
from ostore.cli.console import Bars
from ostore.cli.session import Session
from ostore.cli.source import Source
from ostore.cli.target import Landing
from ostore.cli.upload import Limits, Sent


class Sender:
    """Sends the files of one command; threads may share it."""

    def __init__(self, session: Session, limits: Limits, compress: str) -> None:
        self._uploads = session.uploads(limits)
        self._folder = session.journal.folder
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
        with Source(path) as source:
            if self._zstd:
                return self._coded(source, name, headers, bars)
            return self._plain(source, name, headers, bars, hash)

    def stream(
        self, stream: IO[bytes], name: str, headers: Mapping[str, str], bars: Bars
    ) -> Sent:
        """Send what a stream gives."""
        bar = bars.bar(name, None)
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
        """Compress into a file of its own first, named by the plain content.

        So it can be gone on with: the same content gives the same file.
        """
        plain = source.hash()
        assert plain is not None
        path = self._folder / f"{plain}.zst"
        at = 0
        if not path.exists():
            with Landing(path) as landing, source.path.open("rb") as stream:
                for chunk in coding.encoded(stream):
                    landing.write(memoryview(chunk), at)
                    at += len(chunk)
                source.check()
                landing.settle()
        head = {
            **headers,
            "Content-Encoding": "zstd",
            coding.PLAIN_HASH: plain,
            coding.PLAIN_SIZE: str(source.size),
        }
        with Source(path) as coded:
            sent = self._plain(coded, name, head, bars, None)
        path.unlink(missing_ok=True)
        return sent


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
