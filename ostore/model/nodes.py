"""Nodes: what they say of themselves, and who is alive at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

SERVING = frozenset({"up", "scanning", "full", "draining", "readonly"})
"""States a node announces; `suspect`, `down` and `conflict` are what others see."""


@attrs.frozen
class Space:
    """Bytes of a node's disk."""

    free: int
    total: int


@attrs.frozen
class Boot:
    """One start of a node: a durable counter and 16 hex digits of chance."""

    counter: int
    random: str


@attrs.frozen
class Heartbeat:
    """What a node says of itself every few seconds.

    `time` (seconds since 1970) only shows skew; liveness is arrival. `cluster` is
    empty and `epoch` 0 for a node that belongs to no cluster yet.
    """

    node: str
    boot: Boot
    seq: int
    url: str
    zone: str
    free: int
    total: int
    shards: int
    state: str
    time: float
    cluster: str = ""
    epoch: int = 0
    capabilities: tuple[str, ...] = ()


@attrs.frozen
class Member:
    """A node as this process sees it: its last heartbeat and when it came.

    `heard` and `suspected` are seconds of the monotonic clock; `heard` is also set
    when hearing was possible again (`Members.resumed`), `suspected` is None unless it
    missed a locate or refused a connection since it was last heard.
    `rival` is the boot and sequence of another process that speaks under the same
    id; when it goes on, the id is in conflict until a newer boot is heard.
    """

    beat: Heartbeat
    heard: float
    suspected: float | None = None
    conflict: bool = False
    rival: tuple[Boot, int] | None = None

    def state(self, now: float, timeout: float) -> str:
        """up, scanning, full, readonly, draining, suspect, down or conflict."""
        if self.conflict:
            return "conflict"
        if now - self.heard > timeout:
            return "down"
        if self.suspected is not None:
            return "suspect"
        return self.beat.state


@attrs.frozen
class Members:
    """Everyone who was ever heard, by node id; every change gives a new value."""

    timeout: float
    by_id: Mapping[str, Member] = attrs.field(factory=dict)

    def heard(self, beat: Heartbeat, now: float) -> Members:
        """Take in a heartbeat; one that is no newer than the last is dropped.

        An older boot, or the same counter with other chance, that is heard twice
        with growing `seq` is a second process of the same id: a conflict.
        """
        known = self.by_id.get(beat.node)
        if known is None:
            return self._with(Member(beat, now))
        last = known.beat
        if beat.boot.counter > last.boot.counter:
            return self._with(Member(beat, now))
        if beat.boot == last.boot:
            if beat.seq <= last.seq:
                return self
            return self._with(attrs.evolve(known, beat=beat, heard=now, suspected=None))
        if known.rival is None or known.rival[0] != beat.boot:
            return self._with(attrs.evolve(known, rival=(beat.boot, beat.seq)))
        if beat.seq > known.rival[1]:
            return self._with(
                attrs.evolve(known, rival=(beat.boot, beat.seq), conflict=True)
            )
        return self

    def resumed(self, since: float, now: float) -> Members:
        """Nobody could be heard from `since` to `now`: silence then means nothing.

        Who was live at `since` counts as heard now, and so has one whole time-out to
        speak; who was down stays down.
        """
        kept = {
            node: attrs.evolve(member, heard=max(member.heard, now))
            if since - member.heard <= self.timeout
            else member
            for node, member in self.by_id.items()
        }
        return attrs.evolve(self, by_id=kept)

    def suspect(self, node: str, now: float) -> Members:
        """It missed a locate or refused a connection: suspect until heard again."""
        known = self.by_id.get(node)
        if known is None or known.suspected is not None:
            return self
        return self._with(attrs.evolve(known, suspected=now))

    def live(self, now: float) -> list[Member]:
        """Those heard within the time-out and in no conflict; suspects included."""
        return [
            member
            for member in self.by_id.values()
            if member.state(now, self.timeout) not in ("down", "conflict")
        ]

    def trusted(self, now: float) -> list[Member]:
        """Those that are live and not suspect."""
        return [m for m in self.live(now) if m.suspected is None]

    def last_down(self, now: float) -> float | None:
        """When the node that left last was last heard; None when all are there."""
        gone: Iterable[float] = (
            member.heard
            for member in self.by_id.values()
            if member.state(now, self.timeout) == "down"
        )
        return max(gone, default=None)

    def _with(self, member: Member) -> Members:
        return attrs.evolve(self, by_id={**self.by_id, member.beat.node: member})
