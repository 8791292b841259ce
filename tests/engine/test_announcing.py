"""Two processes and one node id: who may speak."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.memory import MemoryBus, MemoryBusMember
from ostore.engine.announcing import CLAIM, Announcer
from ostore.model.errors import Refused
from ostore.model.layouts import Holding
from ostore.model.messages import API_TOPIC, Signer
from ostore.model.nodes import Boot, Heartbeat
from ostore.streaming.clock import Clock
from ostore.streaming.schedule import Repeated
from ostore.streaming.tasks import start

NODE = "a" * 32
BEAT = Heartbeat(NODE, Boot(1, "0" * 16), 1, "http://x:1", "z", 1, 2, 0, "up", 0.0)


class Store:
    """Holds nothing."""

    async def find(self, _: str) -> Holding:
        """None of it."""
        return Holding("none")


class ClaimTests(SynchronousTestCase):
    """One bus, processes that come and go."""

    def setUp(self) -> None:
        """A clock at rest and a bus."""
        self.time = task.Clock()
        self.clock = Clock(self.time, self.time.seconds, self.time.seconds)
        self.bus = MemoryBus(self.clock)
        self.signer = Signer([b"0123456789abcdef0123456789abcdef"])
        self.heard: list[Any] = []
        ear = self.bus.member()
        ear.subscribe(API_TOPIC, lambda body, _: self.heard.append(body))
        self.successResultOf(start(ear.start()))

    def process(
        self, chance: str, counter: int = 1, node: str = NODE
    ) -> tuple[Announcer, MemoryBusMember]:
        """A process that speaks for a node, and its way to the bus."""
        member = self.bus.member()
        beat = attrs.evolve(BEAT, node=node, boot=Boot(counter, chance * 16))
        announcer = Announcer(
            member,
            self.signer,
            self.clock,
            node,
            Store(),  # type: ignore[arg-type]  # all that is asked of it
            lambda: beat,
            lambda work: Repeated(
                self.clock,
                5.0,
                work,  # type: ignore[arg-type]  # as the wiring gives it
                bytes,
                Logger(),
            ),
        )
        return announcer, member

    def claims(self, announcer: Announcer, member: MemoryBusMember) -> Deferred[None]:
        """It joins and claims."""
        self.successResultOf(start(member.start()))
        return start(announcer.claim())

    def pass_(self, seconds: float = 2 * CLAIM) -> None:
        """Time goes by."""
        for _ in range(int(seconds * 100)):
            self.time.advance(0.01)

    def test_free(self) -> None:
        """An id that nobody holds is ours after a second, and nothing is said before."""
        announcer, member = self.process("1")
        claim = self.claims(announcer, member)
        self.pass_(CLAIM / 2)
        self.assertNoResult(claim)
        self.assertEqual(self.heard, [])
        self.pass_()
        self.successResultOf(claim)
        self.successResultOf(start(announcer.start()))
        self.pass_(0.1)
        self.assertEqual(len(self.heard), 1)
        self.successResultOf(start(announcer.stop()))

    def test_taken(self) -> None:
        """A live holder stays, whatever the chance; a copied root does not start."""
        holder = self.process("9")
        claim = self.claims(*holder)
        self.pass_()
        self.successResultOf(claim)
        copy = self.claims(*self.process("1", 2))
        self.pass_()
        self.failureResultOf(copy, Refused)

    def test_both_at_once(self) -> None:
        """Of two that claim at once exactly one stays: the smaller chance."""
        large = self.claims(*self.process("9", 7))
        small = self.claims(*self.process("1"))
        self.pass_()
        self.failureResultOf(large, Refused)
        self.successResultOf(small)

    def test_others_do_not_mind(self) -> None:
        """Claims of other ids are nobody's matter."""
        first = self.claims(*self.process("1"))
        second = self.claims(*self.process("1", node="b" * 32))
        self.pass_()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_waits_for_the_bus(self) -> None:
        """Without a bus nothing is decided."""
        announcer, member = self.process("1")
        claim = start(announcer.claim())
        self.pass_(30)
        self.assertNoResult(claim)
        self.successResultOf(start(member.start()))
        self.pass_()
        self.successResultOf(claim)
