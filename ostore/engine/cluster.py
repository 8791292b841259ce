"""The cluster as this process sees it: who is alive, and who holds what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ostore.engine.places import Places
from ostore.interfaces import IMessageBus, INodes
from ostore.model.census import Census, Standing
from ostore.model.errors import BusUnavailable, NodeUnreachable, ShardError
from ostore.model.layouts import Holding, ShardFacts
from ostore.model.messages import Answer, BadMessage, Hello, Locate, Message, Signer
from ostore.model.nodes import Heartbeat, Member, Members
from ostore.model.placement import Candidate, candidates
from ostore.streaming.clock import Clock, TimedOut
from ostore.streaming.tasks import Tasks, gather, start, succeeded

API_TOPIC = "apiServers"
DATA_TOPIC = "dataServers"
DATA_FIRST = 0.02
"""Seconds that a reader waits for data shards once k of a layout are known."""
MAX_ASKS = 10_000
"""Locates under way at once; more are refused as if the bus were away."""
UNTRUSTED = frozenset({"suspect", "down", "conflict"})
"""States of nodes on which nothing is looked for without asking first."""


@attrs.define(eq=False)
class _Ask:
    """One locate under way: its census, its end, its timers."""

    hash: str
    census: Census
    reading: bool
    thorough: bool
    ended: Deferred[None]
    timers: list[IDelayedCall] = attrs.field(factory=list)
    late: bool = False

    def finish(self) -> None:
        """End it; once is enough."""
        for timer in self.timers:
            if timer.active():
                timer.cancel()
        if not self.ended.called:
            self.ended.callback(None)


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
        self.dropped = 0
        self.locates = 0
        self._bus = bus
        self._nodes = nodes
        self._signer = signer
        self._clock = clock
        self._entropy = entropy
        self._heartbeat = heartbeat
        self._timeout = locate_timeout
        self._expected = expected
        self._belongs = belongs
        self._near = near
        self._inside = inside
        self._asks: dict[str, _Ask] = {}
        self._log = Logger()
        self._tasks = Tasks(self._log)
        self._hearing: float | None = None

    async def start(self) -> None:
        """Listen, and ask every node to say that it is there."""
        self._bus.subscribe(API_TOPIC, self._heard)
        self._bus.listen(self._answered)
        self._bus.on_up(self._resume)
        if self._bus.up:
            self._resume(0.0)

    async def stop(self) -> None:
        """End every locate that is under way with what is known."""
        for ask in list(self._asks.values()):
            ask.finish()
        await self._tasks.stop()

    @property
    def settled(self) -> bool:
        """Whether "nobody has it" may be believed: everyone had time to speak."""
        if self._expected:
            return self._expected <= self.members.by_id.keys()
        now = self._clock.monotonic()
        return self._hearing is not None and now - self._hearing >= self._heartbeat

    def live(self) -> list[Member]:
        """Nodes of ours heard in time, suspects included."""
        live = self.members.live(self._clock.monotonic())
        return [member for member in live if self._belongs(member.beat)]

    def candidates(self) -> list[Candidate]:
        """Every node of ours as placement wants to see it."""
        found = candidates(self.members, self._clock.monotonic())
        return [each for each in found if self._of_ours(each.id)]

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
        live = self.live()
        census = Census(
            frozenset(m.beat.node for m in live),
            frozenset(m.beat.node for m in live if m.suspected is not None),
        )
        if not live or len(self._asks) >= MAX_ASKS:
            return census
        self.locates += 1
        asking: Sequence[Deferred[Holding]] = ()
        near = self._bus.up and self._all_near(census)
        if near:
            asking = self._ask_each(hash, census)
        if near and not asking:
            self._learn(hash, census)
            return census
        number = self._entropy(16).hex()
        ask = self._asks[number] = _Ask(hash, census, reading, thorough, Deferred())
        ask.timers.append(self._clock.call_later(self._timeout, self._too_late, ask))
        try:
            if near:
                self._await_each(ask, asking)
            else:
                await self._publish(number, hash)
            await ask.ended
        except BusUnavailable:
            return census
        finally:
            ask.finish()
            del self._asks[number]
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
            each = start(self._held_by(node, hash))
            if succeeded(each):
                census.answer(node, cast("Holding", each.result))
            else:
                asking.append(each)
        return asking

    def _await_each(self, ask: _Ask, asking: Sequence[Deferred[Holding]]) -> None:
        self._judge(ask)
        for node, each in zip(sorted(ask.census.silent), asking, strict=True):
            _ = each.addCallback(self._told, ask, node)

    async def _publish(self, number: str, hash: str) -> None:
        """Ask all nodes at once. Raises BusUnavailable."""
        question = Locate(
            hash=hash,
            id=number,
            ttl_ms=max(1, round(self._timeout * 1000)),
            reply_to=self._bus.address,
        )
        sealed = self._signer.seal(question)
        await self._bus.publish(DATA_TOPIC, sealed, self._timeout)

    async def _held_by(self, node: str, hash: str) -> Holding:
        """What one node says that it holds."""
        try:
            return await self._nodes.store(node).find(hash)
        except ShardError as error:
            if isinstance(error, NodeUnreachable) and not self._inside:
                self.suspect(node)
            return Holding("unsure")

    def _told(self, holding: Holding, ask: _Ask, node: str) -> None:
        if not ask.ended.called:
            ask.census.answer(node, holding)
            self._judge(ask)

    def remembered(self, hash: str) -> Standing | None:
        """Where the content was whole a moment ago, if all its nodes can be trusted."""
        standing = self.places.get(hash)
        if standing is None:
            return None
        now, timeout = self._clock.monotonic(), self.members.timeout
        for (node,) in standing.places.values():
            member = self.members.by_id.get(node)
            if (
                member is None
                or member.state(now, timeout) in UNTRUSTED
                or not self._belongs(member.beat)
            ):
                self.places.forget(hash)
                return None
        return standing

    def settled_on(self, standing: Standing) -> bool:
        """Whether none of its nodes is to be emptied: shards leave such a one."""
        now, timeout = self._clock.monotonic(), self.members.timeout
        states = {
            node: self.members.by_id[node].state(now, timeout)
            for node in standing.nodes & self.members.by_id.keys()
        }
        return "draining" not in states.values()

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

    def _too_late(self, ask: _Ask) -> None:
        ask.late = True
        ask.finish()

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
        message = self._open(body)
        if isinstance(message, Heartbeat):
            self.members = self.members.heard(message, self._clock.monotonic())
        elif message is not None:
            self.dropped += 1

    def _answered(self, body: bytes) -> None:
        message = self._open(body)
        if message is None:
            return
        if not isinstance(message, Answer) or not self._of_ours(message.node):
            self.dropped += 1
            return
        ask = self._asks.get(message.id)
        if ask is None:
            return  # late: the others had said enough
        facts = tuple(
            ShardFacts(ask.hash, index, layout, 0, 0.0)
            for index, layout in message.shards
        )
        ask.census.answer(message.node, Holding(message.state, facts))
        self._judge(ask)

    def _of_ours(self, node: str) -> bool:
        member = self.members.by_id.get(node)
        return member is not None and self._belongs(member.beat)

    def _judge(self, ask: _Ask) -> None:
        census = ask.census
        if census.whole() or not census.silent:
            ask.finish()
        elif ask.thorough:
            return
        elif not ask.reading:
            if census.done():
                ask.finish()
        elif census.readable() and len(ask.timers) == 1:
            ask.timers.append(self._clock.call_later(DATA_FIRST, ask.finish))

    def _open(self, body: bytes) -> Message | None:
        try:
            return self._signer.open(body)
        except BadMessage:
            self.dropped += 1
            return None

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
