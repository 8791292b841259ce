"""Searches over the documents of a fake index: queries, sorting, composite pages."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from tests.support.fakedocuments import Error, Index, Unsupported, values

WINDOW = 10_000
"""The most hits of a search, and buckets of a composite page about as many."""


def search(index: Index, body: Mapping[str, Any]) -> dict[str, Any] | Error:
    """The `hits` and `aggregations` of an answer."""
    _only(
        body,
        "size",
        "track_total_hits",
        "_source",
        "query",
        "sort",
        "search_after",
        "aggs",
    )
    size = body.get("size", 10)
    if size > WINDOW:
        return Error(400, "illegal_argument_exception", "result window is too large")
    query = body.get("query", {"match_all": {}})
    found = [
        (key, source)
        for key, source in (
            (key, doc.source)
            for key, doc in sorted(index.visible.items(), key=lambda item: item[0].id)
        )
        if matches(index, query, source)
    ]
    answer: dict[str, Any] = {}
    if "aggs" in body:
        answer["aggregations"] = {
            name: _composite(index, aggregation, [source for _, source in found])
            for name, aggregation in body["aggs"].items()
        }
    sort = [_order(each) for each in body.get("sort", [])]
    fields = [(field, index.type_of(field)) for field, _ in sort]
    if any(way != "asc" for _, way in sort):
        raise Unsupported("a descending sort")
    keyed = sorted(
        (
            ([_sortable(source, *field) for field in fields], key, source)
            for key, source in found
        ),
        key=lambda each: each[0],
    )
    if "search_after" in body:
        after = [_comparable(one) for one in body["search_after"]]
        if len(after) != len(fields):
            return Error(400, "illegal_argument_exception", "search_after")
        keyed = [each for each in keyed if [one for _, one in each[0]] > after]
    answer["hits"] = {
        "hits": [
            {
                "_id": key.id,
                "_source": _chosen(source, body.get("_source", True)),
                **({"sort": [_shown(one) for _, one in order]} if fields else {}),
            }
            for order, key, source in keyed[:size]
        ]
    }
    return answer


def matches(index: Index, query: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Whether a document is among those that a query asks for."""
    ((kind, asked),) = query.items()
    if kind == "match_all":
        return True
    if kind == "bool":
        _only(asked, "filter", "must", "must_not")
        wanted = [*_listed(asked.get("filter", ())), *_listed(asked.get("must", ()))]
        return all(matches(index, each, source) for each in wanted) and not any(
            matches(index, each, source) for each in _listed(asked.get("must_not", ()))
        )
    if kind == "exists":
        index.type_of(asked["field"])
        return bool(values(source.get(asked["field"])))
    ((field, wanted),) = asked.items()
    index.type_of(field)
    held = values(source.get(field))
    if kind == "term":
        return wanted in held
    if kind == "terms":
        return any(each in held for each in wanted)
    if kind == "prefix":
        return any(each.startswith(wanted) for each in held)
    if kind == "range":
        return any(_within(wanted, each) for each in held)
    raise Unsupported(f"a query of the kind {kind}")


def _composite(
    index: Index, aggregation: Mapping[str, Any], found: list[Mapping[str, Any]]
) -> dict[str, Any]:
    _only(aggregation, "composite")
    composite = aggregation["composite"]
    _only(composite, "size", "sources", "after")
    sources: list[tuple[str, str]] = []
    for each in composite["sources"]:
        ((name, source),) = each.items()
        _only(source, "terms")
        _only(source["terms"], "field", "order")
        if source["terms"].get("order", "asc") != "asc":
            raise Unsupported("a descending composite")
        index.type_of(source["terms"]["field"])
        sources.append((name, source["terms"]["field"]))
    counts: dict[tuple[Any, ...], int] = {}
    for document in found:
        held = [dict.fromkeys(values(document.get(field))) for _, field in sources]
        for combination in product(*held):
            counts[combination] = counts.get(combination, 0) + 1
    ordered = sorted(counts, key=lambda key: [_comparable(one) for one in key])
    if "after" in composite:
        after = [_comparable(composite["after"][name]) for name, _ in sources]
        ordered = [key for key in ordered if [_comparable(one) for one in key] > after]
    buckets = [
        {
            "key": {name: one for (name, _), one in zip(sources, key, strict=True)},
            "doc_count": counts[key],
        }
        for key in ordered[: composite.get("size", 10)]
    ]
    return {
        **({"after_key": buckets[-1]["key"]} if buckets else {}),
        "buckets": buckets,
    }


def _within(limits: Mapping[str, Any], value: Any) -> bool:
    _only(limits, "gt", "gte", "lt", "lte")
    one = _comparable(value)
    return (
        ("gt" not in limits or one > _comparable(limits["gt"]))
        and ("gte" not in limits or one >= _comparable(limits["gte"]))
        and ("lt" not in limits or one < _comparable(limits["lt"]))
        and ("lte" not in limits or one <= _comparable(limits["lte"]))
    )


def _comparable(value: Any) -> Any:
    """Keywords sort by their UTF-8 bytes."""
    return value.encode() if isinstance(value, str) else value


def _shown(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _sortable(source: Mapping[str, Any], field: str, kind: str) -> tuple[bool, Any]:
    """The least value of a field; documents without it come last, and never page."""
    held = [_comparable(one) for one in values(source.get(field))]
    if not held:
        raise Unsupported(f"a sort of {kind} {field} over documents that lack it")
    return False, min(held)


def _order(each: Any) -> tuple[str, str]:
    if isinstance(each, str):
        return each, "asc"
    ((field, way),) = each.items()
    return field, way if isinstance(way, str) else way["order"]


def _chosen(source: Mapping[str, Any], wanted: Any) -> Mapping[str, Any]:
    if isinstance(wanted, bool):
        return source if wanted else {}
    return {field: source[field] for field in wanted if field in source}


def _listed(clauses: Any) -> list[Any]:
    return [clauses] if isinstance(clauses, dict) else list(clauses)


def _only(asked: Mapping[str, Any], *known: str) -> None:
    """Refuse to guess."""
    strange = set(asked) - set(known)
    if strange:
        raise Unsupported(f"{', '.join(sorted(strange))} in a search")
