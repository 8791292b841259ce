"""Every order in which two api processes and a search server can take their steps.

A step is one of: a client begins a call; the server carries out one item of a request
on the primary, or copies its writes to the replica; an answer reaches the process; an
answer is lost and the request goes on by itself, now, later or never; a request is
refused unseen; a process dies and its requests go on likewise; a timer rings. The
search is depth first over states, each entered once: what the server holds, what each
process has seen, how far every request is, and which calls were over before others
began.

Left out without loss, because another order shows the same or more:

- Between a call's beginning and the next thing that happens in its process, or the
  server's step on the request that it sent, nothing happens elsewhere: had it begun
  earlier, real time would bind it less.
- An answer reaches its process at once, or right behind something else that happens
  there: had it come later, the calls that it ends would be bound less. Timers ring
  right behind something that happens in their process.
- Answers are lost, and processes die, right behind something that happens in the
  process: what the server has not done of its requests it may still do, at any time.
- Of clients of one process that do the same, the first begins first.

Bounded: faults by `faults`; and once a process has sent `patience` requests, what it
asks waits until no write stands on the primary alone, so that a reader of a lagging
replica does not ask for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from tests.support.fakesearch import PRIMARY, REPLICA, FakeSearch, Request
from tests.support.numbered import Server
from tests.support.replaying import (
    SOON,
    Deliver,
    Event,
    Invoke,
    Lose,
    MakeStore,
    Node,
    Program,
    Refuse,
    Tree,
    Wake,
)
from tests.support.verdicts import Verdicts
from tests.support.worlds import (
    NOTHING,
    Begun,
    Client,
    Explored,
    Last,
    Mark,
    PathStep,
    Pending,
    Step,
    TooMany,
    World,
    Wrong,
)


class Explorer:
    """Goes through the steps of `clients`; made anew for each search.

    Without `reduced` it leaves nothing out that is said to show nothing more.
    """

    def __init__(
        self,
        make: MakeStore,
        server: Callable[[], FakeSearch],
        clients: Sequence[Client],
        *,
        faults: int = 0,
        patience: int = 16,
        wakes: int = 64,
        reduced: bool = True,
    ) -> None:
        self._clients = clients
        self._patience = patience
        self._wakes = wakes
        self._free = not reduced
        self._server = Server(make, server)
        self._calls: dict[tuple[int, int], int] = {}
        self._names = sorted({client.name for client in clients})
        self._verdicts = Verdicts([client.name for client in clients])
        self.explored = Explored()
        self._trees = [
            Tree(make, server, self._programs(process))
            for process in range(1 + max(each.process for each in clients))
        ]
        self._start = World(
            server=self._server.now(),
            nodes=tuple(0 for _ in self._trees),
            pending=(),
            begun=(),
            over=0,
            faults=faults,
            last=NOTHING,
        )

    def everything(self, most: int) -> Explored:
        """Take every step in every state. Raises Wrong; TooMany after `most` steps."""
        seen = {self._start}
        path: list[PathStep] = []
        ways = [iter(self._next(self._start))]
        while ways:
            step = next(ways[-1], None)
            if step is None:
                ways.pop()
                if path:
                    path.pop()
                continue
            self.explored.steps += 1
            if self.explored.steps > most:
                raise TooMany(f"more than {most} steps")
            label, world, marks = step
            if world not in seen:
                seen.add(world)
                path.append((label, marks))
                ways.append(iter(self._entered(world, path)))
        return self._summed(len(seen))

    def some(self, walks: int, seed: int) -> Explored:
        """Take random steps from the start to an end, again and again. Raises Wrong.

        Here nothing is left out, so that no walk ends before its calls do.
        """
        self._free = True
        chance = random.Random(seed)
        seen: set[World] = set()
        for _ in range(walks):
            world = self._start
            path: list[PathStep] = []
            steps = self._next(world)
            while steps:
                label, world, marks = chance.choice(steps)
                path.append((label, marks))
                self.explored.steps += 1
                if world in seen:
                    steps = self._next(world)
                else:
                    seen.add(world)
                    steps = self._entered(world, path)
        return self._summed(len(seen))

    def requests(self) -> Iterator[Request]:
        """Every request that was sent in any order."""
        for tree in self._trees:
            for node in tree.nodes:
                yield from node.effect.requests

    def outcomes(self) -> set[object]:
        """All answers together, with what was read in the end, that were met."""
        return self._verdicts.outcomes

    def _summed(self, states: int) -> Explored:
        self.explored.states = states
        self.explored.histories = self._verdicts.histories
        self.explored.runs = sum(tree.runs for tree in self._trees)
        return self.explored

    def _programs(self, process: int) -> Mapping[int, tuple[str, Program]]:
        return {
            which: (client.name, client.program)
            for which, client in enumerate(self._clients)
            if client.process == process
        }

    # Steps

    def _entered(self, world: World, path: Sequence[PathStep]) -> list[Step]:
        """The steps from here; where nobody waits any more the history is checked."""
        steps = self._next(world)
        if all(pending.orphan for pending in world.pending) and not any(
            self._node(world, process).effect.ready or self._rings(world, process)
            for process in self._alive(world)
        ):
            if any(self._node(world, one).effect.busy for one in self._alive(world)):
                raise Wrong("a call that nobody answers")
            ends = self._server.end(world.server, self._names)
            self._verdicts.check(path, world.begun, ends)
        return steps

    def _next(self, world: World) -> list[Step]:
        free = self._free
        last = NOTHING if free else world.last
        for process in self._alive(world):
            alone = self._alone(world, process)
            if alone is not None:
                return [self._delivered(world, alone)]
        steps: list[Step] = []
        for process in self._alive(world):
            if last.sent is None or last.process == process:
                steps += self._of_process(world, process)
        for pending in world.pending:
            mine = not pending.orphan and (free or last.process == pending.process)
            if mine and last.served is None:
                steps += self._faults(world, pending)
            if pending.told is not None:
                if mine and last.served in {None, pending.number}:
                    steps.append(self._delivered(world, pending))
                continue
            if last.sent is None or (mine and pending.number in last.sent):
                steps += self._serving(world, pending)
        return steps

    def _alive(self, world: World) -> Iterator[int]:
        return (each for each in range(len(self._trees)) if each not in world.dead)

    def _node(self, world: World, process: int) -> Node:
        return self._trees[process].nodes[world.nodes[process]]

    def _alone(self, world: World, process: int) -> Pending | None:
        """The answer that is all that a process could see next."""
        mine = [
            each
            for each in world.pending
            if each.process == process and not each.orphan
        ]
        if len(mine) != 1 or mine[0].told is None:
            return None
        effect = self._node(world, process).effect
        if effect.ready or self._rings(world, process):
            return None
        return mine[0]

    def _rings(self, world: World, process: int) -> bool:
        """Whether a timer may ring: soon, or when there is nothing else to wait for."""
        node = self._node(world, process)
        if node.effect.timer is None or not node.effect.busy:
            return False
        waits = any(
            each.process == process and not each.orphan for each in world.pending
        )
        if waits and node.effect.timer > SOON:
            return False
        if node.wakes >= self._wakes:
            raise Wrong("a process that wakes again and again and does nothing")
        return True

    def _of_process(self, world: World, process: int) -> Iterator[Step]:
        node = self._node(world, process)
        like = set()
        for which, call in node.effect.ready:
            client = self._clients[which]
            if client.like and client.like in like:
                continue
            like.add(client.like)
            operation = which, self._count(world, which)
            begun = Begun(operation, world.over)
            calls = sorted((*world.begun, begun), key=lambda each: each.operation)
            changed = attrs.evolve(world, begun=tuple(calls))
            yield self._happened(
                changed, process, Invoke(which), (Mark(operation, call),)
            )
        just = self._free or world.last.event == process
        if just and self._rings(world, process):
            yield self._happened(world, process, Wake())

    def _serving(self, world: World, pending: Pending) -> Iterator[Step]:
        request = self._request(world, pending)
        halfway = [
            each
            for each in world.pending
            if each.told is None and self._server.progress[each.progress].writes
        ]
        if (
            pending.number >= self._patience
            and halfway
            and pending not in halfway
            and not pending.orphan
        ):
            return
        asked = dict(request.query)
        free = request.path.endswith("_mget") and "preference" not in asked
        for other in (PRIMARY, REPLICA) if free else (PRIMARY,):
            server, progress, told = self._server.serve(
                world.server, request, pending.progress, other
            )
            after = attrs.evolve(pending, progress=progress, told=told)
            gone = told is not None and pending.orphan
            last = NOTHING
            if told is not None and not pending.orphan:
                last = Last(pending.process, served=pending.number)
            yield (
                f"serve {pending.process}.{pending.number} {request.path}",
                attrs.evolve(
                    world,
                    server=server,
                    pending=tuple(
                        after if each is pending else each
                        for each in world.pending
                        if not (gone and each is pending)
                    ),
                    last=last,
                ),
                (),
            )

    def _faults(self, world: World, pending: Pending) -> Iterator[Step]:
        if not world.faults:
            return
        less = attrs.evolve(world, faults=world.faults - 1)
        yield self._happened(
            self._left(less, [pending]), pending.process, Lose(pending.number)
        )
        if pending.told is None and pending.progress == 0:
            rest = tuple(each for each in world.pending if each is not pending)
            yield self._happened(
                attrs.evolve(less, pending=rest),
                pending.process,
                Refuse(pending.number),
            )
        mine = [
            each
            for each in world.pending
            if each.process == pending.process and not each.orphan
        ]
        crashed = self._left(less, mine)
        yield (
            f"process {pending.process} dies",
            attrs.evolve(crashed, dead=crashed.dead | {pending.process}, last=NOTHING),
            (),
        )

    def _left(self, world: World, requests: Sequence[Pending]) -> World:
        """The world in which nobody waits for these; those that read are forgotten."""
        kept = []
        for each in world.pending:
            if each not in requests:
                kept.append(each)
            elif not self._request(world, each).idempotent and each.told is None:
                kept.append(attrs.evolve(each, orphan=True))
        return attrs.evolve(world, pending=tuple(kept))

    def _delivered(self, world: World, pending: Pending) -> Step:
        assert pending.told is not None
        status, text = self._server.answers[pending.told]
        rest = tuple(each for each in world.pending if each is not pending)
        return self._happened(
            attrs.evolve(world, pending=rest),
            pending.process,
            Deliver(pending.number, status, text),
        )

    def _happened(
        self,
        world: World,
        process: int,
        event: Event,
        marks: tuple[Mark, ...] = (),
    ) -> Step:
        """The world behind an event of a process."""
        tree = self._trees[process]
        before = tree.nodes[world.nodes[process]]
        node = tree.after(before, event)
        nodes = list(world.nodes)
        nodes[process] = node.number
        fresh = tuple(
            Pending(process, len(before.requests) + i)
            for i in range(len(node.effect.requests))
        )
        over = world.over
        for which, answer in node.effect.returned:
            operation = which, self._count(world, which) - 1
            over |= 1 << self._number(operation)
            marks = (*marks, Mark(operation, answer=answer))
        after = attrs.evolve(
            world,
            nodes=tuple(nodes),
            pending=tuple(
                sorted(
                    (*world.pending, *fresh),
                    key=lambda each: (each.process, each.number),
                )
            ),
            over=over,
            last=Last(
                process,
                tuple(each.number for each in fresh)
                if isinstance(event, Invoke)
                else None,
            ),
        )
        return f"{process}: {event}", after, marks

    def _count(self, world: World, which: int) -> int:
        return sum(each.operation[0] == which for each in world.begun)

    def _number(self, operation: tuple[int, int]) -> int:
        return self._calls.setdefault(operation, len(self._calls))

    def _request(self, world: World, pending: Pending) -> Request:
        return self._node(world, pending.process).requests[pending.number]
