"""The api service's face: every target it knows, and who answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ostore.engine.store import ObjectStore
from ostore.model.errors import NotFound
from ostore.model.names import object_name
from ostore.streaming.clock import Clock
from ostore.streaming.pools import Workers
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.resource import Call, Dispatcher, Resource, hide_after
from ostore.web.api.cluster import ClusterView
from ostore.web.api.listing import Listing
from ostore.web.api.locate import Locate
from ostore.web.api.objects import ObjectResource
from ostore.web.api.versions import VersionsOfAll, VersionsOfOne
from ostore.web.status import Live, Metrics, Ready
from ostore.web.traffic import Traffic

UNKNOWN = "unknown"
"""The label of targets that are not ours."""

SERVER = "*"
"""The label and the target of `OPTIONS *`."""

_FIXED = frozenset(
    {
        SERVER,
        "/objects/",
        "/versions/",
        "/cluster",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
)
_NAMED: Final = {
    b"/objects/": "/objects/{name}",
    b"/versions/": "/versions/{name}",
    b"/locate/": "/locate/{hash}",
}

ROUTES = (*sorted(_FIXED - {SERVER}), *_NAMED.values())
"""Every target, as the documentation writes it."""


def match(path: bytes) -> tuple[str, bytes]:
    """The label of a path as sent, and what stands behind its fixed part.

    Nothing is decoded or normalised: `%2F`, `..` and `//` belong to a name.
    """
    if path[:1] != b"/" and b"://" in path:
        # absolute form (RFC 9112, 3.2.2)
        _, slash, rest = path.partition(b"://")[2].partition(b"/")
        path = slash + rest or b"/"
    fixed = path.decode("latin-1")
    if fixed in _FIXED:
        return fixed, b""
    for prefix, label in _NAMED.items():
        if path.startswith(prefix):
            return label, path[len(prefix) :]
    return UNKNOWN, b""


class _Server(Resource):
    """`OPTIONS *`: what the service can do at all."""

    allowed = ObjectResource.allowed

    async def serve(self, call: Call) -> None:
        """204 with Allow; there is nothing else here."""
        if call.method != "OPTIONS":
            raise NotFound("there is nothing here")
        await super().serve(call)


class Api:
    """The `handle` of an api service's StreamingSite: routes, counts, answers.

    Made once by the wiring. `log_line` gets one dict a request; `workers` do what
    would hold up the reactor. With `require_digest` a PUT or POST without a Digest is refused.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        log_line: Callable[[dict[str, object]], None],
        workers: Workers,
        *,
        require_digest: bool = False,
    ) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._require_digest = require_digest
        self._traffic = Traffic(store.figures)
        self._fixed: dict[str, Resource] = {
            SERVER: _Server(),
            "/objects/": Listing(store),
            "/versions/": VersionsOfAll(store),
            "/cluster": ClusterView(store),
            "/health/live": Live(),
            "/health/ready": Ready(store.reasons),
            "/metrics": Metrics(self._traffic),
        }
        redact = hide_after("/temp/")
        self._dispatch = Dispatcher(self._route, clock, log_line, redact)

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Answer one request."""
        began = self._clock.monotonic()
        self._traffic.begin()
        try:
            await self._dispatch(request, reply)
        finally:
            self._traffic.end(
                request.method.decode("latin-1"),
                match(request.path)[0],
                reply.status if reply.started else None,
                self._clock.monotonic() - began,
                request.body.received,
                reply.sent,
            )

    def _route(self, call: Call) -> Resource:
        label, rest = match(call.path)
        if label == "/objects/{name}" or (
            label == "/objects/" and call.method in ("PUT", "POST", "DELETE")
        ):
            # A write to the listing's target is one with an empty name.
            name = object_name(rest)
            return ObjectResource(
                self._store,
                name,
                self._workers,
                require_digest=self._require_digest,
            )
        if label == "/versions/{name}":
            return VersionsOfOne(self._store, object_name(rest))
        if label == "/locate/{hash}":
            return Locate(self._store, rest)
        if label not in self._fixed:
            raise NotFound("there is nothing here; objects live under /objects/")
        return self._fixed[label]
