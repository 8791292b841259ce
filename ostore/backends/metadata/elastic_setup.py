"""Bringing a search server into shape, and watching that it stays so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from twisted.logger import Logger

from ostore.backends.metadata.elastic_client import (
    Rejected,
    Reply,
    Search,
    SearchFailed,
    error_type,
)
from ostore.streaming.clock import Clock

HEADS = "ostore-heads"
CLUSTER = "ostore-cluster"
ALIASES = (HEADS, CLUSTER)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_WATCH = 10.0
_OPENSEARCH = frozenset({1, 2, 3})
_ELASTICSEARCH = frozenset({7, 8, 9})
_log = Logger()


class Setup:
    """Makes templates and indices until they stand, then asks for health.

    `run` goes on until it is cancelled. `problem` says why the store cannot be used,
    None when it can. `refused` is called once, with one sentence, when trying again
    cannot help.
    """

    def __init__(
        self,
        search: Search,
        where: str,
        clock: Clock,
        chance: Callable[[], float],
        refused: Callable[[str], None],
    ) -> None:
        self.ready = False
        self.problem: str | None = "the search server was not asked yet"
        self.copies = 1
        self._search = search
        self._where = where
        self._clock = clock
        self._chance = chance
        self._refused: Callable[[str], None] | None = refused

    async def run(self) -> None:
        """Set up, then watch."""
        pause = _FIRST_PAUSE
        while not self.ready:
            await self._noting(self._set_up)
            if not self.ready:
                await self._clock.sleep(pause * (0.5 + self._chance() / 2))
                pause = min(pause * 2, _LONGEST_PAUSE)
        while True:
            await self._clock.sleep(_WATCH)
            await self.look()

    async def look(self) -> str | None:
        """Ask for the health of the indices; gives the problem, if there is one."""
        if self.ready:
            await self._noting(self._health)
        return self.problem

    async def _noting(self, work: Callable[[], Any]) -> None:
        before = self.problem
        try:
            await work()
            self.problem = None
        except Rejected as error:
            self.problem = error.seen
            if self._refused is not None:
                refused, self._refused = self._refused, None
                refused(error.seen)
        except SearchFailed as error:
            self.problem = error.seen
        if self.problem != before:
            told = self.problem or "works"
            _log.info("metadata in {where}: {told}", where=self._where, told=told)

    async def _set_up(self) -> None:
        await self._check_version()
        health = await self._get("/_cluster/health")
        self._count(health)
        for alias in ALIASES:
            await self._template(alias)
            await self._index(alias)
        self.ready = True

    async def _check_version(self) -> None:
        reply = await self._get("/_nodes/_local")
        try:
            (node,) = reply.body["nodes"].values()
            version = str(node["version"])[:40]
            major, minor = map(int, version.split(".")[:2])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Rejected(
                f"{self._where} is neither Elasticsearch nor OpenSearch"
            ) from None
        old = (major, minor) < (7, 10) and major not in _OPENSEARCH
        if old or major not in _ELASTICSEARCH | _OPENSEARCH or "build_type" not in node:
            raise Rejected(
                f"{self._where} is of version {version}: it must be Elasticsearch "
                "7.10 or later, 8 or 9, or OpenSearch 1, 2 or 3"
            )

    async def _template(self, alias: str) -> None:
        path, ours = f"/_index_template/{alias}", template(alias)
        reply = await self._get(path)
        if reply.status == 200:
            try:
                standing = reply.body["index_templates"][0]["index_template"]
                if standing.get("version", 0) >= ours["version"]:
                    self._check(alias, standing["template"].get("mappings", {}))
                    return
            except (AttributeError, IndexError, KeyError, TypeError):
                raise _odd(path, reply) from None
        reply = await self._search.call("PUT", path, body=ours, idempotent=True)
        if reply.status != 200:
            raise _odd(path, reply)

    async def _index(self, alias: str) -> None:
        path = f"/{alias}"
        reply = await self._get(path)
        if reply.status == 404:
            made = await self._search.call(
                "PUT",
                f"/{alias}-v1",
                body={"aliases": {alias: {}}},
                idempotent=True,
            )
            kind = error_type(made.body)
            if made.status != 200 and kind != "resource_already_exists_exception":
                raise _odd(f"{path}-v1", made)
            reply = await self._get(path)
            if reply.status == 404:
                raise SearchFailed(f"the index {alias}-v1 has no alias {alias}")
        try:
            ((index, facts),) = reply.body.items()
            settings = facts["settings"]["index"]
            durability = settings.get("translog", {}).get("durability", "request")
            mappings = facts["mappings"]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise SearchFailed(f"{alias} must be the alias of one index") from None
        if index == alias:
            raise SearchFailed(f"{alias} must be an alias, and is an index")
        if durability.lower() != "request":
            raise SearchFailed(
                f"index.translog.durability of {index} is {durability}: "
                "it must be request, or acknowledged writes may be lost"
            )
        self._check(index, mappings)

    def _check(self, what: str, mappings: Mapping[str, Any]) -> None:
        """Refuse mappings that lack a field of ours, or keep it differently."""
        alias = next(one for one in ALIASES if what.startswith(one))
        ours = template(alias)["template"]["mappings"]["properties"]
        theirs = mappings.get("properties", {})
        for field, kind in ours.items():
            if _plain(theirs.get(field, {})) != _plain(kind):
                raise SearchFailed(
                    f"the mapping of {field} in {what} is not that of ostore"
                )
        if mappings.get("dynamic") != "strict":
            raise SearchFailed(f"the mapping of {what} must be strict")

    async def _health(self) -> None:
        path = f"/_cluster/health/{','.join(ALIASES)}"
        health = await self._get(path, {"timeout": "1s"})
        status = health.body.get("status")
        if health.status != 200 or status not in {"green", "yellow"}:
            raise SearchFailed(
                f"{self._where}: the indices of ostore are {status or 'not there'}"
            )
        self._count(health)

    def _count(self, health: Reply) -> None:
        nodes = health.body.get("number_of_data_nodes")
        if health.status != 200 or not isinstance(nodes, int):
            raise _odd("/_cluster/health", health)
        self.copies = max(1, min(2, nodes))

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Reply:
        return await self._search.call("GET", path, query=query or {}, idempotent=True)


@cache
def template(alias: str) -> dict[str, Any]:
    """The index template of that alias, as the package holds it."""
    source = files("ostore.backends.metadata") / "templates" / f"{alias}.json"
    found: dict[str, Any] = json.loads(source.read_text("utf-8"))
    return found


def _plain(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A field's mapping without what says nothing: servers leave out or add these."""
    plain = {key: str(value).lower() for key, value in mapping.items()}
    return {"type": "object", **plain} if "enabled" in plain else plain


def _odd(path: str, reply: Reply) -> SearchFailed:
    return SearchFailed(f"{path}: {reply.status} {error_type(reply.body)}".strip())
