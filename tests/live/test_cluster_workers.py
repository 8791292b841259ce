"""An api of two processes in the cluster, one of which dies under load."""

from __future__ import annotations

import os
import signal

from tests.live.cases import until
from tests.live.client import ask
from tests.live.load import LoadCase
from tests.service.test_workers import children
from tests.support.livecluster import Service


class WorkersTests(LoadCase):
    """`--workers 2` beside the apis of one process."""

    def setUp(self) -> None:
        """One more api service."""
        super().setUp()
        folder = self.cluster.folder / f"workers-{self.id().rpartition('.')[2]}"
        words = [*self.cluster.api_words(), "--workers", "2"]
        self.service = Service("ostore-api", folder, words)
        self.addCleanup(self.service.kill)
        self.service.start()
        self.service.wait()

    def ports(self) -> list[int]:
        """The port of both."""
        return [self.service.port]

    def pids(self) -> set[int]:
        """The workers."""
        return children(self.service.running.pid)

    def test_killed_under_load(self) -> None:
        """Nothing acknowledged is lost, the port stays, and there are two again."""
        self.assertEqual(len(self.pids()), 2)
        load = self.load(clients=4, cuts=True)
        with load:
            for _ in range(3):
                self.more(load, 10)
                before = self.pids()
                os.kill(min(before), signal.SIGKILL)
                until(
                    lambda before=before: len(self.pids() - before) == 1,  # type: ignore[misc] # mypy knows no default of a lambda
                    "another worker",
                )
                self.more(load, 10)
        until(self.works, "it works")
        self.assert_none_lost(load)
        page = ask(self.service.port, "GET", "/metrics").body.decode()
        self.assertIn("\nostore_workers_replaced 3.0\n", page)
        self.assertEqual(self.service.stop(), -15)
        self.assertNotIn("Traceback", self.service.logs())
