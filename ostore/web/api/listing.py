"""`/objects/`: names with their newest versions, page by page."""

from __future__ import annotations

from ostore.engine.store import ObjectStore
from ostore.streaming.resource import Call, Resource
from ostore.web.api import parameters
from ostore.web.api.answers import send_json


class Listing(Resource):
    """Pages of names in the order of their UTF-8 bytes; deleted ones are left out."""

    allowed = ("GET", "HEAD")

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def get(self, call: Call) -> None:
        """One page; its `next` goes into `after` for the page that follows."""
        page = await self._store.objects(
            parameters.text(call, "prefix"),
            parameters.text(call, "delimiter"),
            parameters.text(call, "after"),
            parameters.limit(call) or parameters.MAX_LIMIT,
        )
        shown = {
            "items": [version.to_json() for version in page.items],
            "prefixes": list(page.prefixes),
            "next": page.next,
        }
        send_json(call.reply, 200, shown)
