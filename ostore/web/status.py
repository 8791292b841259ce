"""`/health/*` and `/metrics`: the same on every service, open to everybody."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from ostore.streaming.reply import Reply
from ostore.streaming.resource import Call, Resource
from ostore.web.traffic import CONTENT_TYPE, Traffic

Reasons = Callable[[], Awaitable[list[str]]]
"""Why the service is not ready, a sentence each."""


class Live(Resource):
    """Answers as long as the process does."""

    allowed = ("GET", "HEAD")

    async def get(self, call: Call) -> None:
        """Always 200."""
        _send(call.reply, 200, "application/json", {"live": True})


class Ready(Resource):
    """Whether requests would be served; load balancers ask it."""

    allowed = ("GET", "HEAD")

    def __init__(self, reasons: Reasons) -> None:
        self._reasons = reasons

    async def get(self, call: Call) -> None:
        """200, or 503 with the reasons: problem+json, so errors have one shape."""
        reasons = await self._reasons()
        if not reasons:
            shown = {"ready": True, "reasons": reasons}
            _send(call.reply, 200, "application/json", shown)
            return
        problem = {
            "type": "urn:ostore:problem:not-ready",
            "title": "Not ready",
            "status": 503,
            "detail": "; ".join(reasons),
            "request_id": call.request_id,
            "ready": False,
            "reasons": reasons,
        }
        call.reply.headers["Retry-After"] = "1"
        _send(call.reply, 503, "application/problem+json", problem)


class Metrics(Resource):
    """What Prometheus scrapes."""

    allowed = ("GET", "HEAD")

    def __init__(
        self,
        traffic: Traffic,
        page: Callable[[bytes], Awaitable[bytes]] | None = None,
    ) -> None:
        """`page`: what is shown of what this process counts."""
        self._traffic = traffic
        self._page = page

    async def get(self, call: Call) -> None:
        """Everything that is counted."""
        text = self._traffic.text()
        if self._page is not None:
            text = await self._page(text)
        call.reply.send(200, {"Content-Type": CONTENT_TYPE}, text)


def _send(
    reply: Reply, status: int, content_type: str, value: Mapping[str, object]
) -> None:
    headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
    reply.send(status, headers, json.dumps(value).encode() + b"\n")
