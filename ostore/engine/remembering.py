"""What an api remembers of uploads between their parts, to save work."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import attrs

from ostore.engine.session import Session

KEPT = 64 << 20
"""Bytes of sessions that are kept, all uploads together."""
HASHES = 10_000
"""Uploads whose running hash is kept."""


@attrs.frozen
class _Hashed:
    """A running hash of the first bytes, and the stripes that it was taken over."""

    offset: int
    rows: int
    print: bytes
    hasher: Any


class Remembered:
    """Sessions and running hashes by upload; owned by Resuming.

    None of it is needed: any other api goes on from what the nodes hold.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._hashes: OrderedDict[str, _Hashed] = OrderedDict()

    def __len__(self) -> int:
        """Sessions that are kept."""
        return len(self._sessions)

    def take(self, upload: str) -> Session | None:
        """The session that another part can go on with; it is kept no longer."""
        return self._sessions.pop(upload, None)

    def keep(self, session: Session) -> None:
        """Remember it between two parts, as far as it can be relied on."""
        upload = session.upload
        if session.reusable and session.hashed == session.offset:
            rows = session.rows()
            self._hashes[upload] = _Hashed(
                session.offset, len(rows), _print(rows), session.hasher.copy()
            )
            self._hashes.move_to_end(upload)
            while len(self._hashes) > HASHES:
                self._hashes.popitem(last=False)
        if session.reusable:
            self._sessions[upload] = session
            while sum(each.cost for each in self._sessions.values()) > KEPT:
                self._sessions.popitem(last=False)

    def recall(self, session: Session) -> None:
        """Give a new session the running hash of what it goes on from."""
        known = self._hashes.get(session.upload)
        if known is None or known.offset > session.offset:
            return
        if _print(session.rows()[: known.rows]) == known.print:
            session.hashed, session.hasher = known.offset, known.hasher.copy()

    def forget(self, upload: str) -> None:
        """It has ended."""
        self._sessions.pop(upload, None)
        self._hashes.pop(upload, None)


def _print(rows: bytes) -> bytes:
    return hashlib.sha256(rows).digest()
