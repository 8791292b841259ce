"""Records what clients asked of names and what they were told, for the checker.

Works over anything that is asked asynchronously: `ask` puts a call to an
`IMetadataStore`, `told` reads the answer of the HTTP interface.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import CancelledError

from ostore.backends.metadata.elastic_client import MaybeApplied
from ostore.model.errors import (
    AlreadyExists,
    ConditionFailed,
    MetadataUnavailable,
    NotFound,
    OstoreError,
)
from ostore.model.versions import NewVersion, Version
from tests.support.linearizable import (
    UNKNOWN,
    Add,
    Answer,
    ByPutId,
    Call,
    Get,
    Latest,
    Operation,
    Purge,
    Seen,
    Versions,
    explain,
)

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


class Nothing(Exception):
    """The call surely did nothing and told nothing: it is no part of the history."""


class Recorder:
    """The histories of all names that were spoken of; `now` never goes back.

    One recorder serves every client of a run, for the times must be of one clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.histories: dict[str, list[Operation]] = {}

    async def run(
        self, name: str, call: Call, work: Awaitable[Answer]
    ) -> Answer | Nothing:
        """Await the answer and write it down; it is also given to the caller.

        An error of `work` that is no answer makes the outcome unknown.
        """
        invoked = self._now()
        answer: Answer = UNKNOWN
        try:
            answer = await work
        except Nothing as nothing:
            return nothing
        except CancelledError:
            self._note(name, Operation(call, UNKNOWN, invoked))
            raise
        except Exception:  # noqa: BLE001 - whatever happened, the outcome is not known
            if not isinstance(call, Add | Purge):
                return Nothing()
        if answer == UNKNOWN:
            self._note(name, Operation(call, UNKNOWN, invoked))
        else:
            self._note(name, Operation(call, answer, invoked, self._now()))
        return answer

    def wrong(self) -> str | None:
        """The first name whose history no order of single steps explains, and why."""
        for name, history in self.histories.items():
            why = explain(history)
            if why is not None:
                return f"{name!r}: {why}"
        return None

    def _note(self, name: str, operation: Operation) -> None:
        self.histories.setdefault(name, []).append(operation)


async def ask(store: Any, name: str, call: Call, bucket: str = "") -> Answer:
    """Put a call to an `IMetadataStore`. Raises Nothing."""
    try:
        return await _asked(store, bucket, name, call)
    except OstoreError as error:
        return _refused(call, error)


async def _asked(store: Any, bucket: str, name: str, call: Call) -> Answer:
    if isinstance(call, Add):
        return Seen.of(await store.add_version(new_version(name, call, bucket)))
    if isinstance(call, Purge):
        gone: bool = await store.purge(bucket, name, call.number)
        return gone
    if isinstance(call, Versions):
        page = await store.versions_of(bucket, name, call.after, call.limit)
        return tuple(map(Seen.of, page))
    found: Version | None
    if isinstance(call, Latest):
        found = await store.latest(bucket, name)
    elif isinstance(call, Get):
        found = await store.version(bucket, name, call.number)
    else:
        assert isinstance(call, ByPutId)
        found = await store.by_put_id(bucket, name, call.put_id)
    return None if found is None else Seen.of(found)


def new_version(name: str, add: Add, bucket: str = "") -> NewVersion:
    """What an Add writes."""
    return NewVersion(
        name=name,
        put_id=add.put_id,
        hash=add.hash,
        deleted=add.deleted,
        bucket=bucket,
        condition=add.condition,
    )


def _refused(call: Call, error: OstoreError) -> Answer:
    """What an error means: MetadataUnavailable of a write, that nothing was written."""
    for kind in (NotFound, AlreadyExists, ConditionFailed):
        if isinstance(error, kind):
            return kind
    if isinstance(call, Purge):
        return UNKNOWN
    lost = isinstance(error, MaybeApplied) or not isinstance(error, MetadataUnavailable)
    if isinstance(call, Add) and lost:
        return UNKNOWN
    raise Nothing from error


def told(call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What the HTTP interface answered. Raises Nothing.

    Header names are lower-case. Every 5xx of a write leaves its outcome unknown.
    """
    if status >= 500 and isinstance(call, Add | Purge):
        return UNKNOWN
    if isinstance(call, Add) and status in _REFUSALS:
        return _REFUSALS[status]
    if isinstance(call, Purge) and status in (204, 404):
        return status == 204
    if isinstance(call, Latest | Get) and status == 404:
        number = headers.get("x-ostore-version")
        return None if number is None else Seen(int(number), deleted=True)
    if status not in (200, 201):
        raise Nothing(f"status {status}")
    if isinstance(call, Versions):
        return tuple(_seen(json.loads(line)) for line in body.splitlines())
    if isinstance(call, Add):
        return _seen(json.loads(body))
    etag = headers["etag"].strip('"').partition("-")[0]
    return Seen(int(headers["x-ostore-version"]), etag)


_REFUSALS: Mapping[int, type[OstoreError]] = {
    404: NotFound,
    409: AlreadyExists,
    412: ConditionFailed,
}


def _seen(shown: Mapping[str, Any]) -> Seen:
    """A version as the HTTP interface shows it in JSON."""
    created = datetime.fromisoformat(shown["created"]) - _EPOCH
    return Seen(
        number=shown["version"],
        hash=base64.b64decode(shown["hash"]).hex(),
        deleted=shown["deleted"],
        created=created // timedelta(milliseconds=1),
    )
