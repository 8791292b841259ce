"""`/cluster`: the nodes as this service sees them."""

from __future__ import annotations

from ostore.engine.store import ObjectStore
from ostore.streaming.resource import Call, Resource
from ostore.web.api.answers import send_json


class ClusterView(Resource):
    """Shows what is in memory; asks nobody."""

    allowed = ("GET", "HEAD")

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def get(self, call: Call) -> None:
        """Nodes, repairs and jobs."""
        send_json(call.reply, 200, self._store.view())
