"""Resumable uploads by the command: killed, restarted, changed, known already."""

from __future__ import annotations

import http.client
import json
import os

from tests.cli.support import ServiceTestCase, shared
from tests.cli.test_resuming import MIB, SENDING, SIZE, MeddlingTestCase
from tests.support.child import Child, serve
from tests.support.standalone import some_bytes


class UploadTests(ServiceTestCase, MeddlingTestCase):
    """put of a large file."""

    def setUp(self) -> None:
        """A file that is never the same."""
        super().setUp()
        self.content = os.urandom(64) + some_bytes(SIZE - 64)
        self.file("big", self.content)

    def versions(self) -> list[int]:
        """The numbers of the versions that are not deleted."""
        items = self.ostore("versions", "--json", "x").items
        return [item["version"] for item in items if not item["deleted"]]

    def held(self) -> int:
        """What the service holds of the upload that is under way."""
        (path,) = self.entries()
        where = json.loads(path.read_bytes().partition(b"\n")[0])["where"]
        connection = http.client.HTTPConnection("127.0.0.1", shared())
        self.addCleanup(connection.close)
        connection.request("HEAD", where)
        answer = connection.getresponse()
        answer.read()
        return int(answer.headers["Upload-Offset"])

    def test_way(self) -> None:
        """A large file goes resumably, in one version; no note is left."""
        before = self.versions()
        (sent,) = self.done(*SENDING).items
        self.assertEqual(sent["way"], "resumable")
        self.assertEqual(self.done("cat", "x").raw, self.content)
        self.assertEqual(len(self.versions()), len(before) + 1)
        self.assertEqual(self.entries(), [])

    def test_killed(self) -> None:
        """Killed at any moment, the same command goes on, and makes one version."""
        before = self.versions()
        for moment in (4, 16, 20):
            self.killed("send", moment, *SENDING)
        self.assertGreater(self.held(), 4 * MIB)
        sent, steps = self.steps("send", *SENDING)
        self.assertEqual(sent["way"], "resumable")
        self.assertLess(steps, 40)
        self.assertEqual(self.done("cat", "x").raw, self.content)
        self.assertEqual(len(self.versions()), len(before) + 1)
        self.assertEqual(self.entries(), [])

    def test_killed_behind_the_end(self) -> None:
        """Killed when all was done but not noted, no second version is made."""
        before = self.versions()
        self.killed("forget", 1, *SENDING)
        self.assertEqual(len(self.versions()), len(before) + 1)
        sent, _ = self.steps("send", *SENDING)
        self.assertEqual(sent["version"], self.versions()[-1])
        self.assertEqual(len(self.versions()), len(before) + 1)

    def test_changed_between(self) -> None:
        """A file that was changed between is sent anew."""
        self.killed("send", 32, *SENDING)
        content = b"other" + self.content[5:]
        self.file("big", content)
        self.done(*SENDING)
        self.assertEqual(self.done("cat", "x").raw, content)

    def test_changed_meanwhile(self) -> None:
        """A file that changes while it is sent makes no version; nothing is kept."""
        before = self.versions()
        process = self.meddled("pause", 20, *SENDING)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"begun\n")
        with (self.folder / "big").open("r+b") as file:
            file.write(b"changed")
        os.utime(self.folder / "big", (1, 1))
        _, err = process.communicate(b"\n", timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"changed while it was read", err)
        self.assertEqual(self.versions(), before)
        self.assertEqual(self.entries(), [])

    def test_instant(self) -> None:
        """A content that the service has is not sent again, but for --no-instant."""
        large = self.folder / "big"
        with large.open("r+b") as file:
            file.truncate(50 * MIB)
        self.done(*SENDING)
        words = ("put", "--json", "big", "--to", "y")
        (sent,) = self.done(*words).items
        self.assertIn(sent["way"], ("instant", "resumable"))
        sent, _ = self.steps("send", "sync", "--json", ".", "z/", "--include=big")
        (again,) = self.done("put", "--json", "--no-instant", "big", "--to", "y").items
        self.assertEqual(again["way"], "resumable")
        self.assertEqual(
            self.done("stat", "--json", "z/big").items[0]["size"], 50 * MIB
        )

    def test_two_at_once(self) -> None:
        """Of two commands with the same transfer one is told so."""
        process = self.meddled("pause", 12, *SENDING)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"begun\n")
        result = self.ostore(*SENDING)
        process.communicate(b"\n", timeout=60)
        self.assertEqual(result.status, 1)
        self.assertIn("another ostore command", result.err)
        self.assertEqual(process.returncode, 0)

    def test_forgotten_there(self) -> None:
        """An upload that the service does not know any more is begun anew."""
        self.killed("send", 32, *SENDING)
        (path,) = self.entries()
        facts = json.loads(path.read_bytes().partition(b"\n")[0])
        path.write_text(json.dumps({**facts, "where": "/temp/gone"}) + "\n", "utf-8")
        self.done(*SENDING)
        self.assertEqual(self.done("cat", "x").raw, self.content)

    def test_rubbish_in_the_note(self) -> None:
        """A note that cannot be read is as none."""
        self.killed("send", 32, *SENDING)
        (path,) = self.entries()
        for rubbish in (b"", b"\0\0\n", b"[]\n", b'{"where": 3}\n'):
            path.write_bytes(rubbish)
        self.done(*SENDING)
        self.assertEqual(self.done("cat", "x").raw, self.content)


class RestartTests(MeddlingTestCase):
    """A service that is killed under the command."""

    def service(self, port: int = 0) -> Child:
        """A standalone over the same root."""
        where = ("--listen", f"127.0.0.1:{port}") if port else ()
        child = serve(self.folder / "data", *where)
        self.addCleanup(child.close)
        return child

    def test_service_killed(self) -> None:
        """The command waits until the service is back, and goes on."""
        service = self.service()
        port = service.ready()
        self.endpoint = f"http://127.0.0.1:{port}"
        content = some_bytes(SIZE)
        self.file("big", content)
        process = self.meddled("pause", 36, *SENDING)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"begun\n")
        service.kill()
        self.service(port).ready()
        out, err = process.communicate(b"\n", timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(json.loads(out)["size"], SIZE)
        self.assertEqual(self.done("cat", "x").raw, content)
