"""What a fake search server keeps of one index: documents, mapping, and their copies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

IMMENSE = 32_766
"""The most bytes of an indexed keyword."""

_NUMBERS = {"byte": 1 << 7, "short": 1 << 15, "integer": 1 << 31, "long": 1 << 63}


class Unsupported(AssertionError):
    """A request of a form that the fake does not know: it is never guessed at."""


@attrs.frozen
class Error:
    """An error as the server tells it."""

    status: int
    type: str
    reason: str = "made up"

    @property
    def body(self) -> dict[str, Any]:
        """What stands under `error`."""
        return {"type": self.type, "reason": self.reason}


@attrs.frozen
class Key:
    """Where a document lies: those of one routing share a shard, others may not."""

    routing: str
    id: str


@attrs.frozen
class Doc:
    """One document of one copy; `text` is None when it was deleted."""

    seq_no: int
    text: str | None

    @property
    def source(self) -> Any:
        """The JSON, the caller's own."""
        return None if self.text is None else json.loads(self.text)


Copy = dict[Key, Doc]


@attrs.frozen
class Write:
    """A write that the primary took, on its way to the other copy."""

    key: Key
    doc: Doc


@attrs.define
class Index:
    """One index: a primary, a replica that follows it, and what searches can see.

    Each routing value is a shard with sequence numbers of its own.
    """

    name: str
    mappings: Mapping[str, Any]
    settings: Mapping[str, Any]
    aliases: set[str]
    primary: Copy = attrs.field(factory=dict)
    replica: Copy = attrs.field(factory=dict)
    visible: Copy = attrs.field(factory=dict)

    def copy(self, which: int) -> Copy:
        """0 the primary, 1 the replica."""
        return self.replica if which else self.primary

    def found(self, key: Key, which: int) -> Doc | None:
        """What a realtime read of one copy gives."""
        doc = self.copy(which).get(key)
        return None if doc is None or doc.text is None else doc

    def write(
        self, action: str, key: Key, facts: Mapping[str, Any], source: Any
    ) -> Write | Error:
        """Try one item on the primary, as the other items of a bulk do not matter."""
        found = self.found(key, 0)
        error = _conflict(action, found, facts)
        if error is None and action != "delete":
            error = self.refusal(source, self.mappings)
        if error is None and action == "delete" and found is None:
            error = Error(404, "not_found")
        if error is not None:
            return error
        text = None if action == "delete" else json.dumps(source, sort_keys=True)
        doc = Doc(self._next(key.routing), text)
        self.primary[key] = doc
        return Write(key, doc)

    def replicate(self, writes: Iterable[Write]) -> None:
        """Bring writes to the replica, where a later one of a document stands."""
        for write in writes:
            standing = self.replica.get(write.key)
            if standing is None or standing.seq_no < write.doc.seq_no:
                self.replica[write.key] = write.doc

    def refresh(self) -> None:
        """Let searches see what was written."""
        self.visible = {
            key: doc for key, doc in self.primary.items() if doc.text is not None
        }

    def refusal(self, source: Any, mapping: Mapping[str, Any]) -> Error | None:
        """What a strict mapping says against a document."""
        if not isinstance(source, dict):
            return Error(400, "mapper_parsing_exception", "not an object")
        properties = mapping.get("properties", {})
        for field, value in source.items():
            if field not in properties:
                if mapping.get("dynamic") == "strict":
                    return Error(400, "strict_dynamic_mapping_exception", field)
                if mapping.get("dynamic") not in {False, "false"}:
                    raise Unsupported(f"a dynamic mapping, of {field}")
                continue
            error = _unfit(field, value, properties[field])
            if error is not None:
                return error
        return None

    def type_of(self, field: str) -> str:
        """The type of a field that queries, sorts or buckets use."""
        properties = self.mappings.get("properties", {})
        if field not in properties:
            raise Unsupported(f"a search over {field}, which is not mapped")
        mapped = properties[field]
        if mapped.get("index") is False or mapped.get("enabled") is False:
            raise Unsupported(f"a search over {field}, which is not indexed")
        return str(mapped["type"])

    def _next(self, routing: str) -> int:
        taken = [
            doc.seq_no for key, doc in self.primary.items() if key.routing == routing
        ]
        return max(taken, default=-1) + 1


def _conflict(action: str, found: Doc | None, facts: Mapping[str, Any]) -> Error | None:
    conflict = Error(409, "version_conflict_engine_exception")
    if action == "create":
        return None if found is None else conflict
    if "if_seq_no" not in facts:
        return None
    expected = (facts["if_seq_no"], facts["if_primary_term"])
    return None if found is not None and (found.seq_no, 1) == expected else conflict


def values(value: Any) -> list[Any]:
    """What a field holds, as searches see it: any number of values."""
    if value is None:
        return []
    if isinstance(value, list):
        return [one for each in value for one in values(each)]
    return [value]


def _unfit(field: str, value: Any, mapped: Mapping[str, Any]) -> Error | None:
    """What is wrong with a value, if anything."""
    kind = mapped.get("type", "object")
    if kind == "object":
        if mapped.get("enabled", True):
            raise Unsupported(f"a mapped object, {field}")
        fit = True
    elif kind == "keyword":
        if "ignore_above" in mapped:
            raise Unsupported(f"ignore_above of {field}")
        indexed = mapped.get("index", True) or mapped.get("doc_values", True)
        fit = all(isinstance(one, str | int | float) for one in values(value)) and not (
            indexed and any(len(str(one).encode()) > IMMENSE for one in values(value))
        )
    elif kind in _NUMBERS:
        most = _NUMBERS[kind]
        fit = all(
            isinstance(one, int) and not isinstance(one, bool) and -most <= one < most
            for one in values(value)
        )
    elif kind == "date":
        fit = all(isinstance(one, int) for one in values(value))
    elif kind == "boolean":
        fit = all(isinstance(one, bool) for one in values(value))
    else:
        raise Unsupported(f"the type {kind} of {field}")
    return None if fit else Error(400, "mapper_parsing_exception", field)
