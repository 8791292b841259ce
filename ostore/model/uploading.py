"""A PUT as a state machine: what may happen next, and what may be thrown away.

    OPEN ──begin──▶ SENDING ──end──▶ ENDED ──commit──▶ COMMITTING ──keep──▶ KEPT
      │                │               │                   │
      └──────drop──────┴──────drop─────┴───────drop────────┴──────────▶ DROPPED

While bytes stream in nothing is named, so dropping removes every trace. Naming
begins with `commit`, when the content's hash is known and the client's digest
agreed. Once the metadata write was sent (`record`), the shards are no longer this
PUT's to remove: a version may refer to them. A call that the state does not allow
raises NoTransition: it would be a defect of the caller.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from ostore.model.layouts import Layout


class NoTransition(Exception):
    """The state does not allow that."""


@attrs.define
class Facts:
    """What the machine remembers; read it, change it only through the machine."""

    state: str = "OPEN"
    durable: set[int] = attrs.field(factory=set)
    recorded: bool = False

    def missing(self, layout: Layout) -> tuple[int, ...]:
        """Indices that are not durable: the version's `degraded`."""
        return tuple(i for i in range(layout.shards) if i not in self.durable)


class Upload:
    """The machine; made for one PUT, in the state that its facts say."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def begin(self) -> None:
        """The body has begun to arrive."""
        self._go("OPEN", "SENDING")

    def end(self) -> None:
        """The body is complete."""
        self._go("SENDING", "ENDED")

    def commit(self) -> None:
        """The digest agrees: shards may be named from now on."""
        self._go("ENDED", "COMMITTING")

    def named(self, indices: Iterable[int]) -> None:
        """These shards are durable under their names."""
        self._go("COMMITTING", "COMMITTING")
        self._facts.durable.update(indices)

    def record(self) -> None:
        """The metadata write is about to be sent: no way back."""
        self._go("COMMITTING", "COMMITTING")
        self._facts.recorded = True

    def keep(self) -> None:
        """The version is written and its shards are there."""
        self._go("COMMITTING", "KEPT")

    def drop(self) -> None:
        """Give up, unless it is kept; see `Facts.recorded` for what may be removed."""
        if self._facts.state != "KEPT":
            self._facts.state = "DROPPED"

    def _go(self, before: str, after: str) -> None:
        if self._facts.state != before:
            raise NoTransition(f"{self._facts.state} does not lead to {after}")
        self._facts.state = after
