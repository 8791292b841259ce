"""A node's face: every target it knows, who may ask, and who answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from twisted.internet.defer import CancelledError

from ostore.backends.nodes.protocol import BOOT, NODE, NOW
from ostore.backends.shards.node import ShardNode
from ostore.model.errors import NotFound
from ostore.model.layouts import ShardKey
from ostore.model.signing import Guard
from ostore.streaming.clock import Clock
from ostore.streaming.problem import Problem
from ostore.streaming.reply import Reply
from ostore.streaming.request import StreamingRequest
from ostore.streaming.resource import Call, Dispatcher, Resource
from ostore.web.data.answers import problem, shown_boot
from ostore.web.data.conversation import Beginning, Conversations
from ostore.web.data.node import ClusterId, Drain, NodeView, ShardList, Sweep
from ostore.web.data.objects import ContentResource, ShardResource
from ostore.web.data.operations import Operations
from ostore.web.data.targets import (
    CONTENT,
    FRAMES,
    OPEN,
    SHARD,
    TEMPORARY,
    UPLOAD,
    label,
    match,
)
from ostore.web.data.temp import TemporaryResource
from ostore.web.data.uploads import UploadResource
from ostore.web.status import Live, Metrics, Ready
from ostore.web.traffic import Traffic

_TOKEN = re.compile(r"(?<=[?&]token=)[^&]*")


def _without_tokens(target: str) -> str:
    return _TOKEN.sub("...", target)


class DataApi:
    """The `handle` of the StreamingSite of one node: signatures, routes, counts.

    Made once by the wiring for each node. `log_line` gets one dict a request;
    `found_rotten` is told of each shard that a request found rotten; `reasons` says
    what beside the node itself keeps it from being ready.
    """

    def __init__(
        self,
        node: ShardNode,
        guard: Guard,
        clock: Clock,
        entropy: Callable[[int], bytes],
        log_line: Callable[[dict[str, object]], None],
        found_rotten: Callable[[ShardKey], None] = lambda _: None,
        reasons: Callable[[], list[str]] = list,
    ) -> None:
        self._node = node
        self._guard = guard
        self._clock = clock
        self._found_rotten = found_rotten
        self._others = reasons
        self.conversations = Conversations(
            Operations(node.store, found_rotten), clock, entropy
        )
        self._traffic = Traffic(self._figures)
        self._fixed: dict[str, Resource] = {
            "/node": NodeView(node, clock.wall),
            "/shards": ShardList(node),
            "/cluster-id": ClusterId(node),
            "/drain": Drain(node),
            "/sweep": Sweep(node),
            "/health/live": Live(),
            "/health/ready": Ready(self._reasons),
            "/metrics": Metrics(self._traffic),
        }
        self._dispatch = Dispatcher(
            lambda _: _Guarded(self), clock, log_line, _without_tokens
        )

    async def __call__(self, request: StreamingRequest, reply: Reply) -> None:
        """Answer one request."""
        began = self._clock.monotonic()
        self._traffic.begin()
        try:
            await self._dispatch(request, reply)
        finally:
            self._traffic.end(
                request.method.decode("latin-1"),
                label(request.path),
                reply.status if reply.started else None,
                self._clock.monotonic() - began,
                request.body.received,
                reply.sent,
            )

    def told(self) -> dict[str, str]:
        """The headers that every answer bears."""
        return {
            NODE: self._node.node_id,
            NOW: f"{self._clock.wall():.3f}",
            BOOT: shown_boot(self._node.boot),
        }

    def resource(self, call: Call) -> Resource:
        """Who answers, once the request was found to be for us.

        Raises Unsigned, Malformed, NotFound, Problem.
        """
        proven = None
        if call.path.decode("latin-1") not in OPEN:
            target = call.request.uri.decode("utf-8", "surrogateescape")
            proven = self._guard.check(call.method, target, call.header)
        if call.header(NODE) not in (None, self._node.node_id):
            raise Problem(421, "another node answers here", slug="other-node")
        found, name = match(call.path)
        store = self._node.store
        if found == TEMPORARY:
            return TemporaryResource(store.temporaries, name)
        if found == UPLOAD:
            return UploadResource(store.uploads, name)
        if found == CONTENT:
            return ContentResource(store, name, self._found_rotten)
        if found == SHARD:
            return ShardResource(store, name, self._found_rotten)
        if found == FRAMES and proven is not None:
            return Beginning(self.conversations, proven)
        if found not in self._fixed:
            raise NotFound("there is nothing here")
        return self._fixed[found]

    async def _reasons(self) -> list[str]:
        reason = self._node.reason
        return [*([reason] if reason else []), *self._others()]

    def _figures(self) -> Mapping[str, float]:
        node, store = self._node, self._node.store
        operations = self.conversations.operations
        return {
            "shards": node.shard_count,
            "free_bytes": node.space.free,
            "total_bytes": node.space.total,
            "temporaries": len(store.temporaries),
            "uploads": len(store.uploads),
            "strange_files": store.strange,
            "lost_shards_total": store.lost,
            "rotten_shards_total": store.rotten,
            "refused_signatures_total": self._guard.refused,
            "conversations": len(self.conversations),
            "broken_conversations_total": self.conversations.broken,
            "conversation_operations_total": operations.done,
            "failed_conversation_operations_total": operations.failed,
        }


class _Guarded(Resource):
    """What all answers have in common, around the resource that gives them."""

    def __init__(self, api: DataApi) -> None:
        self._api = api

    async def serve(self, call: Call) -> None:
        """Check who asks, then answer. Raises Problem."""
        told = self._api.told()
        call.reply.headers.update(told)
        try:
            await self._api.resource(call).serve(call)
        except CancelledError:
            raise
        except Exception as error:
            found = problem(error)
            if found is None:
                raise
            found.headers.update(told)
            raise found from error
