"""The api service's face: every target it knows, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
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
from ostore.web.api.jobs import Administration, Adopt, JobResource, NodeResource
from ostore.web.api.listing import Listing
from ostore.web.api.locate import Locate
from ostore.web.api.objects import ObjectResource
from ostore.web.api.temp import UploadResource
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
        "/cluster/adopt",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
)
_NAMED: Final = {
    b"/objects/": "/objects/{name}",
    b"/versions/": "/versions/{name}",
    b"/locate/": "/locate/{hash}",
    b"/cluster/jobs/": "/cluster/jobs/{job}",
    b"/temp/": "/temp/{token}",
    b"/cluster/nodes/": "/cluster/nodes/{node}",
}

_OBJECTS = b"/objects/"
OBJECTS = frozenset({"/objects/{name}", "/versions/{name}"})
SMALL = 64 * 1024
"""Requests to those of so few bytes tell whether the service is slow."""

ROUTES = (*sorted(_FIXED - {SERVER}), *_NAMED.values())
"""Every target, as the documentation writes it."""


def match(path: bytes) -> tuple[str, bytes]:
    """The label of a path as sent, and what stands behind its fixed part.

    Nothing is decoded or normalised: `%2F`, `..` and `//` belong to a name.
    """
    if path.startswith(_OBJECTS) and len(path) > len(_OBJECTS):
        return "/objects/{name}", path[len(_OBJECTS) :]
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
    would hold up the reactor; `took` is told how long small requests took; `page` makes
    /metrics of our own part of it. Without `admin` nobody is let in for administration.
    With `require_digest` a PUT or POST without a Digest is refused; with
    `instant_upload` a known one needs no upload.
    `figures` are those of what lies below the store.
    """

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        log_line: Callable[[dict[str, object]], None],
        workers: Workers,
        *,
        admin: Administration | None = None,
        took: Callable[[float], None] = lambda _: None,
        require_digest: bool = False,
        instant_upload: bool = True,
        page: Callable[[bytes], Awaitable[bytes]] | None = None,
        figures: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._store = store
        self._admin = admin
        self._took = took
        self._instant_upload = instant_upload
        self._workers = workers
        self._require_digest = require_digest
        self._traffic = Traffic(lambda: {**store.figures(), **figures()})
        self._fixed: dict[str, Resource] = {
            SERVER: _Server(),
            "/objects/": Listing(store),
            "/versions/": VersionsOfAll(store),
            "/cluster": ClusterView(store),
            "/cluster/adopt": Adopt(store, admin),
            "/health/live": Live(),
            "/health/ready": Ready(store.reasons),
            "/metrics": Metrics(self._traffic, page),
        }
        redact = hide_after("/temp/")
        self._dispatch = Dispatcher(self._route, clock, log_line, redact, self._ended)

    def metrics(self) -> bytes:
        """What this process counts."""
        return self._traffic.text()

    def __call__(self, request: StreamingRequest, reply: Reply) -> Awaitable[None]:
        """Answer one request."""
        self._traffic.begin()
        return self._dispatch(request, reply)

    def _ended(self, call: Call, took: float) -> None:
        reply, label = call.reply, call.label
        received = call.body.received
        if label in OBJECTS and received + reply.sent <= SMALL:
            self._took(took)
        status = reply.status if reply.started else None
        self._traffic.end(call.method, label, status, took, received, reply.sent)

    def _route(self, call: Call) -> Resource:
        label, rest = match(call.path)
        call.label = label
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
                instant_upload=self._instant_upload,
            )
        if label == "/temp/{token}":
            return UploadResource(self._store, rest)
        if label == "/versions/{name}":
            return VersionsOfOne(self._store, object_name(rest))
        if label == "/locate/{hash}":
            return Locate(self._store, rest)
        if label == "/cluster/jobs/{job}":
            return JobResource(self._store, self._admin, rest)
        if label == "/cluster/nodes/{node}":
            return NodeResource(self._store, self._admin, rest)
        if label not in self._fixed:
            raise NotFound("there is nothing here; objects live under /objects/")
        return self._fixed[label]
