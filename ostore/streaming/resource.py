"""From method to coroutine, from error to answer, one access log line a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ostore.model.errors import ClientGone, Malformed
from ostore.streaming.clock import Clock
from ostore.streaming.problem import Problem, as_problem
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest

__all__ = ["Call", "Dispatcher", "Problem", "Resource", "hide_after", "printable"]

MOST_FIELDS = 100
"""Query parameters taken from one request."""

LONGEST_TARGET = 2048
LONGEST_AGENT = 256
"""Characters of client input that one log line may hold."""


class Call:
    """One request and its reply, as a resource's method gets them.

    `path` is as sent: without query, not percent-decoded. `label` is the router's: the
    kind of target, for who counts.
    """

    label = ""

    def __init__(self, request: StreamingRequest, reply: Reply) -> None:
        self.request = request
        self.reply = reply
        self.body = request.body
        self.method = request.method.decode("ascii")
        self.path = request.path
        self.request_id = reply.request_id
        self.remote = request.remote
        self.header = request.header
        self._query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """Decoded query parameters, blank values kept. Raises Malformed."""
        if self._query is None:
            self._query = self._decoded() if self.request.query_string else {}
        return self._query

    def _decoded(self) -> dict[str, list[str]]:
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


class Resource:
    """Answers one kind of target: `async def get(self, call)` and so on.

    `allowed` names the methods in capitals. HEAD goes to `head` when there is one, else
    to `get` (a reply to HEAD drops the body itself). OPTIONS is answered here: 204 with
    Allow. Every other method is 405 with Allow.
    """

    allowed: tuple[str, ...] = ()

    def serve(self, call: Call) -> Awaitable[None]:
        """Run the method's coroutine. Raises Problem 405 and what the method raises."""
        if call.method in self.allowed:
            return self._method(call.method)(call)
        return self._serve_other(call)

    async def _serve_other(self, call: Call) -> None:
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
    any header but the user agent; `redact` is applied to the target before. `ended` is
    told of each request, with the seconds that it took.
    """

    def __init__(
        self,
        route: Callable[[Call], Resource],
        clock: Clock,
        log_line: Callable[[dict[str, object]], None],
        redact: Callable[[str], str],
        ended: Callable[[Call, float], None] = lambda *_: None,
    ) -> None:
        self._route = route
        self._ended = ended
        self._clock = clock
        self._log_line = log_line
        self._redact = redact
        self._log = Logger()
        self._second = -1
        self._until_second = ""

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
            seconds = self._clock.monotonic() - began
            self._write_line(call, seconds)
            self._ended(call, seconds)

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
        agent = request.header("User-Agent") or ""
        target = self._redact(request.uri.decode("latin-1"))
        self._log_line(
            {
                "time": self._now(),
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

    def _now(self) -> str:
        """RFC 3339 in UTC with milliseconds."""
        now = self._clock.wall()
        second = int(now)
        if second != self._second:
            self._second = second
            self._until_second = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        return f"{self._until_second}.{int((now - second) * 1000):03d}+00:00"


def printable(text: str, limit: int) -> str:
    """Client input for a log: visible ASCII as it is, all else escaped, cut short."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii")


def hide_after(*prefixes: str) -> Callable[[str], str]:
    """A `redact` that cuts what follows these path prefixes (such as `/temp/`).

    In the absolute form of a target too (RFC 9112, 3.2.2), whatever its scheme.
    """

    def redact(target: str) -> str:
        begin = 0
        if not target.startswith("/") and "://" in target:
            begin = max(0, target.find("/", target.index("://") + 3))
        for prefix in prefixes:
            if target.startswith(prefix, begin):
                return target[:begin] + prefix + "..."
        return target

    return redact
