"""`ostore-api --workers`: real processes behind one port, and how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ostore.service.workers.control import MAX_LINE, Lines, Message, TooLong, packed
from tests.live.client import Cut, ask
from tests.support.child import Child
from tests.support.nodes import REAL

PATIENCE = 60.0


def children(pid: int) -> set[int]:
    """The processes that this one has started and that are alive."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.add(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, which is no zombie."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False


class LineTests(SynchronousTestCase):
    """The messages of supervisor and workers."""

    def test_pieces(self) -> None:
        """Messages come out whole, however their bytes arrive."""
        sent: list[Message] = [{"ready": "x"}, {"ask": 1, "text": "a\nb"}, {"sum": 2}]
        data = b"".join(map(packed, sent))
        for size in (1, 3, 1000):
            got: list[Message] = []
            lines = Lines(got.append)
            for at in range(0, len(data), size):
                lines.feed(data[at : at + size])
            self.assertEqual(got, sent)

    def test_nonsense(self) -> None:
        """What is no message, or never ends, is refused."""
        lines = Lines(lambda _: None)
        self.assertRaises(ValueError, lines.feed, b"no json\n")
        self.assertRaises(TooLong, lines.feed, b"x" * (MAX_LINE + 1))


class WorkerTests(TestCase):
    """An api service whose broker and search server are away: it serves /health."""

    timeout = 240

    def setUp(self) -> None:
        """A secret, and a port."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "secret").write_text("s" * 40)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def begin(self, *words: str) -> Child:
        """Two workers."""
        child = Child(
            self.folder,
            *("--listen", f"127.0.0.1:{self.port}", "--workers", "2"),
            *("--cluster-secret-file", str(self.folder / "secret")),
            *("--rabbitmq-server", "amqp://127.0.0.1:1/"),
            *("--es-server", "http://127.0.0.1:1"),
            *words,
            role="ostore-api",
        )
        self.addCleanup(child.close)
        return child

    def workers(self, child: Child) -> set[int]:
        """Their pids."""
        return children(child.pid)

    async def until(self, holds: object, what: str) -> None:
        """Wait, beside the reactor, until `holds()`."""
        assert callable(holds)
        deadline = REAL.monotonic() + PATIENCE
        while not await deferToThread(holds):
            self.assertLess(REAL.monotonic(), deadline, what)
            await REAL.sleep(0.05)

    def counted(self) -> dict[str, float]:
        """The page of /metrics: name and labels -> value; empty while nobody answers."""
        try:
            text = ask(self.port, "GET", "/metrics").body.decode()
        except (Cut, OSError):
            return {}
        lines = [line.rpartition(" ") for line in text.splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in lines}

    async def both(self, child: Child) -> set[int]:
        """Wait until two workers serve and add up; gives their pids."""

        def hold() -> bool:
            found = self.counted()
            return found.get("ostore_workers") == 2 and len(self.workers(child)) == 2

        await self.until(hold, "two workers")
        return self.workers(child)

    async def test_a_life(self) -> None:
        """Both serve; one that is killed is replaced, and what it counted stays."""
        child = self.begin()
        first = await self.both(child)
        label = (
            'ostore_http_requests_total{method="GET",route="/health/live",status="2xx"}'
        )

        def live() -> None:
            for _ in range(20):
                self.assertEqual(ask(self.port, "GET", "/health/live").status, 200)

        await deferToThread(live)
        found = await deferToThread(self.counted)
        self.assertEqual(found[label], 20)
        os.kill(min(first), signal.SIGKILL)
        await self.until(lambda: min(first) not in self.workers(child), "its end")
        second = await self.both(child)
        self.assertEqual(len(first & second), 1)
        found = await deferToThread(self.counted)
        self.assertEqual(found[label], 20)
        self.assertEqual(found["ostore_workers_replaced"], 1)
        child.terminate()
        await deferToThread(child.ended)
        self.assertEqual([pid for pid in first | second if alive(pid)], [])
        self.assertNotIn("Traceback", child.stdout)
        self.assertNotIn("s" * 40, child.stdout)

    async def test_supervisor_killed(self) -> None:
        """Workers whose supervisor is gone end by themselves, and free the port."""
        child = self.begin()
        workers = await self.both(child)
        child.signal(signal.SIGKILL)
        await deferToThread(child.ended)
        await self.until(lambda: not any(map(alive, workers)), "the workers' end")
        with socket.create_server(("127.0.0.1", self.port)):
            pass

    async def test_refused_start(self) -> None:
        """What no worker can start with ends the service in one line."""
        child = self.begin("--es-api-key-file", str(self.folder / "none"))
        status = await deferToThread(child.ended)
        self.assertEqual(status, 1)
        [line] = child.stderr.splitlines()
        self.assertTrue(
            re.match("ostore-api: es-api-key-file .*/none cannot be used", line)
        )
        self.assertNotIn("ready on", child.stdout)

    async def test_port_taken(self) -> None:
        """So does a port that somebody else has."""
        with socket.create_server(("127.0.0.1", self.port)):
            child = self.begin()
            self.assertEqual(await deferToThread(child.ended), 1)
        [line] = child.stderr.splitlines()
        self.assertIn(f"listen 127.0.0.1:{self.port} cannot be used", line)
