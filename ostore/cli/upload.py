"""Bytes to the service: in one PUT when small, resumable when large."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from typing import IO

from ostore.cli.answer import CHUNK
from ostore.cli.console import Bar
from ostore.cli.failures import Damaged, Failure, Refused
from ostore.cli.journal import Journal
from ostore.cli.remote import Remote
from ostore.cli.resumable import Resumable
from ostore.cli.sent import Limits, Sent, checked, damaged
from ostore.cli.source import Changed, Source

SMALL, STREAMED = 1 << 20, 16 << 20
"""Bytes of a file, and of a stream, that are sent from memory."""
LARGE = 4
"""Large files that are on their way at once."""


class Uploads:
    """Sends files; threads may share it."""

    def __init__(self, remote: Remote, journal: Journal, limits: Limits) -> None:
        self._remote = remote
        self._journal = journal
        self._limits = limits
        self._large = threading.Semaphore(LARGE)

    def file(
        self,
        source: Source,
        name: str,
        headers: Mapping[str, str],
        bar: Bar,
        hash: str | None = None,
    ) -> Sent:
        """Send an open file. Raises Changed, Damaged, Unreachable, Refused."""
        if source.size <= self._limits.threshold:
            return self._whole(source, name, headers, bar, hash)
        with self._large:
            sent = self._resumed(source, name, headers, bar, hash)
        return sent or self._whole(source, name, headers, bar, hash)

    def _resumed(
        self,
        source: Source,
        name: str,
        headers: Mapping[str, str],
        bar: Bar,
        hash: str | None,
    ) -> Sent | None:
        remote = self._remote
        entry = self._journal.open(
            "upload", str(remote.client.endpoint), name, str(source.path.absolute())
        )
        try:
            sent = Resumable(
                remote, source, name, headers, bar, self._limits, entry
            ).run(hash)
        except (Changed, Damaged):
            entry.forget()
            raise
        except BaseException:
            entry.close()
            raise
        entry.forget()
        return sent

    def content(self, content: bytes, name: str, headers: Mapping[str, str]) -> Sent:
        """Send what is in memory. Raises Damaged, Unreachable, Refused."""
        hash = hashlib.sha256(content).hexdigest()
        try:
            version = self._remote.put(name, headers, content, None, hash)
        except Refused as error:
            raise damaged(name, error) from error
        return Sent(checked(self._remote, name, version, hash), "put")

    def stream(
        self, stream: IO[bytes], name: str, headers: Mapping[str, str], bar: Bar
    ) -> Sent:
        """Send what a stream gives; more than the threshold of it is sent but once."""
        most = min(self._limits.threshold, STREAMED)
        begin = _fill(stream, most + 1)
        if len(begin) <= most:
            return self.content(bytes(begin), name, headers)
        hasher = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            if not begin:
                raise Failure("what was read of the stream is gone; try again")
            chunk = bytes(begin)
            begin.clear()
            while chunk:
                hasher.update(chunk)
                bar.advance(len(chunk))
                yield chunk
                chunk = stream.read(CHUNK)

        version = self._remote.put(name, headers, chunks, None, None, attempts=1)
        return Sent(checked(self._remote, name, version, hasher.hexdigest()), "put")

    def _whole(
        self,
        source: Source,
        name: str,
        headers: Mapping[str, str],
        bar: Bar,
        hash: str | None,
    ) -> Sent:
        buffer = bytearray(min(CHUNK, source.size) or 1)
        if source.size <= SMALL:
            body = b"".join(
                map(memoryview.tobytes, source.chunks(0, source.size, buffer))
            )
            source.check()
            sent = self.content(body, name, headers)
            bar.at(source.size)
            return sent
        found: str | None = None

        def chunks() -> Iterator[memoryview]:
            """The last chunk goes only when the file is still what it was."""
            nonlocal found
            hasher, last = hashlib.sha256(), source.size - 1
            bar.at(0)
            for chunk in source.chunks(0, last, buffer):
                hasher.update(chunk)
                yield chunk
                bar.advance(len(chunk))
            for chunk in source.chunks(last, source.size, buffer):
                hasher.update(chunk)
                source.check()
                found = hasher.hexdigest()
                yield chunk

        try:
            version = self._remote.put(name, headers, chunks, source.size, hash)
        except Refused as error:
            source.check()
            if error.code != 400 or hash is not None:
                raise damaged(name, error) from error
            # Perhaps a Digest is asked for before the first byte.
            return self._whole(source, name, headers, bar, source.hash())
        hash = hash or found
        assert hash is not None
        return Sent(checked(self._remote, name, version, hash), "put")


def _fill(stream: IO[bytes], size: int) -> bytearray:
    held = bytearray()
    while len(held) < size and (chunk := stream.read(size - len(held))):
        held += chunk
    return held
