"""Nodes that are a voice on the bus and say what a test tells them to."""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import Logger

from ostore.engine.announcing import CAPABILITIES, Announcer
from ostore.model.layouts import Holding, Layout, ShardFacts
from ostore.model.messages import Signer
from ostore.model.nodes import Boot, Heartbeat
from ostore.streaming.clock import Clock
from ostore.streaming.schedule import Repeated

LAYOUT = Layout(2, 2, 10, "f" * 32)


def content(number: int) -> str:
    """The hash of a content."""
    return f"{number:064x}"


def shards(hash: str, *indices: int, layout: Layout = LAYOUT) -> Holding:
    """A node that has these."""
    facts = tuple(ShardFacts(hash, index, layout, 0, 0.0) for index in indices)
    return Holding("have", facts)


class Store:
    """Says of each content what it was told to, after so many seconds."""

    def __init__(self, clock: Clock) -> None:
        self.says: dict[str, Holding | Exception] = {}
        self.after: dict[str, float] = {}
        self.asked: list[str] = []
        self._clock = clock

    async def find(self, hash: str) -> Holding:
        """None of it, unless something else was said."""
        self.asked.append(hash)
        if hash in self.after:
            await self._clock.sleep(self.after[hash])
        found = self.says.get(hash, Holding("none"))
        if isinstance(found, Exception):
            raise found
        return found


class Voice:
    """A node: its way to the bus, its announcer, its store, and what it can."""

    def __init__(self, number: int, member: Any, signer: Signer, clock: Clock) -> None:
        self.id = f"{number:032x}"
        self.capabilities: tuple[str, ...] = CAPABILITIES
        self.member = member
        self.store = Store(clock)
        self._seq = 0
        self.announcer = Announcer(
            member,
            signer,
            clock,
            self.id,
            cast("Any", self.store),
            self.beat,
            lambda work: Repeated(
                clock,
                5.0,
                work,  # type: ignore[arg-type]  # as the wiring gives it
                bytes,
                Logger(),
            ),
        )

    def beat(self) -> Heartbeat:
        """The next heartbeat."""
        self._seq += 1
        return Heartbeat(
            *(self.id, Boot(1, "0" * 16), self._seq, "http://x:1", "z", 1, 2, 0),
            *("up", 0.0),
            capabilities=self.capabilities,
        )
