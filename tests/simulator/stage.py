"""Plays a story: clients ask, faults come and go, and every answer is looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import attrs
from twisted.internet.defer import CancelledError
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from ostore.model.errors import OstoreError
from tests.simulator.audit import DATA, PARITY, Audit, Kept
from tests.simulator.clients import Clients
from tests.simulator.cluster import EXPIRY, GRACE, Cluster
from tests.simulator.contents import BY_HASH
from tests.simulator.excuses import SETTLE, Excuses
from tests.simulator.faults import Faults
from tests.simulator.story import NAMES, Step, Story
from tests.simulator.world import World
from tests.support.disk import PowerCut

LONGEST = 300.0
"""Seconds within which every request ends."""
MENDED = 130.0
"""Seconds after which everything that can be mended is."""
SCRUBBED = 60.0
"""Seconds within which all is read, and what is rotten rebuilt."""


@attrs.frozen
class Outcome:
    """How a story ended."""

    story: Story
    digest: str
    violations: tuple[str, ...]
    lines: tuple[str, ...]
    acknowledged: int
    reads: int


class Stage:
    """One story from beginning to end."""

    def __init__(self, story: Story, folder: Path, *, keep: bool = False) -> None:
        self.story = story
        self.world = World(story.seed, keep=keep)
        self.cluster = Cluster(self.world, story.plan, folder)
        self.audit = Audit(self.cluster)
        excuses = Excuses(self.cluster, self.audit)
        self.clients = Clients(self.cluster, self.audit, excuses)
        self.faults = Faults(
            self.cluster, self.audit, excuses, lambda: bool(self.clients.running)
        )
        self.cluster.on_purge = self.clients.purged
        moved = any("rebalance" in step.args for step in story.steps)
        if not moved and not story.plan.every:  # a move has its own reasons
            self.cluster.net.doubles = self.audit.doubles

    def play(self) -> Outcome:
        """All steps, then peace, then the last look."""
        observer = _Watcher(self.world)
        globalLogPublisher.addObserver(observer)
        try:
            self.world.reseed(-1)
            self.cluster.start()
            for step in self.story.steps:
                self.step(step)
                if self.world.violations:
                    break
            if not self.world.violations:
                self.world.reseed(-2)
                self.end()
            self.cluster.stop()
        finally:
            globalLogPublisher.removeObserver(observer)
        return Outcome(
            self.story,
            self.world.trace.digest,
            tuple(self.world.violations),
            tuple(self.world.trace.lines),
            self.clients.acks,
            self.clients.reads,
        )

    def step(self, step: Step) -> None:
        """Begin it, and let the time behind it go by."""
        self.world.reseed(step.number)
        self.world.note(f"STEP {step}")
        if step.kind == "wait":
            self.pass_(step.args[0])
        else:
            who = self.clients if hasattr(self.clients, step.kind) else self.faults
            getattr(who, step.kind)(step, *step.args)
        self.pass_(step.pause)
        if not self.world.violations:
            self.audit.look()

    def pass_(self, seconds: float) -> None:
        """Let time go by, up to the first thing that is wrong."""
        world = self.world
        world.timers.run(world.now + seconds, lambda: bool(world.violations))

    def end(self) -> None:
        """Let all faults end; then everything that was promised must be there."""
        self.world.note("PEACE")
        self.world.calm = True
        self.faults.end()
        self.pass_(5.0)
        self.world.timers.run(
            self.world.now + LONGEST,
            lambda: not self.clients.running or bool(self.world.violations),
        )
        for what, since in self.clients.running.values():
            self.world.violated(f"{what} takes more than {self.world.now - since} s")
        if self.world.violations:
            return
        self._anew()
        self._read_all()
        self.pass_(MENDED)
        self._read_all()
        self.pass_(10.0)
        if self.story.plan.sweeping:
            self._sweep()
        if not self.world.violations:
            self._last_look()
        if not self.world.violations and self.audit.rotten:
            self._scrub()

    def _anew(self) -> None:
        """Nothing that matters lives only in an engine's memory."""
        for engine in self.cluster.engines:
            engine.die()
            self.world.later(0.1, engine.boot)
        self.pass_(SETTLE + 1)

    def _sweep(self) -> None:
        """Nobody refers to some contents: they go, and nothing else does."""
        self.pass_(SETTLE)
        for job, seconds in (("orphans", GRACE), ("garbage", EXPIRY)):
            self.clients.job(Step(-3, "job", (), 0), 0, job)
            self.pass_(2 * seconds + 40)
        self._read_all()
        jumped = any(step.kind == "jump" for step in self.story.steps)
        if self.world.violations or jumped:  # what was written in the future is young
            return
        wanted = self.audit.wanted()
        for hash, kept in sorted(self.audit.platters().items()):
            if hash not in wanted and not self.clients.doubtful(hash):
                self.world.violated(
                    f"{hash[:6]}, which nobody refers to, stays: {kept.layouts}"
                )

    def _scrub(self) -> None:
        """Then what nobody reads is right as well."""
        self.clients.job(Step(-3, "job", (), 0), 0, "scrub")
        self.pass_(SCRUBBED)
        self.audit.look()
        self._whole(self.audit.platters())

    def _whole(self, found: Mapping[str, Kept]) -> None:
        """Everything that somebody refers to has all its shards."""
        for hash in sorted(self.audit.wanted()):
            best = found.get(hash, Kept()).best()
            if best < DATA + PARITY and BY_HASH[hash]:
                self.world.violated(
                    f"{hash[:6]} has {best} shards in the end (guarantee 5)"
                )

    def _read_all(self) -> None:
        """Every version of every name, on every engine in turn."""
        engines = self.cluster.engines
        for at, name in enumerate(NAMES):
            self.clients.read_all(engines[at % len(engines)], name)
            self.pass_(10.0)

    def _last_look(self) -> None:
        self.audit.look()
        # Nobody reads parity without need: its rot is for the scrubber to find.
        self._whole(self.audit.platters(range(DATA, DATA + PARITY), unread=True))
        for host in self.cluster.engines:
            lent = host.engine.putting.writing.budget.lent
            turns = len(host.engine.putting.turns)
            if lent or turns:
                self.world.violated(f"{host.name} holds {lent} bytes, {turns} turns")
        self.clients.last_look()


@implementer(ILogObserver)
class _Watcher:
    """Defects that are caught and logged are defects."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is None or event["log_namespace"] == "twisted.internet.defer":
            return  # the latter when garbage is collected, of whatever story
        if not issubclass(failure.type, (PowerCut, OstoreError, CancelledError)):
            self._world.violated(f"logged: {failure.getTraceback()}")


def play(story: Story, *, keep: bool = False) -> Outcome:
    """Play it in a folder that is gone afterwards."""
    if story.plan.search:
        return Stage(story, Path("unused"), keep=keep).play()
    with tempfile.TemporaryDirectory() as folder:
        return Stage(story, Path(folder), keep=keep).play()
