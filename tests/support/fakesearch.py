"""A search server in memory, at the level of `Search.call`.

It keeps to what Elasticsearch and OpenSearch do with the requests that ostore makes:
sequence numbers, `create` and `if_seq_no`, realtime reads of one copy or the other,
searches that see what was refreshed, strict mappings, a status for every item of a
bulk. Any other request raises `Unsupported`, so no test passes on a guess. Left out:
the death of a primary (its unacknowledged writes would be seen and then gone).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from ostore.backends.metadata.elastic_client import NO_QUERY, Reply
from ostore.model.errors import MetadataUnavailable
from tests.support.fakedocuments import Copy, Error, Index, Key, Unsupported, Write
from tests.support.fakequeries import search

PRIMARY, REPLICA = 0, 1
CONSTANT = "ostore"
"""The preference that every reader gives, so that all read one copy."""

_ACTIONS = ("create", "index", "delete")


@attrs.frozen
class Request:
    """One call; `text` is its body or lines as JSON."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    text: str = "null"
    idempotent: bool = False

    @classmethod
    def of(
        cls,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object | None,
        lines: Sequence[object] | None,
        idempotent: bool,
    ) -> Request:
        """The call, as a value."""
        text = json.dumps(body if lines is None else list(lines))
        return cls(method, path, tuple(sorted(query.items())), text, idempotent)

    @property
    def body(self) -> Any:
        """The JSON, the caller's own."""
        return json.loads(self.text)

    @property
    def asked(self) -> dict[str, str]:
        """The query."""
        return dict(self.query)

    @property
    def parts(self) -> list[str]:
        """The path."""
        return self.path.strip("/").split("/")


@attrs.frozen
class Progress:
    """How far a request is: answers of its first items, and writes to be copied."""

    items: tuple[str, ...] = ()
    writes: tuple[tuple[str, Write], ...] = ()


class FakeSearch:
    """The server. `call` runs a request at once; `step` runs it piece by piece.

    `chosen` is the copy that the constant preference picks; `copies` counts the data
    nodes that hold one. While `partial`, the shards of an index are not all open, and
    answers are what the servers give then.
    """

    def __init__(self, chosen: int = REPLICA) -> None:
        self.chosen = chosen
        self.other = PRIMARY
        self.copies = 2
        self.partial = False
        self.down = False
        self.node = {"name": "n", "version": "3.8.0", "build_type": "tar"}
        self.indices: dict[str, Index] = {}
        self.templates: dict[str, Any] = {}
        self.calls: list[Request] = []
        self.before: Callable[[Request], None] = lambda _: None

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: object | None = None,
        lines: Sequence[object] | None = None,
        idempotent: bool = False,
    ) -> Reply:
        """One exchange, from the first step to the last."""
        request = Request.of(method, path, query, body, lines, idempotent)
        self.calls.append(request)
        self.before(request)
        if self.down:
            raise MetadataUnavailable("the search server does not answer")
        progress: Progress | Reply = Progress()
        while isinstance(progress, Progress):
            progress = self.step(request, progress)
        return progress

    def refresh(self) -> None:
        """What the servers do by themselves once a second."""
        for index in self.indices.values():
            index.refresh()

    def documents(self) -> tuple[tuple[Copy, Copy], ...]:
        """All copies of all documents, for `restore`."""
        return tuple(
            (dict(index.primary), dict(index.replica))
            for index in self.indices.values()
        )

    def restore(self, documents: tuple[tuple[Copy, Copy], ...]) -> None:
        """Put the documents back as they were; searches see nothing of it."""
        for index, (primary, replica) in zip(
            self.indices.values(), documents, strict=True
        ):
            index.primary, index.replica = dict(primary), dict(replica)

    def step(self, request: Request, progress: Progress) -> Progress | Reply:
        """The next piece: an item read or written, the writes copied, or all the rest.

        A bulk takes one step for each item on the primary and one for the replica.
        """
        last = request.parts[-1]
        if request.method == "POST" and last == "_mget":
            return self._mget(request, progress)
        if request.method == "POST" and last == "_bulk":
            return self._bulk(request, progress)
        return _reply(self._whole(request))

    # Documents

    def _mget(self, request: Request, progress: Progress) -> Progress | Reply:
        asked = request.asked
        _only(asked, "preference", "_source_includes", "_source")
        index = self._index(request.parts[0])
        wanted = request.body["docs"]
        _only(request.body, "docs")
        one = wanted[len(progress.items)]
        _only(one, "_id", "routing", "_source")
        if isinstance(index, Error):
            item: dict[str, Any] = {"_id": one["_id"], "error": index.body}
        elif self.partial:
            error = Error(503, "no_shard_available_action_exception")
            item = {"_id": one["_id"], "error": error.body}
        else:
            constant = asked.get("preference") == CONSTANT
            copy = self.chosen if constant else self.other
            item = _found(index, one, copy, asked.get("_source_includes"))
        items = (*progress.items, json.dumps(item))
        if len(items) < len(wanted):
            return Progress(items)
        return Reply(200, {"docs": [json.loads(each) for each in items]})

    def _bulk(self, request: Request, progress: Progress) -> Progress | Reply:
        asked, lines = request.asked, request.body
        _only(asked, "require_alias", "timeout", "wait_for_active_shards", "refresh")
        items = _items(lines)
        done = len(progress.items)
        if done < len(items):
            action, facts, source = items[done]
            name = request.parts[0]
            item, write = self._item(name, asked, action, facts, source)
            writes = () if write is None else ((name, write),)
            progress = Progress(
                (*progress.items, json.dumps({action: item})),
                (*progress.writes, *writes),
            )
            if len(progress.items) < len(items) or progress.writes:
                return progress
        for name, write in progress.writes:
            index = self._index(name)
            assert isinstance(index, Index)
            index.replicate([write])
        told = [json.loads(each) for each in progress.items]
        if asked.get("refresh", "false") != "false":
            self.refresh()
        wrong = any("error" in each for item in told for each in item.values())
        return Reply(200, {"took": 1, "errors": wrong, "items": told})

    def _item(
        self,
        name: str,
        asked: Mapping[str, str],
        action: str,
        facts: Mapping[str, Any],
        source: Any,
    ) -> tuple[dict[str, Any], Write | None]:
        id = facts["_id"]
        outcome: Write | Error
        index = self._index(name, alias=asked.get("require_alias") == "true")
        if isinstance(index, Error):
            outcome = index
        elif (
            self.partial or int(asked.get("wait_for_active_shards", "1")) > self.copies
        ):
            outcome = Error(503, "unavailable_shards_exception")
        else:
            outcome = index.write(
                action, Key(facts.get("routing", id), id), facts, source
            )
        if isinstance(outcome, Error):
            told = {} if outcome.type == "not_found" else {"error": outcome.body}
            return {"_id": id, "status": outcome.status, **told}, None
        status = 201 if action == "create" or outcome.doc.seq_no == 0 else 200
        numbers = {"_seq_no": outcome.doc.seq_no, "_primary_term": 1}
        shards = {"total": self.copies, "successful": self.copies, "failed": 0}
        return {"_id": id, "status": status, **numbers, "_shards": shards}, outcome

    # Everything else takes one step

    def _whole(self, request: Request) -> dict[str, Any] | Error:
        method, parts = request.method, request.parts
        if parts[0] == "_index_template":
            return self._template(method, parts[1], request.body)
        if (method, parts) == ("GET", ["_nodes", "_local"]):
            return {"nodes": {"n": self.node}}
        if method == "GET" and parts[:2] == ["_cluster", "health"]:
            return self._health()
        if method == "PUT" and len(parts) == 1:
            return self._create(parts[0], request.body or {})
        index = self._index(parts[0])
        if isinstance(index, Error):
            return index
        if method == "GET" and len(parts) == 1:
            return {index.name: self._shown(index)}
        if method == "POST" and parts[1:] == ["_refresh"]:
            if not self.partial:
                index.refresh()
            return {"_shards": self._shards()}
        if method == "POST" and parts[1:] == ["_search"]:
            return self._search(index, request)
        raise Unsupported(f"{method} {request.path}")

    def _search(self, index: Index, request: Request) -> dict[str, Any] | Error:
        asked = request.asked
        _only(asked, "preference", "allow_partial_search_results")
        found = search(index, request.body)
        if isinstance(found, Error):
            return found
        if self.partial:
            found["hits"]["hits"] = found["hits"]["hits"][::2]
        return {"took": 1, "timed_out": False, "_shards": self._shards(), **found}

    def _shards(self) -> dict[str, int]:
        """OpenSearch's way of telling that half of them were not there."""
        return {"total": 4, "successful": 2 if self.partial else 4, "failed": 0}

    def _health(self) -> dict[str, Any]:
        return {
            "cluster_name": "fake",
            "status": "red" if self.partial else "green",
            "timed_out": False,
            "number_of_data_nodes": self.copies,
        }

    def _template(self, method: str, name: str, body: Any) -> dict[str, Any] | Error:
        if method == "PUT":
            _only(body, "index_patterns", "priority", "template", "_meta", "version")
            self.templates[name] = body
            return {"acknowledged": True}
        if method != "GET":
            raise Unsupported(f"{method} of a template")
        if name not in self.templates:
            return Error(404, "resource_not_found_exception")
        return {
            "index_templates": [{"name": name, "index_template": self.templates[name]}]
        }

    def _create(self, name: str, body: Mapping[str, Any]) -> dict[str, Any] | Error:
        _only(body, "aliases", "settings", "mappings")
        if name in self.indices:
            return Error(400, "resource_already_exists_exception")
        fitting = [
            template["template"]
            for template in self.templates.values()
            if any(fnmatchcase(name, each) for each in template["index_patterns"])
        ]
        if len(fitting) > 1:
            raise Unsupported("an index of two templates")
        template = fitting[0] if fitting else {}
        self.indices[name] = Index(
            name,
            template.get("mappings", {}) | body.get("mappings", {}),
            template.get("settings", {}) | body.get("settings", {}),
            set(template.get("aliases", {})) | set(body.get("aliases", {})),
        )
        return {"acknowledged": True, "shards_acknowledged": True, "index": name}

    def _shown(self, index: Index) -> dict[str, Any]:
        return {
            "aliases": {alias: {} for alias in index.aliases},
            "mappings": index.mappings,
            "settings": {"index": _as_told(index.settings)},
        }

    def _index(self, name: str, *, alias: bool = False) -> Index | Error:
        for index in self.indices.values():
            if name in index.aliases or (name == index.name and not alias):
                return index
        return Error(404, "index_not_found_exception", name)


def _found(
    index: Index, wanted: Mapping[str, Any], copy: int, includes: str | None
) -> dict[str, Any]:
    id = wanted["_id"]
    doc = index.found(Key(wanted.get("routing", id), id), copy)
    if doc is None:
        return {"_id": id, "found": False}
    source = doc.source
    if includes is not None:
        source = {
            field: source[field] for field in includes.split(",") if field in source
        }
    if wanted.get("_source", True) is False:
        source = {}
    numbers = {"_seq_no": doc.seq_no, "_primary_term": 1}
    return {"_id": id, "found": True, **numbers, "_source": source}


def _items(lines: list[Any]) -> list[tuple[str, Mapping[str, Any], Any]]:
    """The actions of a bulk, with the documents that go with them."""
    items = []
    rest = iter(lines)
    for line in rest:
        ((action, facts),) = line.items()
        if action not in _ACTIONS:
            raise Unsupported(f"{action} in a bulk")
        _only(facts, "_id", "routing", "if_seq_no", "if_primary_term")
        items.append((action, facts, None if action == "delete" else next(rest)))
    return items


def _as_told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as servers tell them: nested, every value a text."""
    told: dict[str, Any] = {}
    for path, value in settings.items():
        at = told
        *folders, last = path.removeprefix("index.").split(".")
        for folder in folders:
            at = at.setdefault(folder, {})
        if isinstance(value, dict):
            at.setdefault(last, {}).update(_as_told(value))
        elif isinstance(value, list):
            at[last] = value
        else:
            at[last] = str(value).lower() if isinstance(value, bool) else str(value)
    nested: dict[str, Any] = told.pop("index", {})
    return nested | told


def _reply(answer: dict[str, Any] | Error) -> Reply:
    if isinstance(answer, Error):
        return Reply(answer.status, {"error": answer.body, "status": answer.status})
    return Reply(200, json.loads(json.dumps(answer)))


def _only(asked: Mapping[str, Any], *known: str) -> None:
    """Refuse to guess."""
    strange = set(asked) - set(known)
    if strange:
        raise Unsupported(", ".join(sorted(strange)))
