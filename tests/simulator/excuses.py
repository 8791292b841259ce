"""Which errors are excused: somebody whom a request relies on had trouble."""

from __future__ import annotations

from ostore.model.errors import OstoreError
from tests.simulator.audit import DATA, Audit, Kept
from tests.simulator.cluster import HEARTBEAT, Cluster, EngineHost

SETTLE = 1.2 * HEARTBEAT + 1
"""Seconds after a fault until all have heard of each other again."""


class Excuses:
    """Who had trouble when; told by the faults, asked about every error."""

    def __init__(self, cluster: Cluster, audit: Audit) -> None:
        self.world = cluster.world
        self.cluster = cluster
        self.audit = audit
        self._trouble: dict[str, list[tuple[float, float]]] = {}

    def trouble(self, who: str, seconds: float) -> None:
        """From now on, and for a while behind those seconds, `who` may fail others."""
        now = self.world.now
        self._trouble.setdefault(who, []).append((now, now + seconds + SETTLE))

    def troubled(self, who: str, since: float) -> bool:
        """Whether it had trouble since then."""
        return any(end >= since for _, end in self._trouble.get(who, ()))

    def well(self, host: EngineHost, since: float) -> list[str]:
        """The nodes that had none since then, for that engine."""
        return [
            node.name
            for node in self.cluster.nodes
            if not self.troubled(node.name, since)
            and not self.troubled(f"{host.name} {node.name}", since)
        ]

    def blame(
        self,
        host: EngineHost,
        what: str,
        since: float,
        error: OstoreError,
        hash: str = "",
    ) -> None:
        """An error is a violation when nothing excuses it."""
        excuses = (host.name, "bus", "metadata")
        if any(self.troubled(each, since) for each in excuses):
            return
        well = self.well(host, since)
        if hash:
            kept = self.audit.platters().get(hash, Kept())
            enough = kept.best(well) >= DATA
        else:
            enough = len(well) == len(self.cluster.nodes)
        if enough:
            self.world.violated(f"{what} fails without excuse (guarantee 4): {error!r}")
