"""Starts that must not succeed: one line that says why, and nothing half made."""

from __future__ import annotations

import fcntl
import shutil
import socket
from pathlib import Path
from typing import cast

from twisted.internet import reactor as installed
from twisted.internet.interfaces import IReactorTCP
from twisted.trial.unittest import TestCase

from tests.support.child import Child, serve
from tests.support.http import exchange

reactor = cast("IReactorTCP", installed)


class StartCase(TestCase):
    """Children in a folder of the test's own."""

    timeout = 60

    def setUp(self) -> None:
        """An empty folder."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = self.folder / "root"
        self.count = 0

    def child(self, *words: str, environ: dict[str, str] | None = None) -> Child:
        """A child with just these options."""
        self.count += 1
        name = f"child{self.count}"
        child = Child(self.folder, *words, environ=environ, name=name)
        self.addCleanup(child.close)
        return child

    def served(self, *words: str) -> Child:
        """A child over the root, which may or may not get ready."""
        self.count += 1
        child = serve(self.root, *words, name=f"child{self.count}")
        self.addCleanup(child.close)
        return child

    def assert_refused(self, child: Child, *words: str) -> None:
        """It ends with status 1 and one line on standard error with these words."""
        self.assertEqual(child.ended(), 1, child.stderr)
        lines = child.stderr.splitlines()
        self.assertEqual(len(lines), 1, child.stderr)
        self.assertTrue(lines[0].startswith("ostore-standalone: "), lines[0])
        for word in words:
            self.assertIn(word, lines[0])
        self.assertNotIn("ready on", child.stdout)
        self.assertNotIn("Traceback", child.stdout)

    async def make(self) -> None:
        """A root with one object."""
        child = self.served()
        port = child.ready()
        made = await exchange(reactor, port, "PUT", "/objects/x", (), b"kept")
        self.assertEqual(made.status, 200)
        child.terminate()
        child.ended()

    async def assert_kept(self) -> None:
        """The root starts, and the object is there."""
        port = self.served().ready()
        answer = await exchange(reactor, port, "GET", "/objects/x")
        self.assertEqual((answer.status, answer.body), (200, b"kept"))


class SettingTests(StartCase):
    """Settings that are wrong."""

    def test_settings(self) -> None:
        """Each is named with its value, its source and what is allowed."""
        toml = self.folder / "ostore.toml"
        toml.write_text('nodes = "six"\n')
        unknown = self.folder / "unknown.toml"
        unknown.write_text("colour = 1\n")
        broken = self.folder / "broken.toml"
        broken.write_text("nodes = \n")
        root = str(self.root)
        refusals = [
            (self.child("--nodes", "x"), ("nodes", "'x'", "1 to 256")),
            (self.child("--listen", "nowhere"), ("listen", "'nowhere'", "HOST:PORT")),
            (self.child("--colour", "red"), ("--colour", "--nodes")),
            (self.child("--laggard", "1 hour"), ("laggard", "'1 hour'", "500ms")),
            (self.child("surplus"), ("surplus",)),
            (
                self.child(environ={"OSTORE_NODES": "0"}),
                ("nodes", "'0'", "OSTORE_NODES", "1 to 256"),
            ),
            (
                self.child(environ={"OSTORE_COLOUR": "red"}),
                ("OSTORE_COLOUR", "red", "OSTORE_NODES"),
            ),
            (
                self.child(environ={"LISTEN_ADDRESS": "1"}),
                ("listen", "'1'", "LISTEN_ADDRESS"),
            ),
            (self.child("--config", str(toml)), ("nodes", "'six'", str(toml))),
            (self.child("--config", str(unknown)), ("colour", "nodes")),
            (self.child("--config", str(broken)), ("config", "not TOML")),
            (self.child("--config", "nowhere.toml"), ("config", "nowhere.toml")),
            (
                self.child("--storage-root", root, "--write-quorum", "3"),
                ("write-quorum", "'3'", "4 to 6"),
            ),
        ]
        for child, words in refusals:
            self.assert_refused(child, *words)
        self.assertFalse(self.root.exists())
        self.assertFalse((self.folder / "ostore-data").exists())


class PlaceTests(StartCase):
    """Places that cannot be used."""

    async def test_port_taken(self) -> None:
        """A port that is taken; the root can be used afterwards."""
        await self.make()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            child = self.child("--storage-root", str(self.root), "--listen", address)
            self.assert_refused(child, "listen", address, "allowed")
        await self.assert_kept()

    async def test_root_held(self) -> None:
        """A root that another process holds, which goes on undisturbed."""
        await self.make()
        first = self.served()
        port = first.ready()
        self.assert_refused(self.served(), str(self.root), "in use")
        answer = await exchange(reactor, port, "GET", "/objects/x")
        self.assertEqual((answer.status, answer.body), (200, b"kept"))

    def test_root_is_a_file(self) -> None:
        """A file where the folder should be, and one above it; both stay."""
        self.root.write_bytes(b"mine")
        self.assert_refused(self.served(), "storage-root", str(self.root))
        self.assertEqual(self.root.read_bytes(), b"mine")
        below = self.root / "below"
        child = self.child("--storage-root", str(below), "--listen", "127.0.0.1:0")
        self.assert_refused(child, "storage-root", str(below))

    async def test_a_bad_node(self) -> None:
        """One node's root that is no root is left out, said so, and stays as it is."""
        await self.make()
        shutil.move(self.root / "nodes" / "4", self.folder / "4")
        folder = self.root / "nodes" / "2"
        identity = (folder / "node.json").read_bytes()

        def file_in_its_place() -> None:
            (self.root / "nodes" / "4").write_bytes(b"mine")

        def strangers() -> None:
            (self.root / "nodes" / "4").unlink()
            (self.root / "nodes" / "4").mkdir()
            (self.root / "nodes" / "4" / "thesis.txt").write_bytes(b"mine")

        def foreign_identity() -> None:
            shutil.rmtree(self.root / "nodes" / "4")
            shutil.move(self.folder / "4", self.root / "nodes" / "4")
            (folder / "node.json").write_bytes(b"mine")

        for spoil, place in (
            (file_in_its_place, "nodes/4"),
            (strangers, "nodes/4"),
            (foreign_identity, "nodes/2"),
        ):
            spoil()
            child = self.served("--heartbeat", "100ms")
            port = child.ready()
            for name in ("x", "y"):
                made = await exchange(
                    reactor, port, "PUT", f"/objects/{name}", (), b"y"
                )
                self.assertEqual(made.status, 200, made.body)
                answer = await exchange(reactor, port, "GET", f"/objects/{name}")
                self.assertEqual((answer.status, answer.body), (200, b"y"))
            ready = await exchange(reactor, port, "GET", "/health/ready")
            self.assertEqual(ready.status, 200)
            shown = (await exchange(reactor, port, "GET", "/cluster")).json()
            self.assertEqual(len(shown["nodes"]), 5)
            (fault,) = shown["faults"]
            self.assertIn(f"{place} is left out", fault)
            child.terminate()
            child.ended()
            said = [line for line in child.stdout.splitlines() if "left out is" in line]
            self.assertEqual(len(said), 1, child.stdout)
            self.assertIn(str(self.root / place), said[0])
        self.assertEqual((folder / "node.json").read_bytes(), b"mine")
        (folder / "node.json").write_bytes(identity)
        port = self.served().ready()
        shown = (await exchange(reactor, port, "GET", "/cluster")).json()
        self.assertEqual((len(shown["nodes"]), shown["faults"]), (6, []))

    async def test_too_many_bad_nodes(self) -> None:
        """Enough roots to read are read; with fewer the start is refused, and says why."""
        await self.make()
        for number in (2, 4, 6):
            if number == 6:
                await self.assert_read_only(self.served())
            folder = self.root / "nodes" / str(number)
            shutil.move(folder, self.folder / str(number))
            folder.mkdir()
            (folder / "thesis.txt").write_bytes(b"mine")
        words = ("3 nodes can be used", "needs 4", "nodes/2", "nodes/4", "nodes/6")
        self.assert_refused(self.served(), *words)
        for number in (2, 4, 6):
            folder = self.root / "nodes" / str(number)
            self.assertEqual([path.name for path in folder.iterdir()], ["thesis.txt"])
            shutil.rmtree(folder)
            shutil.move(self.folder / str(number), folder)
        await self.assert_kept()

    async def assert_read_only(self, child: Child) -> None:
        """The object is there, nothing can be written, and /health/ready says why."""
        port = child.ready()
        answer = await exchange(reactor, port, "GET", "/objects/x")
        self.assertEqual((answer.status, answer.body), (200, b"kept"))
        made = await exchange(reactor, port, "PUT", "/objects/y", (), b"y")
        self.assertEqual(made.status, 503, made.body)
        ready = await exchange(reactor, port, "GET", "/health/ready")
        self.assertEqual(ready.status, 503)
        self.assertIn("a write needs 5", ready.body.decode())
        child.terminate()
        child.ended()

    async def test_a_node_held(self) -> None:
        """A node's root that another process holds is no matter of one node."""
        await self.make()
        with (self.root / "nodes" / "5" / "lock").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self.assert_refused(self.served(), str(self.root / "nodes" / "5"), "in use")
        await self.assert_kept()

    async def test_bad_secret(self) -> None:
        """A secret that is too short."""
        await self.make()
        secret = self.root / "secret"
        kept = secret.read_bytes()
        secret.write_bytes(b"short\n")
        self.assert_refused(self.served(), "cluster-secret-file", "32")
        self.assertEqual(secret.stat().st_mode & 0o777, 0o600)
        secret.write_bytes(kept)
        await self.assert_kept()


class MetadataTests(StartCase):
    """Metadata and roots that do not belong together."""

    def metadata(self) -> list[Path]:
        """The files of the metadata."""
        return sorted(self.root.glob("metadata.sqlite*"))

    async def test_deleted(self) -> None:
        """Roots that bear an id without their metadata: refused; brought back: fine."""
        await self.make()
        away = self.folder / "away"
        away.mkdir()
        for path in self.metadata():
            shutil.move(path, away)
        self.assert_refused(self.served(), "metadata.sqlite", "nodes/1")
        self.assertFalse((self.root / "metadata.sqlite").exists())
        self.assert_refused(self.served(), "metadata.sqlite")
        for path in self.metadata():
            path.unlink()
        for path in away.iterdir():
            shutil.move(path, self.root)
        await self.assert_kept()

    async def test_not_a_database(self) -> None:
        """Something else in its place is refused and left as it is."""
        await self.make()
        for path in self.metadata():
            path.unlink()
        (self.root / "metadata.sqlite").write_bytes(b"mine" * 1000)
        self.assert_refused(self.served(), "metadata")
        kept = (self.root / "metadata.sqlite").read_bytes()
        self.assertEqual(kept, b"mine" * 1000)

    async def test_of_another_cluster(self) -> None:
        """Another cluster's metadata: it serves, not ready, and says why."""
        await self.make()
        mine, self.root = self.root, self.folder / "other"
        await self.make()
        for path in mine.glob("metadata.sqlite*"):
            path.unlink()
        for path in self.metadata():
            shutil.copy(path, mine)
        self.root = mine
        port = self.served("--heartbeat", "100ms").ready()
        live = await exchange(reactor, port, "GET", "/health/live")
        self.assertEqual(live.status, 200)
        answer = await exchange(reactor, port, "GET", "/health/ready")
        self.assertEqual(answer.status, 503)
        self.assertIn("another cluster", answer.json()["detail"])
        refused = await exchange(reactor, port, "PUT", "/objects/y", (), b"y")
        self.assertEqual(refused.status, 503)
