"""Bytes from the service: checked by their SHA-256 before anybody sees the file.

The first request asks for the first piece, so a small object costs one request. The
pieces of a large one come over several connections at once, all pinned to the version
and ETag of the first answer, while what is there is hashed in order.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

import attrs

from ostore.cli import coding
from ostore.cli.answer import CHUNK, Answer
from ostore.cli.console import Bar
from ostore.cli.failures import Damaged, Failure, Refused, Unreachable
from ostore.cli.journal import Entry, Journal
from ostore.cli.remote import Remote, target
from ostore.cli.target import Landing

LARGE = 4
"""Large objects that are on their way at once."""
_TAG = re.compile(r'"([0-9a-f]{64})"')
_SPAN = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@attrs.frozen
class Found:
    """The object that is being read, as the first answer says."""

    name: str
    version: int
    size: int
    hash: str
    coding: str
    plain_hash: str
    headers: dict[str, str]

    @classmethod
    def of(cls, name: str, answer: Answer) -> Found:
        """From the answer to GET or HEAD. Raises Unreachable for a foreign one."""
        tag = _TAG.fullmatch(answer.header("ETag") or "")
        version, size = (
            answer.number("X-Ostore-Version"),
            answer.number("Content-Length"),
        )
        if span := _SPAN.fullmatch(answer.header("Content-Range") or ""):
            size = int(span[3])
        if tag is None or version is None or size is None:
            raise Unreachable("the answer is no object: is this an ostore?")
        return cls(
            name,
            version,
            size,
            tag[1],
            (answer.header("Content-Encoding") or "").strip().lower(),
            (answer.header(coding.PLAIN_HASH) or "").lower(),
            dict(answer.headers.items()),
        )


class Downloads:
    """Receives objects; threads may share it."""

    def __init__(
        self, remote: Remote, journal: Journal, *, piece: int, ranges: int
    ) -> None:
        self._remote = remote
        self._journal = journal
        self._piece = piece
        self._ranges = ranges
        self._large = threading.Semaphore(LARGE)

    def file(
        self,
        name: str,
        version: int | None,
        path: Path,
        bar: Callable[[int], Bar],
        *,
        raw: bool = False,
    ) -> Found:
        """Receive into a file, codings undone unless `raw`. Raises Damaged."""
        found, answer = self._first(name, version)
        shown = bar(found.size)
        try:
            if found.size <= self._piece:
                with Landing(path) as landing:
                    self._small(found, answer, landing, shown)
                    self._settle(found, landing, raw)
            else:
                with self._large:
                    self._in_pieces(found, answer, path, shown, raw)
        finally:
            answer.close()
            shown.end()
        return found

    def stream(
        self, name: str, version: int | None, out: IO[bytes], *, raw: bool = False
    ) -> Found:
        """Send it on as it comes. Raises Damaged at the end, when it was wrong."""
        found, answer = self._first(name, version)
        with Reading(self._remote, found, answer) as reading:
            source = cast("IO[bytes]", reading)
            if not raw and found.coding in coding.UNDONE:
                hasher = hashlib.sha256()
                for chunk in coding.decoded(source, found.coding):
                    hasher.update(chunk)
                    out.write(chunk)
                while reading.read(CHUNK):
                    pass
                _same_plain(found, hasher.hexdigest())
            else:
                buffer = memoryview(bytearray(CHUNK))
                while count := reading.readinto(buffer):
                    out.write(buffer[:count])
        out.flush()
        return found

    def _first(self, name: str, version: int | None) -> tuple[Found, Answer]:
        where = target(name, version)
        head = {"Range": f"bytes=0-{self._piece - 1}"}
        client = self._remote.client
        answer = client.ask("GET", where, head, accept=(200, 206, 416))
        if answer.code == 416:  # of nothing there is no range
            answer.close()
            answer = client.ask("GET", where)
        try:
            return Found.of(name, answer), answer
        except Unreachable:
            answer.close()
            raise

    def _small(self, found: Found, answer: Answer, landing: Landing, bar: Bar) -> None:
        hasher = hashlib.sha256()
        with Reading(self._remote, found, answer) as reading:
            buffer, at = memoryview(bytearray(min(CHUNK, found.size) or 1)), 0
            while count := reading.readinto(buffer):
                landing.write(buffer[:count], at)
                hasher.update(buffer[:count])
                at += count
                bar.advance(count)

    def _in_pieces(
        self, found: Found, answer: Answer, path: Path, bar: Bar, raw: bool
    ) -> None:
        about = (str(self._remote.client.endpoint), found.name, str(path.absolute()))
        entry = self._journal.open("download", *about)
        facts = {"hash": found.hash, "version": found.version, "piece": self._piece}
        facts |= {"name": found.name, "size": found.size}
        try:
            with Landing(path, entry.path.stem[:16]) as landing:
                landing.keep = True
                again = entry.facts == facts
                if not again or os.fstat(landing.handle).st_size != found.size:
                    again = False
                    entry.begin(facts)
                    os.ftruncate(landing.handle, found.size)
                try:
                    self._pieces(found, answer, landing, entry, bar)
                except Damaged:
                    landing.keep = again
                    if not again:
                        raise
                    # What an earlier command left was not what it seemed.
                    entry.begin(facts)
                    self._pieces(found, None, landing, entry, bar)
                landing.keep = False
                self._settle(found, landing, raw)
        except Damaged:
            entry.forget()
            raise
        except BaseException:
            entry.close()
            raise
        entry.forget()

    def _pieces(
        self,
        found: Found,
        answer: Answer | None,
        landing: Landing,
        entry: Entry,
        bar: Bar,
    ) -> None:
        """All pieces that are not there yet, and the digest over all."""
        hasher = hashlib.sha256()
        spans = [
            (first, min(found.size, first + self._piece))
            for first in range(0, found.size, self._piece)
        ]
        bar.at(sum(spans[n][1] - spans[n][0] for n in entry.pieces if n < len(spans)))
        if answer is not None and 0 in entry.pieces:
            answer.close()
        with ThreadPoolExecutor(self._ranges, "range") as pool:
            jobs: dict[int, Future[None]] = {
                n: pool.submit(
                    self._piece_of,
                    found,
                    span,
                    landing,
                    bar,
                    answer if n == 0 else None,
                )
                for n, span in enumerate(spans)
                if n not in entry.pieces
            }
            try:
                for n, span in enumerate(spans):
                    if n in jobs:
                        jobs.pop(n).result()
                        entry.finished(n)
                    landing.read(*span, hasher.update)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        _same(found, hasher.hexdigest())

    def _piece_of(
        self,
        found: Found,
        span: tuple[int, int],
        landing: Landing,
        bar: Bar,
        answer: Answer | None,
    ) -> None:
        with Reading(self._remote, found, answer, span) as reading:
            buffer, at = memoryview(bytearray(CHUNK)), span[0]
            while count := reading.readinto(buffer):
                landing.write(buffer[:count], at)
                at += count
                bar.advance(count)

    def _settle(self, found: Found, landing: Landing, raw: bool) -> None:
        if raw or found.coding not in coding.UNDONE:
            landing.settle()
            return
        hasher, at = hashlib.sha256(), 0
        with (
            os.fdopen(os.dup(landing.handle), "rb") as stored,
            Landing(landing.path) as plain,
        ):
            stored.seek(0)
            for chunk in coding.decoded(stored, found.coding):
                hasher.update(chunk)
                plain.write(memoryview(chunk), at)
                at += len(chunk)
            _same_plain(found, hasher.hexdigest())
            plain.settle()
        landing.part.unlink(missing_ok=True)


class Reading(io.RawIOBase):
    """One span of an object, read in order; a cut answer is asked for again.

    A whole object is checked at its end: then `readinto` raises Damaged.
    """

    def __init__(
        self,
        remote: Remote,
        found: Found,
        answer: Answer | None,
        span: tuple[int, int] | None = None,
        *,
        attempts: int | None = None,
    ) -> None:
        self._attempts = attempts
        self._client = remote.client
        self._found = found
        self._answer = answer
        self._at, self._end = span or (0, found.size)
        self._hasher = hashlib.sha256() if span is None else None
        self._failed = 0
        self._moved = False
        """Whether this answer gave something: the first may end before the object."""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # no other
        """Some of the next bytes; 0 at the end. Raises Unreachable, Refused, Damaged."""
        view = memoryview(buffer)
        while self._at < self._end:
            try:
                if self._answer is None:
                    self._answer = self._ask()
                count = self._answer.into(view[: self._end - self._at])
            except (Unreachable, Refused) as error:
                self._let_go()
                self._failed += 1
                if self._attempts is not None and self._failed >= self._attempts:
                    raise
                self._client.pause(self._failed, error)
                continue
            if count == 0:
                self._let_go()
                if not self._moved:
                    raise Failure(f"{self._found.name}: the answer is empty")
                continue
            self._failed, self._moved = 0, True
            self._at += count
            if self._hasher is not None:
                self._hasher.update(view[:count])
            return count
        self._finish()
        return 0

    def _finish(self) -> None:
        if self._answer is not None:
            # Read to its end, so that the connection serves again.
            try:
                self._answer.into(memoryview(bytearray(1)))
            except Unreachable:
                self._answer.close()
            self._answer = None
        if self._hasher is not None:
            _same(self._found, self._hasher.hexdigest())

    def _ask(self) -> Answer:
        found = self._found
        head = {
            "Range": f"bytes={self._at}-{self._end - 1}",
            "If-Match": f'"{found.hash}"',
        }
        answer = self._client.once(
            "GET", target(found.name, found.version), head, accept=(206,)
        )
        span = _SPAN.fullmatch(answer.header("Content-Range") or "")
        if span is None or int(span[1]) != self._at or int(span[3]) != found.size:
            answer.close()
            raise Failure("the answer is another range than the one asked for")
        self._moved = False
        return answer

    def _let_go(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        """Let go of the connection."""
        self._let_go()
        super().close()


def _same(found: Found, hash: str) -> None:
    if hash != found.hash:
        raise Damaged(
            f"{found.name}: what came is not what its SHA-256 says; nothing was kept; "
            "try again, and if it stays so ask for `ostore admin scrub`"
        )


def _same_plain(found: Found, hash: str) -> None:
    if found.plain_hash and hash != found.plain_hash:
        raise Damaged(f"{found.name}: undone, it is not what was sent; see --raw")
