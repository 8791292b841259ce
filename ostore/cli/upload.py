"""Bytes to the service: in one PUT when small, resumable when large.

A large file is sent from the first moment on while a second thread hashes it. When
that has the digest and much is left to send, it asks whether the service has the
content already: if so, the rest is not sent. The last piece waits for the digest and
for a look at the file, so a file that changed never becomes a version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO
from urllib.parse import urlsplit

import attrs

from ostore.cli.client import CHUNK
from ostore.cli.console import Bar
from ostore.cli.failures import Damaged, Missing, Refused, Unreachable
from ostore.cli.journal import Entry, Journal
from ostore.cli.remote import OUTCOME_WAIT, Remote, Version, hash_of, target
from ostore.cli.source import Changed, Source
from ostore.model.digest import digest_header


@attrs.frozen
class Sent:
    """A version that was written, and how: `put`, `resumable` or `instant`."""

    version: Version
    way: str


@attrs.frozen
class Limits:
    """How large a file is sent in one request, and how large a piece of others."""

    threshold: int
    piece: int
    instant: bool = True


class _Known(Exception):
    """The service has the content; the rest need not be sent."""


class Uploads:
    """Sends files; threads may share it."""

    def __init__(self, remote: Remote, journal: Journal, limits: Limits) -> None:
        self._remote = remote
        self._journal = journal
        self._limits = limits

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
        remote = self._remote
        entry = self._journal.open(
            "upload", str(remote.client.endpoint), name, str(source.path.absolute())
        )
        try:
            sent = _Resumable(
                remote, source, name, headers, bar, self._limits, entry
            ).run(hash)
        except (Changed, Damaged):
            entry.forget()
            raise
        except BaseException:
            entry.close()
            raise
        entry.forget()
        return sent or self._whole(source, name, headers, bar, hash)

    def stream(
        self, stream: IO[bytes], name: str, headers: Mapping[str, str], bar: Bar
    ) -> Sent:
        """Send what a stream gives; more than the threshold of it is sent but once."""
        most = min(self._limits.threshold, 16 * CHUNK)
        begin = _fill(stream, most + 1)
        if len(begin) <= most:
            hash = hashlib.sha256(begin).hexdigest()
            version = self._remote.put(name, headers, bytes(begin), None, hash)
            return Sent(self._checked(name, version, hash), "put")
        hasher = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            chunk = bytes(begin)
            begin.clear()
            while chunk:
                hasher.update(chunk)
                bar.advance(len(chunk))
                yield chunk
                chunk = stream.read(CHUNK)

        version = self._remote.put(name, headers, chunks, None, None, attempts=1)
        return Sent(self._checked(name, version, hasher.hexdigest()), "put")

    def _whole(
        self,
        source: Source,
        name: str,
        headers: Mapping[str, str],
        bar: Bar,
        hash: str | None,
    ) -> Sent:
        buffer = bytearray(min(CHUNK, source.size) or 1)
        if source.size <= CHUNK:
            body = b"".join(map(bytes, source.chunks(0, source.size, buffer)))
            hash = hashlib.sha256(body).hexdigest()
            source.check()
            version = self._remote.put(name, headers, body, None, hash)
            bar.at(source.size)
            return Sent(self._checked(name, version, hash), "put")
        hash = hash or source.hash()
        assert hash is not None

        def chunks() -> Iterator[memoryview]:
            bar.at(0)
            for chunk in source.chunks(0, source.size, buffer):
                yield chunk
                bar.advance(len(chunk))

        try:
            version = self._remote.put(name, headers, chunks, source.size, hash)
        except Refused as error:
            if error.slug != "digest-mismatch":
                raise
            source.check()
            raise Damaged(f"{name}: damaged on the way; nothing was stored") from error
        return Sent(self._checked(name, version, hash), "put")

    def _checked(self, name: str, version: Version, hash: str) -> Version:
        return checked(self._remote, name, version, hash)


def checked(remote: Remote, name: str, version: Version, hash: str) -> Version:
    """The version, which must have this content; a wrong one is removed again."""
    if hash_of(version) == hash:
        return version
    remote.erase(name, version["version"])
    raise Damaged(
        f"{name}: what the service stored is not what was sent; "
        f"version {version['version']} was removed again"
    )


def _fill(stream: IO[bytes], size: int) -> bytearray:
    held = bytearray()
    while len(held) < size and (chunk := stream.read(size - len(held))):
        held += chunk
    return held


class _Resumable:
    """One large file on its way; lives as long as the command works on it."""

    def __init__(
        self,
        remote: Remote,
        source: Source,
        name: str,
        headers: Mapping[str, str],
        bar: Bar,
        limits: Limits,
        entry: Entry,
    ) -> None:
        self._remote = remote
        self._client = remote.client
        self._source = source
        self._name = name
        self._headers = headers
        self._bar = bar
        self._limits = limits
        self._entry = entry
        self._held = 0
        self._known: Version | None = None
        self._stop = False
        self._buffer = bytearray(CHUNK)

    def run(self, hash: str | None) -> Sent | None:
        """Send the file; None when the service takes no resumable uploads."""
        where = self._go_on()
        if where is not None:
            try:
                return self._to(where, hash)
            except Missing:
                # It expired, or was finished and forgotten: begin anew.
                self._stop = False
        begun = self._begin(hash)
        return self._to(begun, hash) if isinstance(begun, str) else begun

    def _to(self, where: str, hash: str | None) -> Sent:
        with ThreadPoolExecutor(1, "hashing") as pool:
            scouting = pool.submit(self._scout, hash)
            try:
                version = self._send(where, scouting.result)
            except _Known:
                assert self._known is not None
                self._drop(where)
                return Sent(self._known, "instant")
            except (Changed, Damaged):
                self._drop(where)
                raise
            finally:
                self._stop = True
            found = scouting.result()
        assert found is not None
        return Sent(checked(self._remote, self._name, version, found), "resumable")

    def _go_on(self) -> str | None:
        facts = self._entry.facts
        fitting = facts.get("stamp") == self._source.stamp
        if not fitting or facts.get("headers") != dict(self._headers):
            return None
        where = str(facts.get("where"))
        try:
            self._held = self._offset(where)
        except Refused:
            return None
        return where

    def _begin(self, hash: str | None) -> Sent | str | None:
        head = {
            **self._headers,
            "Size": str(self._source.size),
            "Idempotency-Key": self._remote.key(),
        }
        if hash is not None and self._limits.instant:
            head["Digest"] = digest_header(hash)
        try:
            answer = self._client.ask(
                "POST", target(self._name), head, accept=(200, 201)
            )
        except Refused as error:
            if error.code in (400, 405, 501) and "not available" in str(error):
                return None
            raise
        if answer.code == 200:
            return Sent(answer.json(), "instant")
        where = urlsplit(answer.header("Location") or "").path
        answer.read(CHUNK)
        if not where:
            raise Unreachable("the answer names no place for the upload")
        stamp = self._source.stamp
        facts = {"where": where, "stamp": stamp, "headers": dict(self._headers)}
        self._entry.begin({**facts, "name": self._name})
        self._held = 0
        return where

    def _scout(self, hash: str | None) -> str | None:
        """The digest; asks for the content by it when that may spare much."""
        if hash is not None:
            return hash
        found = self._source.hash(lambda: self._stop)
        left = self._source.size - self._held
        if found is None or not self._limits.instant or left <= self._limits.piece:
            return found
        head = {
            **self._headers,
            "Size": str(self._source.size),
            "Digest": digest_header(found),
            "Idempotency-Key": self._remote.key(),
        }
        self._source.check()
        try:
            answer = self._client.once(
                "POST", target(self._name), head, accept=(200, 201)
            )
        except (Refused, Unreachable):
            return found
        if answer.code == 200:
            self._known = answer.json()
        else:
            answer.read(CHUNK)
            self._drop(urlsplit(answer.header("Location") or "").path)
        return found

    def _drop(self, where: str) -> None:
        """Give an upload up; one that cannot be reached expires by itself."""
        try:
            self._client.once("DELETE", where, accept=(204, 404)).read(CHUNK)
        except (Unreachable, Refused):
            return

    def _offset(self, where: str) -> int:
        answer = self._client.ask("HEAD", where)
        answer.read(0)
        held = answer.number("Upload-Offset")
        if held is None or held > self._source.size:
            raise Unreachable("the answer does not say what is held of the upload")
        return held

    def _send(self, where: str, hash: Callable[[], str | None]) -> Version:
        failed, reached = 0, self._held
        while True:
            try:
                version = self._piece(where, hash)
                if version is not None:
                    return version
            except (Unreachable, Refused) as error:
                if self._held > reached:
                    failed, reached = 0, self._held
                failed += 1
                code = error.code if isinstance(error, Refused) else None
                if isinstance(error, Refused) and error.slug == "digest-mismatch":
                    raise Damaged(f"{self._name}: damaged on the way") from error
                if code not in (404, 416) or failed > self._client.backoff.attempts:
                    self._client.pause(failed, error)
                settled = self._look(where)
                if settled is not None:
                    return settled

    def _look(self, where: str) -> Version | None:
        """What is held by now; the version when the upload is over."""
        try:
            self._held = self._offset(where)
        except Refused as error:
            if error.code != 404:
                raise
            return self._outcome(where)
        self._bar.at(self._held)
        return self._outcome(where) if self._held == self._source.size else None

    def _piece(self, where: str, hash: Callable[[], str | None]) -> Version | None:
        """Send one piece; the version when it was the last."""
        first, size = self._held, self._source.size
        if first == size:
            return self._outcome(where)
        end = min(size, first + self._limits.piece)
        if end == size:
            hash()
            self._source.check()
        head = {"Range": f"bytes={first}-", "Content-Length": str(end - first)}
        answer = self._client.once(
            "PUT", where, head, lambda: self._chunks(first, end), accept=(200, 202)
        )
        if end < size:
            self._held = answer.number("Upload-Offset") or end
            answer.read(CHUNK)
            return None
        if answer.code == 202:
            answer.read(CHUNK)
            return self._outcome(where)
        found: Version = answer.json()
        return found

    def _chunks(self, first: int, end: int) -> Iterator[memoryview]:
        self._bar.at(first)
        for chunk in self._source.chunks(first, end, self._buffer):
            if self._known is not None:
                raise _Known
            yield chunk
            self._bar.advance(len(chunk))

    def _outcome(self, where: str) -> Version:
        """What became of an upload that has all its bytes."""
        head = {"Range": f"bytes={self._source.size}-"}
        waited = 0.0
        while True:
            try:
                answer = self._client.ask("PUT", where, head, accept=(200, 202))
            except Refused as error:
                if error.slug == "digest-mismatch":
                    raise Damaged(f"{self._name}: damaged on the way") from error
                raise
            if answer.code == 200:
                found: Version = answer.json()
                return found
            answer.read(CHUNK)
            waited += self._client.rest(0.5)
            if waited > OUTCOME_WAIT:
                raise Unreachable("the service did not finish the upload in time")
