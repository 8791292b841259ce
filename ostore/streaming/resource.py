"""From method to coroutine, from error to answer, one access log line a request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Final
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES

from ostore.model.errors import (
    AlreadyExists,
    ClientGone,
    ConditionFailed,
    Deleted,
    DigestMismatch,
    Malformed,
    NoSpace,
    NotFound,
    OstoreError,
    OutcomeUnknown,
    Refused,
    ShardError,
    Unavailable,
)
from ostore.streaming.clock import Clock
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest

MOST_FIELDS = 100
"""Query parameters taken from one request."""

LONGEST_TARGET = 2048
LONGEST_AGENT = 256
"""Characters of client input that one log line may hold."""


class Problem(OstoreError):
    """An answer that only HTTP knows: raise it, and it becomes problem+json.

    `slug` makes the type `urn:ostore:problem:{slug}`; "" gives about:blank. An empty
    title stands for the status's own phrase.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        slug: str = "",
        title: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.headers = dict(headers or {})

    def send(self, reply: Reply) -> None:
        """Answer with application/problem+json (RFC 9457)."""
        phrase = RESPONSES.get(self.status, b"Error").decode("ascii")
        document = {
            "type": f"urn:ostore:problem:{self.slug}" if self.slug else "about:blank",
            "title": self.title or phrase,
            "status": self.status,
            "detail": str(self),
            "request_id": reply.request_id,
        }
        reply.headers = {"Content-Type": "application/problem+json", **self.headers}
        reply.send(self.status, body=json.dumps(document).encode("ascii"))


TABLE: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (DigestMismatch, 400, "digest-mismatch", "The body is not what its digest says"),
    (Malformed, 400, "malformed", "Malformed request"),
    (Deleted, 404, "deleted", "Deleted"),
    (NotFound, 404, "not-found", "Not found"),
    (AlreadyExists, 409, "already-exists", "Already exists"),
    (ConditionFailed, 412, "condition-failed", "Precondition failed"),
    (Refused, 409, "refused", "Refused"),
    (OutcomeUnknown, 503, "outcome-unknown", "Outcome unknown"),
    (Unavailable, 503, "unavailable", "Temporarily unavailable"),
    (NoSpace, 507, "no-space", "No space"),
)
"""Error to status, problem type and title; the first that fits."""


def as_problem(error: Exception) -> Problem | None:
    """The answer to an error; None when it is not for the client's eyes."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ShardError):
        return Problem(
            503,
            "the store cannot do this now",
            slug="unavailable",
            title="Temporarily unavailable",
            headers={"Retry-After": "1"},
        )
    for kind, status, slug, title in TABLE:
        if isinstance(error, kind):
            headers: dict[str, str] = {}
            if isinstance(error, Unavailable):
                headers["Retry-After"] = str(error.retry_after)
            if isinstance(error, Deleted):
                headers["X-Ostore-Delete-Marker"] = "true"
                headers["X-Ostore-Version"] = str(error.number)
            detail = str(error)
            return Problem(status, detail, slug=slug, title=title, headers=headers)
    return None


class Call:
    """One request and its reply, as a resource's method gets them.

    `path` is as sent: without query, not percent-decoded.
    """

    def __init__(self, request: StreamingRequest, reply: Reply) -> None:
        self.request = request
        self.reply = reply
        self.body = request.body
        self.method = request.method.decode("ascii")
        self.path = request.path
        self.request_id = reply.request_id
        self.remote = request.remote

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """Decoded query parameters, blank values kept. Raises Malformed."""
        try:
            return parse_qs(
                self.request.query_string.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=MOST_FIELDS,
            )
        except ValueError:
            raise Malformed(
                f"the query must be UTF-8, percent-encoded, of at most {MOST_FIELDS} fields"
            ) from None

    def header(self, name: str) -> str | None:
        """See StreamingRequest.header."""
        return self.request.header(name)


class Resource:
    """Answers one kind of target: `async def get(self, call)` and so on.

    `allowed` names the methods in capitals. HEAD goes to `head` when there is one, else
    to `get` (a reply to HEAD drops the body itself). OPTIONS is answered here: 204 with
    Allow. Every other method is 405 with Allow.
    """

    allowed: tuple[str, ...] = ()

    async def serve(self, call: Call) -> None:
        """Run the method's coroutine. Raises Problem 405 and what the method raises."""
        if call.method in self.allowed:
            await self._method(call.method)(call)
            return
        allow = {"Allow": ", ".join((*self.allowed, "OPTIONS"))}
        if call.method != "OPTIONS":
            detail = f"allowed here: {allow['Allow']}"
            raise Problem(405, detail, slug="method-not-allowed", headers=allow)
        call.reply.send(204, allow)

    def _method(self, name: str) -> Callable[[Call], Awaitable[None]]:
        if name == "HEAD" and not hasattr(self, "head"):
            name = "GET"
        method: Callable[[Call], Awaitable[None]] = getattr(self, name.lower())
        return method


class Dispatcher:
    """The `handle` of a site: finds the resource, maps errors, writes the access log.

    `route(call)` gives the resource, or raises NotFound. An error after the first byte
    cuts the connection. One dict of plain values a request goes to `log_line`, without
    any header but the user agent; `redact` is applied to the target before.
    """

    def __init__(
        self,
        route: Callable[[Call], Resource],
        clock: Clock,
        log_line: Callable[[dict[str, object]], None],
        redact: Callable[[str], str],
    ) -> None:
        self._route = route
        self._clock = clock
        self._log_line = log_line
        self._redact = redact
        self._log = Logger()

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Answer one request; raises nothing but CancelledError."""
        began = self._clock.monotonic()
        call = Call(request, reply)
        try:
            await self._route(call).serve(call)
            if not reply.finished and not reply.gone:
                raise RuntimeError("the request was left without an answer")
        except CancelledError:
            reply.abort()
            raise
        except Exception as error:  # noqa: BLE001 - every error has its answer
            self._answer(reply, error)
        finally:
            self._write_line(call, self._clock.monotonic() - began)

    def _answer(self, reply: Reply, error: Exception) -> None:
        problem = as_problem(error)
        if problem is None and not isinstance(error, ClientGone):
            failure = Failure(error)  # type: ignore[no-untyped-call]  # Twisted's
            self._log.failure("request {id} failed", failure, id=reply.request_id)
            problem = Problem(500, "the service made a mistake; its log knows more")
        if problem is None or reply.started:
            reply.abort()
        else:
            problem.send(reply)

    def _write_line(self, call: Call, seconds: float) -> None:
        reply, request = call.reply, call.request
        time = datetime.fromtimestamp(self._clock.wall(), UTC)
        agent = request.header("User-Agent") or ""
        target = self._redact(request.uri.decode("latin-1"))
        self._log_line(
            {
                "time": time.isoformat(timespec="milliseconds"),
                "request_id": reply.request_id,
                "remote": request.remote,
                "method": printable(call.method, LONGEST_AGENT),
                "target": printable(target, LONGEST_TARGET),
                "status": reply.status if reply.started else None,
                "complete": reply.finished,
                "bytes_in": request.body.received,
                "bytes_out": reply.sent,
                "seconds": round(seconds, 6),
                "user_agent": printable(agent, LONGEST_AGENT),
            }
        )


def printable(text: str, limit: int) -> str:
    """Client input for a log: visible ASCII as it is, all else escaped, cut short."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")


def hide_after(*prefixes: str) -> Callable[[str], str]:
    """A `redact` that cuts what follows these path prefixes (such as `/temp/`)."""

    def redact(target: str) -> str:
        for prefix in prefixes:
            if target.startswith(prefix):
                return prefix + "..."
        return target

    return redact
