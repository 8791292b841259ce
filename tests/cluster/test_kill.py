"""Processes that die: what was acknowledged is there, what was not harms nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from signal import SIGTERM
from typing import ClassVar, cast

import attrs
from twisted.internet import reactor as installed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTCP
from twisted.trial.unittest import TestCase

from ostore.streaming.tasks import gather
from tests.support.child import Child, serve
from tests.support.http import Answer, Cut, connect, exchange
from tests.support.standalone import TURNS, clock, files_below, some_bytes

reactor = cast("IReactorTCP", installed)

ROUNDS = 6
WRITERS = 4
LARGE = 3 << 20


@attrs.frozen
class Sent:
    """What one PUT sent; `number` is of its version once that was acknowledged."""

    name: str
    content: bytes
    number: int = 0


class ChildCase(TestCase):
    """Starts and ends children over one root; `options` are words of each."""

    timeout = 120
    options: ClassVar[Sequence[str]] = ("--pack-limit=0",)

    def setUp(self) -> None:
        """No root yet."""
        self.root = Path(self.mktemp()).absolute() / "root"
        self.count = 0
        self.port = 0

    def rise(self, *words: str) -> Child:
        """A child over the root, ready."""
        self.count += 1
        child = serve(self.root, *self.options, *words, name=f"child{self.count}")
        self.addCleanup(child.close)
        self.port = child.ready()
        return child

    async def ask(self, method: str, target: str, body: bytes | None = None) -> Answer:
        """One request."""
        return await exchange(reactor, self.port, method, target, (), body)

    def temporaries(self) -> list[Path]:
        """Every file in any node's temp/."""
        return [
            path
            for node in (self.root / "nodes").iterdir()
            for path in files_below(node / "temp")
        ]


class KillTests(ChildCase):
    """`kill -9` at random moments."""

    def setUp(self) -> None:
        """Nothing sent yet."""
        super().setUp()
        self.sent: list[Sent] = []
        self.acknowledged: list[Sent] = []
        self.rng = Random(20)

    async def write(self, writer: int, turn: int) -> None:
        """PUT after PUT until the connection ends."""
        for number in range(10_000):
            size = LARGE + number if number % 4 == writer else 100 + number
            seed = (turn * 10 + writer) * 10_000 + number
            name = "shared" if number % 3 == 2 else f"writer{writer}"
            put = Sent(name, some_bytes(size, seed))
            self.sent.append(put)
            try:
                answer = await self.ask("PUT", f"/objects/{name}", put.content)
            except (Cut, ConnectError):
                return
            self.assertEqual(answer.status, 200, answer.body)
            version = answer.json()["version"]
            self.acknowledged.append(attrs.evolve(put, number=version))

    async def assert_read(self, name: str, number: int, content: bytes) -> None:
        """That version reads exact."""
        answer = await self.ask("GET", f"/objects/{name}?version={number}")
        self.assertEqual(answer.status, 200, answer.body[:500])
        self.assertTrue(answer.body == content)

    async def assert_versions(self) -> None:
        """No holes, nothing that was not sent, nothing that cannot be read."""
        answer = await self.ask("GET", "/versions/")
        by_name: dict[str, list[int]] = {}
        acknowledged = {(put.name, put.number) for put in self.acknowledged}
        for line in answer.body.splitlines():
            version = Answer(200, (), line).json()
            name, number = version["name"], version["version"]
            by_name.setdefault(name, []).append(number)
            if (name, number) not in acknowledged:
                read = await self.ask("GET", f"/objects/{name}?version={number}")
                self.assertEqual(read.status, 200, read.body[:500])
                self.assertIn(
                    read.body, [p.content for p in self.sent if p.name == name]
                )
        for numbers in by_name.values():
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        for name, number in acknowledged:
            self.assertIn(number, by_name[name])

    async def test_rounds(self) -> None:
        """Every acknowledged object survives, at whatever moment the process died."""
        child = self.rise()
        checked = 0
        for turn in range(ROUNDS):
            clock.call_later(self.rng.uniform(0.05, 0.6), child.kill)
            for outcome in await gather(self.write(w, turn) for w in range(WRITERS)):
                if isinstance(outcome, Exception):
                    raise outcome
            child = self.rise()
            self.assertEqual(self.temporaries(), [])
            for put in self.acknowledged[checked:]:
                await self.assert_read(put.name, put.number, put.content)
            checked = len(self.acknowledged)
            await self.assert_versions()
        self.assertGreater(checked, ROUNDS)
        for put in self.acknowledged:
            await self.assert_read(put.name, put.number, put.content)
        child.kill()

    async def test_during_start(self) -> None:
        """A process that dies while it starts leaves a root that starts."""
        child = self.rise()
        self.assertEqual((await self.ask("PUT", "/objects/x", b"kept")).status, 200)
        child.kill()
        for _ in range(4):
            self.count += 1
            dying = serve(self.root, name=f"dying{self.count}")
            self.addCleanup(dying.close)
            await clock.sleep(self.rng.uniform(0.2, 0.5))
            dying.kill()
        self.rise()
        self.assertEqual((await self.ask("GET", "/objects/x")).body, b"kept")

    async def test_first_start(self) -> None:
        """So does one that dies in the very first start."""
        for _ in range(4):
            self.count += 1
            dying = serve(self.root, name=f"dying{self.count}")
            self.addCleanup(dying.close)
            await clock.sleep(self.rng.uniform(0.25, 0.45))
            dying.kill()
        self.rise()
        self.assertEqual((await self.ask("PUT", "/objects/x", b"new")).status, 200)
        self.assertEqual((await self.ask("GET", "/objects/x")).body, b"new")


class PackedKillTests(KillTests):
    """The same with small contents in segments."""

    options = ("--pack-limit=1MiB",)


class TerminateTests(ChildCase):
    """SIGTERM: accept no more, finish what is under way."""

    async def test_finishes(self) -> None:
        """A PUT in flight is finished and acknowledged, and is there afterwards."""
        content = some_bytes(LARGE)
        child = self.rise()
        connection = await connect(reactor, self.port)
        connection.ask("PUT", "/objects/x", [("Content-Length", str(LARGE))])
        connection.send(content[:-1000])
        await self.opened()
        child.terminate()
        await self.refused()
        self.assertIsNone(child.status)
        connection.send(content[-1000:])
        self.assertEqual((await connection.answer()).status, 200)
        await connection.close()
        self.assertEqual(child.ended(), -SIGTERM)
        self.assertEqual(child.stderr, "")
        self.assertEqual(self.temporaries(), [])
        self.rise()
        self.assertTrue((await self.ask("GET", "/objects/x")).body == content)

    async def test_finishes_reads(self) -> None:
        """So is a GET."""
        content = some_bytes(8 * LARGE)
        child = self.rise()
        self.assertEqual((await self.ask("PUT", "/objects/x", content)).status, 200)
        connection = await connect(reactor, self.port)
        connection.ask("GET", "/objects/x")
        await connection.head()
        connection.pause()
        child.terminate()
        await self.refused()
        connection.resume()
        self.assertTrue(await connection.take(len(content)) == content)
        await connection.close()
        self.assertEqual(child.ended(), -SIGTERM)

    async def test_idle(self) -> None:
        """An idle keep-alive connection does not hold up the end."""
        child = self.rise()
        connection = await connect(reactor, self.port)
        connection.ask("GET", "/health/ready")
        self.assertEqual((await connection.answer()).status, 200)
        child.terminate()
        await connection.ended()
        self.assertEqual(child.ended(), -SIGTERM)

    async def opened(self) -> None:
        """Wait until the body has come as far as the nodes."""
        for _ in range(TURNS):
            if self.temporaries():
                return
            await clock.sleep(0.01)
        self.fail("no temporary")

    async def refused(self) -> None:
        """Wait until no connection is accepted any more."""
        for _ in range(TURNS):
            try:
                connection = await connect(reactor, self.port)
            except ConnectError:
                return
            await connection.close()
            await clock.sleep(0.01)
        self.fail("it still accepts connections")
