"""The node itself over HTTP: what it is, what it holds, whose it is."""

from __future__ import annotations

from collections.abc import Callable

from ostore.backends.nodes.protocol import facts_to_json
from ostore.backends.shards.node import ShardNode
from ostore.model.errors import Malformed
from ostore.streaming.resource import Call, Resource
from ostore.web.data.answers import send_json, shown_boot
from ostore.web.data.parameters import Query


class NodeView(Resource):
    """`/node`."""

    allowed = ("GET", "HEAD")

    def __init__(self, node: ShardNode, wall: Callable[[], float]) -> None:
        self._node = node
        self._wall = wall

    async def get(self, call: Call) -> None:
        """Everything the node knows of itself."""
        Query(call)
        node = self._node
        shown = {
            "id": node.node_id,
            "boot": shown_boot(node.boot),
            "state": node.state,
            "reason": node.reason,
            "free": node.space.free,
            "total": node.space.total,
            "shards": node.shard_count,
            "cluster": node.cluster,
            "epoch": node.epoch,
            "now": round(self._wall(), 3),
        }
        send_json(call.reply, shown)


class ShardList(Resource):
    """`/shards`."""

    allowed = ("GET", "HEAD")

    def __init__(self, node: ShardNode) -> None:
        self._store = node.store

    async def get(self, call: Call) -> None:
        """A page of what is held; `next` is null behind the last."""
        query = Query(call, "after", "until", "limit")
        limit, until = query.limit(), query.hash("until")
        found = await self._store.list(query.hash("after"), limit, until)
        more = len(found) >= limit and found[-1].hash != until
        shown = {
            "shards": [facts_to_json(facts) for facts in found],
            "next": found[-1].hash if more else None,
        }
        send_json(call.reply, shown)


class ClusterId(Resource):
    """`/cluster-id`."""

    allowed = ("POST",)

    def __init__(self, node: ShardNode) -> None:
        self._node = node

    async def post(self, call: Call) -> None:
        """Join a cluster, or raise the epoch: 204."""
        query = Query(call, "id", "epoch")
        epoch = query.number("epoch")
        if epoch is None:
            raise Malformed("epoch is missing")
        await self._node.adopt(query.text("id"), epoch)
        call.reply.send(204)


class Drain(Resource):
    """`/drain`."""

    allowed = ("POST",)

    def __init__(self, node: ShardNode) -> None:
        self._node = node

    async def post(self, call: Call) -> None:
        """Take no new shards (`on=1`), or take them again (`on=0`): 204."""
        on = Query(call, "on").text("on")
        if on not in ("0", "1"):
            raise Malformed("on is 1 or 0")
        await self._node.drain(on=on == "1")
        call.reply.send(204)


class Sweep(Resource):
    """`/sweep`."""

    allowed = ("POST",)

    def __init__(self, node: ShardNode) -> None:
        self._store = node.store

    async def post(self, call: Call) -> None:
        """Remove what has expired in temp/; `dry_run=1`: only count it."""
        dry_run = Query(call, "dry_run").text("dry_run")
        if dry_run not in ("", "0", "1"):
            raise Malformed("dry_run is 1 or 0")
        if dry_run == "1":
            found = {"expired": await self._store.sweep(dry_run=True)}
        else:
            found = {"removed": await self._store.sweep()}
        send_json(call.reply, found)
