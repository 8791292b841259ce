"""Searches that are believed only when every shard took part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ostore.backends.metadata.elastic_client import (
    Reply,
    Search,
    SearchFailed,
    error_type,
)

Filter = Mapping[str, Any]

_QUERY = {"preference": "ostore", "allow_partial_search_results": "false"}


class Pages:
    """Pages of the documents behind one alias; a partial answer is SearchFailed."""

    def __init__(self, search: Search, alias: str) -> None:
        self._search = search
        self._alias = alias

    async def refresh(self) -> None:
        """Make searches see all that was acknowledged before."""
        reply = await self._search.call(
            "POST", f"/{self._alias}/_refresh", idempotent=True
        )
        if reply.status != 200 or _shards(reply).get("failed") != 0:
            raise SearchFailed(f"_refresh: {reply.status} {error_type(reply.body)}")

    async def hits(
        self,
        filters: Sequence[Filter],
        fields: Sequence[str],
        sort: str,
        after: str | None,
        size: int,
    ) -> list[Mapping[str, Any]]:
        """Sources that pass all filters, by `sort` behind `after`, at most `size`."""
        body = {
            "size": size,
            "track_total_hits": False,
            "_source": list(fields),
            "query": {"bool": {"filter": list(filters)}},
            "sort": [{sort: "asc"}],
            **({} if after is None else {"search_after": [after]}),
        }
        try:
            hits = (await self._search_whole(body))["hits"]["hits"]
            return [hit["_source"] for hit in hits]
        except (KeyError, TypeError):
            raise SearchFailed("_search gave what is no page") from None

    async def values(
        self, filters: Sequence[Filter], field: str, after: str, size: int
    ) -> list[str]:
        """Distinct values of `field` greater than `after`, ascending."""
        page: dict[str, Any] = {
            "size": size,
            "sources": [{"value": {"terms": {"field": field}}}],
            **({"after": {"value": after}} if after else {}),
        }
        body = {
            "size": 0,
            "track_total_hits": False,
            "query": {"bool": {"filter": list(filters)}} if filters else ALL,
            "aggs": {"page": {"composite": page}},
        }
        try:
            found = (await self._search_whole(body))["aggregations"]["page"]["buckets"]
            return [bucket["key"]["value"] for bucket in found]
        except (KeyError, TypeError):
            raise SearchFailed("_search gave what is no page") from None

    async def _search_whole(self, body: object) -> dict[str, Any]:
        reply = await self._search.call(
            "POST",
            f"/{self._alias}/_search",
            query=_QUERY,
            body=body,
            idempotent=True,
        )
        if reply.status != 200:
            raise SearchFailed(f"_search: {reply.status} {error_type(reply.body)}")
        shards = _shards(reply)
        whole = shards.get("successful") == shards.get("total") and not shards.get(
            "failed"
        )
        if reply.body.get("timed_out") is not False or not whole:
            raise SearchFailed("_search answered from a part of the shards")
        found: dict[str, Any] = reply.body
        return found


ALL: Filter = {"match_all": {}}


def term(field: str, value: object) -> Filter:
    """The field has this value."""
    return {"term": {field: value}}


def between(field: str, low: str, end: str | None) -> Filter:
    """The field is at least `low`, and below `end`."""
    return {"range": {field: {"gte": low, **({} if end is None else {"lt": end})}}}


def _shards(reply: Reply) -> Mapping[str, Any]:
    shards = reply.body.get("_shards")
    return shards if isinstance(shards, dict) and shards.get("total") else {"failed": 1}
