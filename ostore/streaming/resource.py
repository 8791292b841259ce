"""From method to coroutine, from error to answer, one access log line a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ostore.model.errors import OstoreError
from ostore.streaming.clock import Clock
from ostore.streaming.reply import Reply
from ostore.streaming.request import RequestBody, StreamingRequest


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


class Call:
    """One request and its reply, as a resource's method gets them."""

    request: StreamingRequest
    reply: Reply
    body: RequestBody
    method: str
    path: bytes
    """As sent: no query, not percent-decoded."""
    request_id: str
    remote: str

    @property
    def query(self) -> dict[str, list[str]]:
        """Decoded query parameters, blank values kept. Raises Malformed."""
        raise NotImplementedError

    def header(self, name: str) -> str | None:
        """See StreamingRequest.header."""
        raise NotImplementedError


class Resource:
    """Answers one kind of target: `async def get(self, call)` and so on.

    `allowed` names the methods. HEAD goes to `head` when there is one, else to `get`.
    OPTIONS is answered here (204 with Allow), every other method with 405 and Allow.
    """

    allowed: tuple[str, ...] = ()

    async def serve(self, call: Call) -> None:
        """Run the method's coroutine. Raises Problem 405."""
        raise NotImplementedError


class Dispatcher:
    """The `handle` of a site: finds the resource, maps errors, writes the access log.

    `route(call)` gives the resource (or raises NotFound). Errors become
    application/problem+json by one table; after the first byte they cut the connection.
    `redact` is applied to the request target before it is logged.
    """

    def __init__(
        self,
        route: Callable[[Call], Resource],
        clock: Clock,
        log_line: Callable[[dict[str, object]], None],
        redact: Callable[[str], str],
    ) -> None:
        raise NotImplementedError

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Answer one request; never raises but CancelledError."""
        raise NotImplementedError


def hide_after(*prefixes: str) -> Callable[[str], str]:
    """A `redact` that cuts what follows these path prefixes (`/temp/`)."""
    raise NotImplementedError
