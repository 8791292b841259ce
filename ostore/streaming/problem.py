"""From error to answer: application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from ostore.model.errors import (
    AlreadyExists,
    ConditionFailed,
    Deleted,
    DigestMismatch,
    HeadersTooLarge,
    Malformed,
    NoSpace,
    NotFound,
    OstoreError,
    OutcomeUnknown,
    Refused,
    ShardError,
    Unavailable,
)
from ostore.streaming.reply import PHRASES, Reply


class Problem(OstoreError):
    """An answer that only HTTP knows: raise it, and it becomes problem+json.

    `slug` makes the type `urn:ostore:problem:{slug}`; "" gives about:blank. An empty
    title stands for the status's own phrase.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        slug: str = "",
        title: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.headers = dict(headers or {})

    def send(self, reply: Reply) -> None:
        """Answer with application/problem+json (RFC 9457)."""
        phrase = PHRASES.get(self.status, "Unknown")
        document = {
            "type": f"urn:ostore:problem:{self.slug}" if self.slug else "about:blank",
            "title": self.title or phrase,
            "status": self.status,
            "detail": str(self),
            "request_id": reply.request_id,
        }
        reply.headers = {"Content-Type": "application/problem+json", **self.headers}
        reply.send(self.status, body=json.dumps(document).encode("ascii"))


TABLE: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (DigestMismatch, 400, "digest-mismatch", "The body is not what its digest says"),
    (HeadersTooLarge, 431, "headers-too-large", "Headers too large"),
    (Malformed, 400, "malformed", "Malformed request"),
    (Deleted, 404, "deleted", "Deleted"),
    (NotFound, 404, "not-found", "Not found"),
    (AlreadyExists, 409, "already-exists", "Already exists"),
    (ConditionFailed, 412, "condition-failed", "Precondition failed"),
    (Refused, 409, "refused", "Refused"),
    (OutcomeUnknown, 503, "outcome-unknown", "Outcome unknown"),
    (Unavailable, 503, "unavailable", "Temporarily unavailable"),
    (NoSpace, 507, "no-space", "No space"),
)
"""Error to status, problem type and title; the first that fits."""


def as_problem(error: Exception) -> Problem | None:
    """The answer to an error; None when it is not for the client's eyes."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ShardError):
        return Problem(
            503,
            "the store cannot do this now",
            slug="unavailable",
            title="Temporarily unavailable",
            headers={"Retry-After": "1"},
        )
    for kind, status, slug, title in TABLE:
        if isinstance(error, kind):
            headers: dict[str, str] = {}
            if isinstance(error, Unavailable):
                headers["Retry-After"] = str(error.retry_after)
            if isinstance(error, Deleted):
                headers["X-Ostore-Delete-Marker"] = "true"
                headers["X-Ostore-Version"] = str(error.number)
            detail = str(error)
            return Problem(status, detail, slug=slug, title=title, headers=headers)
    return None
