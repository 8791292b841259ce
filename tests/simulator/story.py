"""Stories: what clients do and what befalls the cluster, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs

from tests.simulator.cluster import EXPIRY, GRACE, Plan
from tests.simulator.contents import LARGE, SMALL
from tests.simulator.disks import FAILURES

NAMES = ("a", "b", "c")
JOBS = ("orphans", "orphans", "garbage", "retention", "census", "scrub", "rebalance")
SHARED = 3
"""How many contents are put again and again."""


@attrs.frozen
class Step:
    """Something begins; then so many seconds go by before the next step.

    `number` is the step's own: what chance does in it depends on that and the seed.
    """

    number: int
    kind: str
    args: tuple[Any, ...]
    pause: float

    def __str__(self) -> str:
        said = " ".join(str(arg) for arg in self.args)
        return f"{self.number}. {self.kind} {said}, then {self.pause:g} s"


@attrs.frozen
class Story:
    """A cluster and what happens to it."""

    seed: int
    plan: Plan
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.plan}", *map(str, self.steps)])


Draw = Callable[[], tuple[Any, ...]]
Drawn = tuple[str, tuple[Any, ...], float]
"""Kind, arguments and pause of a step."""


class Author:
    """Writes one story; each draws its own mix of what may happen."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(f"story {seed}")
        self._packing = Random(f"packing {seed}")
        self._seed = seed
        rng = self._rng
        engines = rng.choice((1, 1, 2, 2))
        self._plan = Plan(
            compressing=tuple(rng.random() < 0.6 for _ in range(engines)),
            search=rng.random() < 0.35,
            quorum=rng.choice((5, 5, 5, 4, 6)),
            nodes=rng.choice((6, 6, 6, 7, 8)),
            cached=rng.random() < 0.5,
            keep=rng.choice((5, 5, 2, 0)),
            every=rng.choice((0.0, 0.0, 0.0, 60.0)),
            sweeping=rng.random() < 0.4,
            packing=self._packing.choice((0, 0, 0, 0, 1000, 64_000)),
        )
        pool: Sequence[int] = [*SMALL, *(LARGE if rng.random() < 0.3 else ())]
        self._contents = rng.sample(list(pool), SHARED)
        self._draws: dict[str, tuple[float, Draw]] = {
            "put": (9, self._put),
            "get": (6, self._get),
            "list": (1, lambda: (self._engine(), self._name())),
            "delete": (1.5, lambda: (self._engine(), self._name())),
            "purge": (1.5, lambda: (self._engine(), self._name(), self._number())),
            "copy": (1, lambda: (self._engine(), self._name(), self._name())),
            "instant": (1, lambda: (self._engine(), self._name(), self._content())),
            "locate": (1, lambda: (self._engine(), self._content())),
            "clear": (0.7, lambda: (self._engine(), self._name())),
            "job": (1, lambda: (self._engine(), rng.choice(JOBS))),
            "wait": (1, lambda: (rng.choice((3.0, 20.0, 70.0)),)),
        }
        faults: dict[str, tuple[float, Draw]] = {
            "kill": (3, self._kill),
            "blackout": (1, lambda: (rng.randrange(0, 40), self._seconds())),
            "crash": (2, lambda: (self._engine(), self._seconds())),
            "freeze": (2, lambda: (self._node(), rng.choice((1.5, 8.0, 40.0)))),
            "stop": (1, lambda: (self._engine(), rng.choice((2.0, 40.0)))),
            "cut": (2, self._cut),
            "slow": (1.5, lambda: (self._node(), rng.choice((2, 35)), self._seconds())),
            "deaf": (1, lambda: (self._node(), rng.choice((0.3, 1)), self._seconds())),
            "bus": (1.5, self._bus),
            "broker": (1, lambda: (self._seconds(),)),
            "apart": (1, lambda: (self._node(), self._seconds())),
            "metadata": (2, self._metadata),
            "rot": (2, self._rot),
            "lose": (2, lambda: (self._node(), rng.randrange(8))),
            "wipe": (1, lambda: (self._node(), self._seconds())),
            "full": (1, lambda: (self._node(), self._seconds())),
            "failing": (2, self._failing),
            "jump": (1, self._jump),
        }
        chosen = rng.sample(sorted(faults), rng.randrange(1, 8))
        scale = rng.choice((0.3, 1.0, 2.0))
        for kind in chosen:
            weight, draw = faults[kind]
            self._draws[kind] = weight * scale, draw

    def story(self) -> Story:
        """All of it."""
        rng = self._rng
        kinds = list(self._draws)
        weights = [weight for weight, _ in self._draws.values()]
        drawn: list[Drawn] = []
        for _ in range(rng.randrange(8, 36)):
            (kind,) = rng.choices(kinds, weights)
            drawn.append((kind, self._draws[kind][1](), self._pause()))
        chapters = (
            self._collection,
            self._stale_orders,
            self._stuck_write,
            self._doubt,
            self._twins,
            self._double,
        )
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            self._weave(drawn, rng.choice(chapters)())
        if self._plan.packing and self._packing.random() < 0.5:
            self._weave(drawn, self._hole())
        elif Random(f"overlooked {self._seed}").random() < 0.1:
            self._weave(drawn, self._overlooked())
        parts = Random(f"parts {self._seed}")
        for _ in range(parts.choice((0, 0, 0, 0, 1, 2))):
            content = parts.choice((self._content(), *LARGE))
            upload = self._engine(), self._name(), content
            at = parts.randrange(len(drawn) + 1)
            drawn.insert(at, ("upload", upload, self._pause()))
        steps = (Step(number, *each) for number, each in enumerate(drawn))
        return Story(self._seed, self._plan, tuple(steps))

    def _weave(self, drawn: list[Drawn], chapter: Sequence[Drawn]) -> None:
        """Put a chapter into what is drawn already, other steps in between."""
        at = self._rng.randrange(len(drawn) + 1)
        for each in chapter:
            drawn.insert(at, each)
            at = min(len(drawn), at + self._rng.choice((1, 1, 1, 2)))

    def _collection(self) -> Sequence[Drawn]:
        """Contents become garbage, and are wanted again at some bad moment."""
        rng, engine, other = self._rng, self._engine(), self._engine()
        wait, content = rng.uniform(0, 1.5 * GRACE), self._content()
        absent: Drawn = ("cut", (other, self._node(), "refused", 12.0), 0.0)
        if rng.random() < 0.5:
            absent = ("kill", (self._node(), "kill", 0, 12.0), 0.0)
        return (
            *self._orphan(engine, content),
            ("wait", (rng.choice((5.0, GRACE + 5)),), 0.0),
            ("job", (engine, "orphans"), rng.choice((0.0, 10.0, wait))),
            *([absent] if rng.random() < 0.7 else []),
            ("put", (other, "b", content, "plain"), rng.choice((0.0, wait))),
            ("wait", (rng.choice((0.0, GRACE)),), self._pause()),
            ("job", (engine, "garbage"), wait),
            ("put", (self._engine(), "c", content, "plain"), rng.choice((0.0, wait))),
            ("wait", (rng.choice((0.0, EXPIRY)),), 0.0),
        )

    def _orphan(self, engine: int, content: int) -> Sequence[Drawn]:
        """A content that nobody refers to any longer."""
        return (
            ("put", (engine, "a", content, "plain"), 3.0),
            *(("clear", (engine, name), 0.3) for name in NAMES),
        )

    def _stale_orders(self) -> Sequence[Drawn]:
        """Orders of maintenance are on their way for long, and another run begins."""
        engine, other = self._engine(), self._engine()
        return (
            *self._orphan(engine, self._content()),
            ("wait", (GRACE + 5,), 0.0),
            ("job", (engine, "orphans"), 0.0),
            ("job", (other, "orphans"), self._rng.uniform(GRACE - 5, GRACE + 8)),
            ("slow", (self._node(), 90, 25.0), 0.0),
            ("slow", (self._node(), 90, 25.0), 0.0),
            ("wait", (110.0,), 0.0),
        )

    def _stuck_write(self) -> Sequence[Drawn]:
        """A version takes longer to be written than orphans are given."""
        engine, content = self._engine(), self._content()
        return (
            *self._orphan(engine, content),
            ("metadata", ("stuck", self._rng.choice((70.0, 90.0))), 0.0),
            ("put", (engine, "b", content, "plain"), GRACE + 2),
            ("job", (self._engine(), "orphans"), 0.0),
            ("wait", (70.0,), 0.0),
            ("get", (engine, "b", 0, ()), 0.0),
        )

    def _doubt(self) -> Sequence[Drawn]:
        """A shard is missing, and a node cannot say what it holds."""
        rng, content = self._rng, self._content()
        return (
            ("put", (self._engine(), "a", content, "plain"), 3.0),
            ("failing", (self._node(), rng.choice(("reads", "stats")), 30.0), 0.0),
            ("lose", (self._node(), rng.randrange(8)), 0.0),
            ("get", (self._engine(), "a", 0, ()), 3.0),
            ("get", (self._engine(), "a", 0, ()), 3.0),
            ("get", (self._engine(), "a", 0, ()), 12.0),
        )

    def _double(self) -> Sequence[Drawn]:
        """A node is away until its shards are rebuilt elsewhere, and comes back."""
        engine, content = self._engine(), self._content()
        return (
            ("put", (engine, "a", content, "plain"), 3.0),
            ("kill", (self._node(), "kill", 0, 60.0), 15.0),
            ("get", (engine, "a", 0, ()), 0.0),
            ("get", (engine, "a", 0, ()), 0.0),
            ("wait", (70.0,), 0.0),
            ("job", (engine, self._rng.choice(("census", "scrub"))), 0.0),
            ("wait", (30.0,), 0.0),
        )

    def _twins(self) -> Sequence[Drawn]:
        """Two engines store one content at once, perhaps each in its own way."""
        rng, content = self._rng, self._content()
        last = len(self._plan.compressing) - 1
        return (
            *self._orphan(0, content),
            ("wait", (2 * GRACE,), 0.0),
            ("job", (0, "orphans"), 0.0),
            ("wait", (GRACE + 15,), 0.0),
            ("put", (0, "a", content, "plain"), rng.choice((0.0, 0.001))),
            ("put", (last, "b", content, "plain"), rng.uniform(0.0, 0.004)),
            ("crash", (rng.randrange(last + 1), 4.0), 12.0),
            ("get", (0, "a", 0, ()), 0.0),
            ("get", (0, "b", 0, ()), 1.0),
            ("put", (last, "c", content, "plain"), 1.0),
            ("get", (last, "c", 0, ()), 3.0),
        )

    def _overlooked(self) -> Sequence[Drawn]:
        """An orphan is wanted again, and a node does not hear of it in time."""
        engine, content = self._engine(), self._content()
        return (
            *self._orphan(self._engine(), content),
            ("wait", (GRACE + 5,), 0.0),
            ("job", (self._engine(), "orphans"), 10.0),
            ("cut", (engine, self._node(), "refused", 12.0), 0.0),
            ("put", (engine, "b", content, "plain"), 0.0),
            ("wait", (GRACE + 10,), 0.0),
        )

    def _hole(self) -> Sequence[Drawn]:
        """A record rots that others follow in its segment, which has no index yet."""
        rng, node = self._packing, self._node()
        puts: Sequence[Drawn] = [
            ("put", (self._engine(), name, content, "plain"), rng.choice((0.0, 0.3)))
            for name, content in zip(NAMES, self._contents, strict=True)
        ]
        return (
            *puts,
            ("wait", (3.0,), 0.0),
            ("rot", (node, rng.randrange(8), rng.random()), 0.0),
            ("kill", (node, rng.choice(("kill", "power")), 0, 4.0), 15.0),
            *(("get", (self._engine(), name, 0, ()), 3.0) for name in NAMES),
        )

    def _pause(self) -> float:
        return self._rng.choices(
            (0.0, 0.002, 0.01, 0.3, 3.0, 15.0), (4, 2, 2, 3, 3, 1)
        )[0]

    def _seconds(self) -> float:
        return self._rng.choice((0.5, 4.0, 12.0, 30.0, 60.0))

    def _engine(self) -> int:
        return self._rng.randrange(len(self._plan.compressing))

    def _node(self) -> int:
        return self._rng.randrange(self._plan.nodes)

    def _name(self) -> str:
        return self._rng.choice(NAMES)

    def _content(self) -> int:
        return self._rng.choice(self._contents)

    def _number(self) -> int:
        return self._rng.randrange(1, 5)

    def _put(self) -> tuple[Any, ...]:
        rng = self._rng
        modes = ("plain", "keyed", "again", "create", "slow", "wrong")
        (mode,) = rng.choices(modes, (8, 3, 1, 1, 1, 0.5))
        return self._engine(), self._name(), self._content(), mode

    def _get(self) -> tuple[Any, ...]:
        rng = self._rng
        number = self._number() if rng.random() < 0.3 else 0
        span = (rng.random(), rng.random()) if rng.random() < 0.3 else ()
        return self._engine(), self._name(), number, span

    def _kill(self) -> tuple[Any, ...]:
        rng = self._rng
        how = rng.choice(("kill", "power", "power"))
        return self._node(), how, rng.choice((0, rng.randrange(60))), self._seconds()

    def _cut(self) -> tuple[Any, ...]:
        how = self._rng.choice(("refused", "silent"))
        return self._engine(), self._node(), how, self._seconds()

    def _bus(self) -> tuple[Any, ...]:
        rng = self._rng
        return (
            rng.choice((0.0, 0.2)),
            rng.choice((0.0, 0.5)),
            rng.choice((0.05, 0.5, 1.5)),
            self._seconds(),
        )

    def _metadata(self) -> tuple[Any, ...]:
        how = self._rng.choice(("away", "lose", "slow", "stuck"))
        return how, self._seconds()

    def _rot(self) -> tuple[Any, ...]:
        return self._node(), self._rng.randrange(8), self._rng.random()

    def _failing(self) -> tuple[Any, ...]:
        what = self._rng.choice(sorted(FAILURES))
        return self._node(), what, self._seconds()

    def _jump(self) -> tuple[Any, ...]:
        rng = self._rng
        who = rng.choice(("node", "engine"))
        number = self._node() if who == "node" else self._engine()
        return who, number, rng.choice((-4000.0, -20.0, 20.0, 50.0, 4000.0, 1e6))


def write(seed: int) -> Story:
    """The story of that seed."""
    return Author(seed).story()
