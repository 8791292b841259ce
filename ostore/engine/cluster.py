"""The cluster as this process sees it: who is alive, and who holds what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ostore.engine.asking import Ask, Asking
from ostore.engine.places import Places
from ostore.engine.viewing import View, view
from ostore.interfaces import IMessageBus, INodes
from ostore.model.census import Census, Standing
from ostore.model.errors import BusUnavailable, NodeUnreachable, ShardError
from ostore.model.fields import BadMessage
from ostore.model.layouts import Holding
from ostore.model.messages import (
    API_TOPIC,
    DATA_TOPIC,
    LOCATES,
    Hello,
    Signer,
)
from ostore.model.nodes import Heartbeat, Member, Members
from ostore.model.placement import Candidate
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks, gather, start, succeeded

NOTHING = Holding("none")
"""What a node says that has nothing of a content."""


class Cluster:
    """Hears heartbeats, asks where contents are, and knows whom to trust.

    Owned by the service, which starts and stops it. `expected` names nodes that are
    known beforehand (standalone): once all of them were heard, the view is settled;
    otherwise it is once the bus was up for one heartbeat period. Nodes that do not
    `belong` are heard, but neither asked nor given anything. While all that are live
    are `near`, a question to each costs less than one to all on the bus; nodes that are
    `inside` this process are near while none is suspected, and say themselves what is
    wrong with them.
    """

    def __init__(
        self,
        bus: IMessageBus,
        nodes: INodes,
        signer: Signer,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        heartbeat: float,
        node_timeout: float,
        locate_timeout: float,
        expected: frozenset[str] = frozenset(),
        belongs: Callable[[Heartbeat], bool] = lambda _: True,
        near: Callable[[str], bool] = lambda _: False,
        inside: bool = False,
    ) -> None:
        self.members = Members(node_timeout)
        self.places = Places()
        self.locates = 0
        self._bus = bus
        self._nodes = nodes
        self._signer = signer
        self._clock = clock
        self._heartbeat = heartbeat
        self._timeout = locate_timeout
        self._expected = expected
        self._belongs = belongs
        self._near = near
        self._inside = inside
        self._asking = Asking(
            bus,
            signer,
            clock,
            entropy,
            locate_timeout,
            known=self._of_ours,
            together=self._together,
        )
        self._dropped = 0
        self._log = Logger()
        self._tasks = Tasks(self._log)
        self._hearing: float | None = None
        self._seen: View | None = None

    async def start(self) -> None:
        """Listen, and ask every node to say that it is there."""
        self._bus.subscribe(API_TOPIC, self._heard)
        self._asking.start()
        self._bus.on_up(self._resume)
        if self._bus.up:
            self._resume(0.0)

    async def stop(self) -> None:
        """End every locate that is under way with what is known."""
        await self._asking.stop()
        await self._tasks.stop()

    @property
    def dropped(self) -> int:
        """Messages that were none of ours, or had no business where they came."""
        return self._dropped + self._asking.dropped

    @property
    def settled(self) -> bool:
        """Whether "nobody has it" may be believed: everyone had time to speak."""
        if self._expected:
            return self._expected <= self.members.by_id.keys()
        now = self._clock.monotonic()
        return self._hearing is not None and now - self._hearing >= self._heartbeat

    def live(self) -> list[Member]:
        """Nodes of ours heard in time, suspects included."""
        return list(self._view.live)

    def candidates(self) -> Sequence[Candidate]:
        """Every node of ours as placement wants to see it."""
        return self._view.candidates

    @property
    def _view(self) -> View:
        """Who is there now; worked out anew only when that changed."""
        now, members = self._clock.monotonic(), self.members
        ours = tuple(self._belongs(m.beat) for m in members.by_id.values())
        seen = self._seen
        if seen is None or not seen.holds(members, ours, now):
            self._seen = seen = view(members, ours, now)
        return seen

    def quiet_since(self) -> float | None:
        """Seconds since the node that left last was heard; None when none is gone.

        What a node of another cluster holds is not waited for.
        """
        now = self._clock.monotonic()
        ours = {n: m for n, m in self.members.by_id.items() if self._belongs(m.beat)}
        heard = attrs.evolve(self.members, by_id=ours).last_down(now)
        return None if heard is None else now - heard

    def suspect(self, node: str) -> None:
        """The node missed a locate or refused a connection."""
        self.members = self.members.suspect(node, self._clock.monotonic())

    async def locate(
        self, hash: str, *, reading: bool = False, thorough: bool = False
    ) -> Census:
        """Ask all nodes what they hold of a content.

        Ends when all k+m shards of a layout are known, when every live node that is
        not suspect has answered, or at the time-out. A reader also waits for
        suspects while fewer than k shards are known, and not for the last answers
        once k are. A `thorough` asker waits for every live node, suspects too. Live
        nodes that let the time-out pass become suspect.
        """
        seen = self._view
        census = Census(seen.asked, seen.suspects)
        if not seen.live or self._asking.full:
            return census
        self.locates += 1
        asking: Sequence[Deferred[Holding]] = ()
        near = self._bus.up and self._all_near(census)
        if near:
            asking = self._ask_each(hash, census)
        if near and not asking:
            self._learn(hash, census)
            return census
        ask = self._asking.open(hash, census, reading=reading, thorough=thorough)
        try:
            if near:
                self._await_each(ask, asking)
            else:
                self._asking.publish(ask)
            await ask.ended
        except BusUnavailable:
            return census
        finally:
            self._asking.close(ask)
            for each in asking:
                if not each.called:
                    _ = each.addErrback(lambda _: None)
                    each.cancel()
        if ask.late:
            for node in census.silent:
                self.suspect(node)
        self._learn(hash, census)
        return census

    def _all_near(self, census: Census) -> bool:
        if self._inside:
            return not census.suspects
        return all(self._near(node) for node in census.asked)

    def _ask_each(self, hash: str, census: Census) -> list[Deferred[Holding]]:
        """Ask all nodes themselves; what is awaited, of those silent now in order."""
        asking: list[Deferred[Holding]] = []
        for node in sorted(census.asked):
            at_hand = self._nodes.at_hand(node)
            if at_hand is not None and at_hand.lacks(hash):
                census.answer(node, NOTHING)
                continue
            each = start(self._held_by(node, hash))
            if succeeded(each):
                census.answer(node, cast("Holding", each.result))
            else:
                asking.append(each)
        return asking

    def _await_each(self, ask: Ask, asking: Sequence[Deferred[Holding]]) -> None:
        ask.judge()
        for node, each in zip(sorted(ask.census.silent), asking, strict=True):
            _ = each.addCallback(_told, ask, node)

    async def _held_by(self, node: str, hash: str) -> Holding:
        """What one node says that it holds."""
        try:
            return await self._nodes.store(node).find(hash)
        except ShardError as error:
            if isinstance(error, NodeUnreachable) and not self._inside:
                self.suspect(node)
            return Holding("unsure")

    def remembered(self, hash: str) -> Standing | None:
        """Where the content was whole a moment ago, if all its nodes can be trusted."""
        standing = self.places.get(hash)
        if standing is None:
            return None
        trusted = self._view.trusted
        if all(node in trusted for (node,) in standing.places.values()):
            return standing
        self.places.forget(hash)
        return None

    def settled_on(self, standing: Standing) -> bool:
        """Whether none of its nodes is to be emptied: shards leave such a one."""
        return not standing.nodes & self._view.draining

    def beside(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do something that nobody waits for; it ends with the cluster."""
        self._tasks.spawn(what, work)

    def _learn(self, hash: str, census: Census) -> None:
        for standing in census.standings():
            spread = standing.spread
            if len(spread) == standing.layout.shards:
                self.places.learn(hash, standing.layout, spread)
                return

    async def survey(self, hash: str) -> Census:
        """Ask every live node itself, and wait for all: for repairs, not for reads."""
        live = [member.beat.node for member in self.live()]
        census = Census(frozenset(live))

        async def ask(node: str) -> None:
            try:
                holding = await self._clock.within(
                    max(5.0, 5 * self._timeout), self._nodes.store(node).find(hash)
                )
            except (ShardError, TimedOut):
                holding = Holding("unsure")
            census.answer(node, holding)

        for outcome in await gather(ask(node) for node in live):
            if isinstance(outcome, Exception):
                raise outcome
        return census

    def _resume(self, away: float) -> None:
        """The bus is up again: nodes are kept as they were, and asked to speak.

        A newcomer's heartbeats may all have been missed when it was away for long.
        """
        now = self._clock.monotonic()
        if self._hearing is None or away >= self._heartbeat:
            self._hearing = now
        self.members = self.members.resumed(now - away, now)
        self._tasks.spawn("asking for heartbeats", self._hello)

    async def _hello(self) -> None:
        try:
            await self._bus.publish(
                DATA_TOPIC,
                self._signer.seal(Hello(reply_to=self._bus.address)),
                self._heartbeat,
            )
        except BusUnavailable:
            self._log.debug("hello not sent: the bus is away again")

    def _heard(self, body: bytes, _: str) -> None:
        try:
            message = self._signer.open(body)
        except BadMessage:
            self._dropped += 1
            return
        if isinstance(message, Heartbeat):
            self.members = self.members.heard(message, self._clock.monotonic())
        else:
            self._dropped += 1

    def _of_ours(self, node: str) -> bool:
        member = self.members.by_id.get(node)
        return member is not None and self._belongs(member.beat)

    def _together(self) -> bool:
        """Whether every live node answers many questions in one message."""
        return all(LOCATES in member.beat.capabilities for member in self._view.live)

    def heard_ago(self, node: str) -> float:
        """Seconds since the node was last heard."""
        return self._clock.monotonic() - self.members.by_id[node].heard

    def states(self) -> Mapping[str, str]:
        """The state of every node that was ever heard, by id.

        One that is of another cluster, or of none yet, is in `conflict`.
        """
        now = self._clock.monotonic()
        timeout = self.members.timeout
        return {
            node: member.state(now, timeout)
            if self._belongs(member.beat)
            else "conflict"
            for node, member in self.members.by_id.items()
        }


def _told(holding: Holding, ask: Ask, node: str) -> None:
    ask.answer(node, holding)
