"""The seam to a search server: one call, one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import attrs

from ostore.model.errors import MetadataUnavailable

NO_QUERY: Mapping[str, str] = MappingProxyType({})


class MaybeApplied(MetadataUnavailable):
    """The call was sent and its answer was lost: it may have been carried out."""


class Rejected(MetadataUnavailable):
    """The server will not do: wrong credentials, certificate, kind or version."""


@attrs.frozen
class Reply:
    """An answer: the HTTP status and the parsed JSON."""

    status: int
    body: Any


class Search(Protocol):
    """What the store asks of a search server."""

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
        """One exchange; `body` goes out as JSON, `lines` as one JSON text a line.

        Gives any answer but 401, 403, 429, 502, 503 and 504, which are settled here:
        tried again, then raised. Raises MetadataUnavailable when the call was surely
        not carried out, or is idempotent and was tried often enough; Rejected when
        trying again cannot help; MaybeApplied when a call that is not idempotent was
        sent and its answer lost.
        """
        ...
