"""The seam to a search server, and the client that speaks HTTP behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from ostore.backends.metadata.elastic_exchange import Answer, Exchange, Failed
from ostore.backends.metadata.elastic_hosts import Host, Hosts
from ostore.model.errors import MetadataUnavailable
from ostore.streaming.clock import Clock, TimedOut

NO_QUERY: Mapping[str, str] = MappingProxyType({})

_log = Logger()


class SearchFailed(MetadataUnavailable):
    """The search server did not do what it was asked; `seen` is for the operator."""

    def __init__(self, seen: str = "") -> None:
        super().__init__("the metadata store does not answer")
        self.seen = seen


class MaybeApplied(SearchFailed):
    """The call was sent and its answer was lost: it may have been carried out."""


class Rejected(SearchFailed):
    """The server will not do: wrong credentials, certificate, kind or version."""


@attrs.frozen
class Reply:
    """An answer: the HTTP status and the parsed JSON object."""

    status: int
    body: Any


class Search(Protocol):
    """What the store asks of a search server."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: object | None = None,
        lines: Sequence[object] | None = None,
        idempotent: bool = False,
    ) -> Reply:
        """One exchange; `body` goes out as JSON, `lines` as one JSON text a line.

        Gives any answer but 401, 403, 429, 502, 503 and 504, which are settled here:
        tried again, then raised. Raises SearchFailed when the call was surely not
        carried out, or is idempotent and was tried often enough; Rejected when trying
        again cannot help; MaybeApplied when a call that is not idempotent was sent
        and its answer lost.
        """
        ...


@attrs.frozen
class Limits:
    """Bounds of the client; times in seconds.

    `quick` is for calls on documents, `slow` for searches, refreshes and set-up: each
    for a whole exchange; all tries together take twice that at most.
    """

    quick: float = 10.0
    slow: float = 30.0
    tries: int = 5
    pause: float = 0.1
    calls: int = 32
    waiting: int = 4096


class Client:
    """Calls on several servers that are copies of each other; until `close`.

    Owns what it knows of the hosts; `exchange` makes the connections. `chance` gives
    numbers from 0 to 1 for the pauses.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        exchange: Exchange,
        clock: Clock,
        chance: Callable[[], float],
        limits: Limits | None = None,
    ) -> None:
        self._hosts = Hosts(hosts)
        self._exchange = exchange
        self._clock = clock
        self._chance = chance
        self._limits = limits or Limits()
        self._free = DeferredSemaphore(self._limits.calls)
        self._waiting = 0

    def __str__(self) -> str:
        return str(self._hosts)

    async def close(self) -> None:
        """Close idle connections."""
        await self._exchange.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: object | None = None,
        lines: Sequence[object] | None = None,
        idempotent: bool = False,
    ) -> Reply:
        """As `Search.call` says."""
        target = path + (f"?{urlencode(query)}" if query else "")
        content = _content(body, lines)
        kind = "application/json" if lines is None else "application/x-ndjson"
        slow = method != "POST" or path.endswith(("_search", "_refresh"))
        limit = self._limits.slow if slow else self._limits.quick
        deadline = self._clock.monotonic() + 2 * limit
        await self._acquire(limit)
        try:
            for attempt in range(1, self._limits.tries + 1):
                left = deadline - self._clock.monotonic()
                if left <= 0:  # a pause that took longer than it was to
                    break
                host = self._hosts.pick(self._clock.monotonic())
                try:
                    answer = await self._clock.within(
                        min(limit, left),
                        self._exchange.run(host, method, target, kind, content),
                    )
                    return self._judged(host, answer)
                except TimedOut:
                    failed = Failed("no answer in time", sent=True, blame=True)
                except Failed as error:
                    failed = error
                pause = self._after(host, failed, attempt, idempotent)
                if self._clock.monotonic() + pause >= deadline:
                    break
                if pause:
                    await self._clock.sleep(pause)
            raise SearchFailed("search servers are overloaded")  # the deadline came
        finally:
            self._free.release()

    async def _acquire(self, limit: float) -> None:
        if self._waiting >= self._limits.waiting:
            raise SearchFailed("too many calls wait for the search server")
        self._waiting += 1
        try:
            await self._clock.within(limit, self._free.acquire())
        except TimedOut:
            raise SearchFailed("all connections to the search server wait") from None
        finally:
            self._waiting -= 1

    def _judged(self, host: Host, answer: Answer) -> Reply:
        """The answer as a Reply; Failed for what may be tried again."""
        if answer.body is None:
            raise Failed("an answer that is no JSON object", sent=True, blame=True)
        if host.failures:
            _log.info("search server {host} answers again", host=host.name)
        host.answered()
        if answer.status == 401:
            raise Rejected(f"{host.name} refuses the credentials (401)")
        if answer.status == 403 and "cluster_block" not in error_type(answer.body):
            raise Rejected(f"{host.name} forbids {error_type(answer.body)} (403)")
        if answer.status in {403, 429, 502, 503, 504}:
            seen = f"{answer.status} {error_type(answer.body)}".strip()
            raise Failed(seen, sent=answer.status >= 500, busy=True)
        return Reply(answer.status, answer.body)

    def _after(
        self, host: Host, failed: Failed, attempt: int, idempotent: bool
    ) -> float:
        """Note the failure; gives the pause before another try, or raises."""
        if failed.blame:
            if not host.failures:
                told = {"host": host.name, "seen": failed.seen}
                _log.warn("search server {host}: {seen}", **told)
            host.failed(self._clock.monotonic())
        if failed.final or (failed.sent and not idempotent):
            raise _final(host, failed, idempotent)
        if attempt == self._limits.tries:
            raise _final(host, failed, idempotent)
        if attempt == 1 and not failed.busy:
            return 0.0
        longest = self._limits.pause * 2.0**attempt
        return min(longest, 2.0) * (0.5 + self._chance() / 2)


def error_type(body: Any) -> str:
    """The type that the server gives its error, or an empty text."""
    error = body.get("error") if isinstance(body, dict) else None
    found = error.get("type") if isinstance(error, dict) else None
    return found if isinstance(found, str) else ""


def _final(host: Host, failed: Failed, idempotent: bool) -> SearchFailed:
    seen = f"search server {host.name}: {failed.seen}"
    if failed.final:
        return Rejected(seen)
    if failed.sent and not idempotent:
        return MaybeApplied(seen)
    return SearchFailed(seen)


def _content(body: object | None, lines: Sequence[object] | None) -> bytes | None:
    if lines is not None:
        return "".join(f"{_json(line)}\n" for line in lines).encode()
    return None if body is None else _json(body).encode()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
