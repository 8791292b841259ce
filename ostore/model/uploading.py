"""A PUT as a state machine: what may happen next, and what may be thrown away.

    OPEN ──begin──▶ SENDING ──end──▶ ENDED ──commit──▶ COMMITTING ──keep──▶ KEPT
      │                │               │                   │
      └──────drop──────┴──────drop─────┴───────drop────────┴──────────▶ DROPPED

While bytes stream in nothing is named, so dropping removes every trace. Naming
begins with `commit`, when the content's hash is known and the client's digest
agreed. Once the metadata write was sent (`record`), the shards are no longer this
PUT's to remove: a version may refer to them. A call that the state does not allow
raises `automat.NoTransition`: it would be a defect of the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import attrs
from automat import TypeMachineBuilder

from ostore.model.layouts import Layout


class Upload(Protocol):
    """The inputs of the machine; made by `upload()`."""

    def begin(self) -> None:
        """The body has begun to arrive."""

    def end(self) -> None:
        """The body is complete."""

    def commit(self) -> None:
        """The digest agrees: shards may be named from now on."""

    def named(self, indices: Iterable[int]) -> None:
        """These shards are durable under their names."""

    def record(self) -> None:
        """The metadata write is about to be sent: no way back."""

    def keep(self) -> None:
        """The version is written and its shards are there."""

    def drop(self) -> None:
        """Give up; see `Facts.recorded` for what may be removed."""


@attrs.define
class Facts:
    """What the machine remembers; read it, change it only through the machine."""

    state: str = "OPEN"
    durable: set[int] = attrs.field(factory=set)
    recorded: bool = False

    def missing(self, layout: Layout) -> tuple[int, ...]:
        """Indices that are not durable: the version's `degraded`."""
        return tuple(i for i in range(layout.shards) if i not in self.durable)


_builder = TypeMachineBuilder(Upload, Facts)
_open = _builder.state("OPEN")
_sending = _builder.state("SENDING")
_ended = _builder.state("ENDED")
_committing = _builder.state("COMMITTING")
_kept = _builder.state("KEPT")
_dropped = _builder.state("DROPPED")


@_open.upon(Upload.begin).to(_sending)
def _begin(_: Upload, facts: Facts) -> None:
    facts.state = "SENDING"


@_sending.upon(Upload.end).to(_ended)
def _end(_: Upload, facts: Facts) -> None:
    facts.state = "ENDED"


@_ended.upon(Upload.commit).to(_committing)
def _commit(_: Upload, facts: Facts) -> None:
    facts.state = "COMMITTING"


@_committing.upon(Upload.named).loop()
def _named(_: Upload, facts: Facts, indices: Iterable[int]) -> None:
    facts.durable.update(indices)


@_committing.upon(Upload.record).loop()
def _record(_: Upload, facts: Facts) -> None:
    facts.recorded = True


@_committing.upon(Upload.keep).to(_kept)
def _keep(_: Upload, facts: Facts) -> None:
    facts.state = "KEPT"


@_open.upon(Upload.drop).to(_dropped)
@_sending.upon(Upload.drop).to(_dropped)
@_ended.upon(Upload.drop).to(_dropped)
@_committing.upon(Upload.drop).to(_dropped)
def _drop(_: Upload, facts: Facts) -> None:
    facts.state = "DROPPED"


_kept.upon(Upload.drop).loop().returns(None)
_dropped.upon(Upload.drop).loop().returns(None)
_machine = _builder.build()


def upload(facts: Facts) -> Upload:
    """A machine in OPEN that keeps its memory in `facts`."""
    return _machine(facts)
