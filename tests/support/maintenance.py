"""The engine with maintenance at work, on a clock that only tests move."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.logger import Logger

from ostore.maintenance.pace import Foreground, Pace
from ostore.maintenance.runner import Runner
from ostore.model.runs import RUNNING, Run
from ostore.model.versions import ClusterFacts
from ostore.service.facing import RATES, TURN, jobs_of
from ostore.streaming.schedule import Repeated
from tests.support.engine import EngineCase, Rig, sha256

CLUSTER = "c" * 32


class MaintenanceCase(EngineCase):
    """Nodes of a cluster, and a service that runs jobs when it is asked to."""

    def rise(self, nodes: int = 6, *, planned: bool = False, **options: Any) -> None:
        """Start nodes, engine and runner; the first lease is taken."""
        quick = {"orphan_grace": 20.0, "garbage_expiry": 60.0}
        super().rise(nodes, **{**quick, **options})
        self.run_(self.metadata.create_cluster(ClusterFacts(CLUSTER, 1)))
        for rig in self.rigs:
            self.run_(rig.node.adopt(CLUSTER, 1))
        self.pass_(1)
        self.runner = self.make_runner(planned=planned)
        self.repeated = self.repeat(self.runner)

    def make_runner(self, seed: int = 7, *, planned: bool = False) -> Runner:
        """A service's runner over the same engine."""
        foreground = Foreground(self.clock)
        return Runner(
            jobs_of(self.settings, self.engine, self.metadata),  # type: ignore[arg-type]  # watched
            self.engine.jobs,
            self.engine.hands,
            self.metadata,  # type: ignore[arg-type]  # watched
            Pace(self.clock, foreground, *RATES),
            self.clock,
            Random(seed).randbytes,
            planned=planned,
        )

    def repeat(self, runner: Runner) -> Repeated:
        """Have it look again and again, from now on."""
        entropy = Random(8).randbytes
        repeated = Repeated(self.clock, TURN, runner.turn, entropy, Logger())
        repeated.start()
        repeated.now()
        self.turn()
        return repeated

    def fall(self) -> None:
        """Stop the runner before the rest."""
        if self.risen:
            self.run_(self.repeated.stop())
            self.run_(self.runner.stop())
        super().fall()

    def ask(self, job: str, *, dry_run: bool = False, force: bool = False) -> Run:
        """Begin a run."""
        return self.run_(self.engine.jobs.ask(job, dry_run=dry_run, force=force))

    def find(self, run: Run) -> Run:
        """How far a run is."""
        return self.run_(self.engine.jobs.find(run.id))

    def wait_for(self, run: Run, seconds: float = 1000.0) -> Run:
        """The run when it has ended."""
        end = self.time.seconds() + seconds
        while (found := self.find(run)).state == RUNNING:
            if self.time.seconds() > end:
                self.fail(f"not ended after {seconds:g} s: {found}")
            self.pass_(0.5)
        return found

    def job(self, job: str, *, dry_run: bool = False, force: bool = False) -> Run:
        """One run from begin to end."""
        return self.wait_for(self.ask(job, dry_run=dry_run, force=force))

    def counts(self, job: str, **asked: bool) -> dict[str, int]:
        """What a run that ended well has counted, without zeros."""
        run = self.job(job, **asked)
        self.assertEqual(run.state, "done", run.why)
        return {name: count for name, count in run.counts.items() if count}

    def purge(self, name: str = "name", number: int = 1) -> None:
        """Remove a version for good."""
        self.run_(self.store.purge(name, number))

    def in_garbage(self, content: bytes) -> list[Rig]:
        """The nodes that have something of a content in garbage, once for each file."""
        return [
            rig
            for rig in self.rigs
            for name in rig.disk.names("/data/garbage")
            if name.startswith(sha256(content))
        ]

    def standing(self, content: bytes) -> int:
        """Shards of a content outside garbage."""
        return sum(len(rig.shards(sha256(content))) for rig in self.rigs)
