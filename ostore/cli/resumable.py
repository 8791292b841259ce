"""One large file on its way, which may take more than one command.

It is sent from the first moment on while a second thread hashes it. When that has the
digest and much is left to send, it asks whether the service has the content already:
if so, the rest is not sent. The last byte waits for the digest and for a look at the
file, so a file that changed never becomes a version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from ostore.cli.answer import CHUNK
from ostore.cli.console import Bar
from ostore.cli.failures import Damaged, Missing, Refused, Unreachable
from ostore.cli.journal import Entry
from ostore.cli.remote import OUTCOME_WAIT, Remote, Version, target, version_of
from ostore.cli.sent import Limits, Sent, checked, damaged
from ostore.cli.source import Changed, Source
from ostore.model.digest import digest_header

WORTH_ASKING = 32 << 20
"""Bytes left to send above which it is asked whether the service has them already."""


class _Known(Exception):
    """The service has the content; the rest need not be sent."""


class Resumable:
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
        where = self._fitting()
        if where is not None:
            try:
                return self._go_on(where, hash)
            except Refused as error:
                if error.code not in (403, 404):
                    raise
                # It expired, or is of another service: begin anew.
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

    def _fitting(self) -> str | None:
        """Where an earlier command began to send this very file."""
        facts = self._entry.facts
        fitting = facts.get("stamp") == self._source.stamp
        if not fitting or facts.get("headers") != dict(self._headers):
            return None
        return str(facts.get("where"))

    def _go_on(self, where: str, hash: str | None) -> Sent:
        try:
            self._held = self._offset(where)
        except Missing:
            # It may have been finished just before the command ended.
            version = self._outcome(where)
            found = hash or self._source.hash()
            assert found is not None
            return Sent(checked(self._remote, self._name, version, found), "resumable")
        return self._to(where, hash)

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
            if error.code not in (400, 405, 501):
                raise
            if hash is None and "Digest" in str(error):
                return self._begin(self._source.hash())
            # It takes none: a plain PUT will do, or tell what is wrong.
            return None
        if answer.code == 200:
            return Sent(version_of(answer.json()), "instant")
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
        if found is None or not self._limits.instant or left <= WORTH_ASKING:
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
            self._known = version_of(answer.json())
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
                if code == 400 and isinstance(error, Refused):
                    raise damaged(self._name, error) from error
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
        head = {"Range": f"bytes={first}-", "Content-Length": str(end - first)}
        answer = self._client.once(
            "PUT",
            where,
            head,
            lambda: self._chunks(first, end, hash),
            accept=(200, 202),
        )
        if end < size:
            self._held = answer.number("Upload-Offset") or end
            answer.read(CHUNK)
            return None
        if answer.code == 202:
            answer.read(CHUNK)
            return self._outcome(where)
        return version_of(answer.json())

    def _chunks(
        self, first: int, end: int, hash: Callable[[], str | None]
    ) -> Iterator[memoryview]:
        """The last byte of the file goes when all was read and is still the same."""
        self._bar.at(first)
        last = end - 1 if end == self._source.size else end
        for chunk in self._source.chunks(first, last, self._buffer):
            if self._known is not None:
                raise _Known
            yield chunk
            self._bar.advance(len(chunk))
        if last < end:
            hash()
            if self._known is not None:
                raise _Known
            self._source.check()
            yield from self._source.chunks(last, end, self._buffer)

    def _outcome(self, where: str) -> Version:
        """What became of an upload that has all its bytes."""
        head = {"Range": f"bytes={self._source.size}-"}
        waited = 0.0
        while True:
            try:
                answer = self._client.ask("PUT", where, head, accept=(200, 202))
            except Refused as error:
                raise damaged(self._name, error) from error
            if answer.code == 200:
                return version_of(answer.json())
            answer.read(CHUNK)
            waited += self._client.rest(0.5)
            if waited > OUTCOME_WAIT:
                raise Unreachable("the service did not finish the upload in time")
