"""`/locate/{hash}`: where the shards of a content lie."""

from __future__ import annotations

from urllib.parse import unquote

from ostore.engine.store import ObjectStore
from ostore.model.digest import parse_content_hash
from ostore.streaming.resource import Call, Resource
from ostore.web.api.answers import send_json


class Locate(Resource):
    """Asks the nodes anew at each request; made by the router for one request."""

    allowed = ("GET", "HEAD")

    def __init__(self, store: ObjectStore, text: bytes) -> None:
        self._store = store
        self._text = text

    async def get(self, call: Call) -> None:
        """Places by shard number. Raises Malformed, NotFound."""
        text = unquote(self._text.decode("latin-1"), "latin-1")
        places = await self._store.locate(parse_content_hash(text))
        shown = {str(index): place for index, place in sorted(places.items())}
        send_json(call.reply, 200, shown)
