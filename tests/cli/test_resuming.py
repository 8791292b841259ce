"""Transfers that were interrupted, gone on with by the same command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs

from tests.cli.lying import Asked, LyingTestCase, Said, made, problem
from tests.cli.support import CommandTestCase, ServiceTestCase
from tests.support.child import environment
from tests.support.standalone import some_bytes

MIB = 1 << 20
SIZE = 12 * MIB + 12345
SENDING = ("put", "--json", "--threshold=1MiB", "--piece=5MiB", "big", "--to", "x")
GETTING = ("get", "--json", "--piece=1MiB", "--ranges=2", "x", "copy")

MEDDLED = """
import os, signal, sys, threading
from ostore.cli import journal, source, target, upload
from ostore.cli.main import main

what, moment = sys.argv.pop(1), int(sys.argv.pop(1))
count, lock = 0, threading.Lock()

def step(*_):
    global count
    with lock:
        count += 1
        if count == moment:
            if what == "pause":
                print("begun", flush=True)
                sys.stdin.readline()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

chunks = source.Source.chunks
def watched(self, first, end, buffer):
    for chunk in chunks(self, first, end, buffer):
        if not threading.current_thread().name.startswith("hashing"):
            step()
        yield chunk

write = target.Landing.write
def written(self, data, at):
    write(self, data, at)
    step()

forget = journal.Entry.forget
def forgotten(self):
    step()
    forget(self)

if what in ("send", "pause"):
    source.Source.chunks = watched
elif what == "receive":
    target.Landing.write = written
elif what == "forget":
    journal.Entry.forget = forgotten
try:
    main()
finally:
    print(count, file=sys.stderr)
"""
"""The command, which kills itself at the n-th step of some kind, or waits there."""


class MeddlingTestCase(CommandTestCase):
    """A command that is killed."""

    def wall(self) -> float:
        """As in the other processes."""
        return time.time()

    def meddled(self, what: str, moment: int, *words: str) -> subprocess.Popen[bytes]:
        """Begin it."""
        return subprocess.Popen(
            [sys.executable, "-c", MEDDLED, what, str(moment), *words],
            cwd=self.folder,
            env=environment(self.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def killed(self, what: str, moment: int, *words: str) -> None:
        """Run it until it kills itself."""
        process = self.meddled(what, moment, *words)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, -signal.SIGKILL, repr(err))

    def steps(self, what: str, *words: str) -> tuple[Any, int]:
        """Run it to its end: what it said, and how many steps it took."""
        process = self.meddled(what, 0, *words)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        return json.loads(out), int(err.split()[-1])

    def entries(self) -> list[Path]:
        """Notes of transfers under way."""
        return list((self.folder / "home").rglob("*.transfer"))


class DownloadTests(ServiceTestCase, MeddlingTestCase):
    """get of a large object."""

    def setUp(self) -> None:
        """An object of many pieces."""
        super().setUp()
        self.content = some_bytes(SIZE)
        self.file("big", self.content)
        self.done("put", "big", "--to", "x")

    def got(self) -> bytes:
        """What the file holds."""
        return (self.folder / "copy").read_bytes()

    def test_killed(self) -> None:
        """Killed at any moment, the same command goes on with the pieces that are there."""
        for moment in (4, 12, 36):
            self.killed("receive", moment, *GETTING)
            self.assertFalse((self.folder / "copy").exists())
        _, steps = self.steps("receive", *GETTING)
        self.assertLess(steps, 49)
        self.assertEqual(self.got(), self.content)
        self.assertEqual((self.leftovers(), self.entries()), ([], []))

    def test_wrong_part(self) -> None:
        """What was left and is wrong by now is fetched anew."""
        self.killed("receive", 36, *GETTING)
        (part,) = self.folder.glob(".ostore-*.part")
        with part.open("r+b") as file:
            file.write(bytes(100))
        self.done(*GETTING)
        self.assertEqual(self.got(), self.content)
        self.assertEqual((self.leftovers(), self.entries()), ([], []))

    def test_other_version(self) -> None:
        """What was left of another version is not mixed with this one."""
        self.killed("receive", 36, *GETTING)
        other = self.content[::-1]
        self.file("big", other)
        self.done("put", "big", "--to", "x")
        self.done(*GETTING)
        self.assertEqual(self.got(), other)
        self.assertEqual(self.leftovers(), [])


class FallbackTests(LyingTestCase):
    """Services that take no resumable uploads, or are odd about them."""

    def setUp(self) -> None:
        """Something large."""
        super().setUp()
        self.content = some_bytes(3 * MIB)
        self.file("big", self.content)

    def test_one_put(self) -> None:
        """Where there are none, one PUT is sent."""
        for code in (400, 405, 501):
            refusal = problem(code, "malformed", "no resumable uploads here")

            def script(asked: Asked, _: int, refusal: Said = refusal) -> Said:
                return refusal if asked.method == "POST" else made(self.content)

            self.script = script
            (sent,) = self.done(*SENDING).items
            self.assertEqual(sent["way"], "put")
            self.assertEqual(self.asked[-1].body, self.content)

    def test_digest_first(self) -> None:
        """Where a Digest is asked for, it is sent with the beginning."""

        def script(asked: Asked, _: int) -> Said:
            if asked.method == "POST" and "Digest" not in asked.headers:
                return problem(400, "malformed", "a Digest is required")
            if asked.method == "POST":
                return made(self.content)
            return problem(500, "internal", "not to be asked")

        self.script = script
        (sent,) = self.done(*SENDING).items
        self.assertEqual(sent["way"], "instant")

    def test_other_content(self) -> None:
        """An upload that ends as another content is status 4, and is taken away."""

        def script(asked: Asked, _: int) -> Said:
            if asked.method == "POST":
                return Said(201, {"Location": "/temp/t"})
            if asked.method == "DELETE":
                return Said(204)
            return made(b"another", 9)

        self.script = script
        words = [word for word in SENDING if not word.startswith("--piece")]
        self.assertEqual(self.ostore(*words).status, 4)
        self.assertEqual(self.asked[-1].target, "/objects/x?version=9")

    def test_busy(self) -> None:
        """A part that waits for a dead writer is tried again."""

        def script(asked: Asked, number: int) -> Said:
            if asked.method == "POST":
                return Said(201, {"Location": "/temp/t"})
            if asked.method == "HEAD":
                return Said(200, {"Upload-Offset": "0"})
            if len([a for a in self.asked if a.method == "PUT"]) < 3:
                return attrs.evolve(problem(409, "upload-busy", "a writer"), early=True)
            return made(self.content)

        self.script = script
        words = [word for word in SENDING if not word.startswith("--piece")]
        self.assertEqual(self.ostore(*words).status, 0)

    def test_conflict_does_not_pass(self) -> None:
        """Any other 409 is told at once."""
        self.script = lambda _, __: problem(409, "refused", "a key of another kind")
        self.assertEqual(self.ostore(*SENDING).status, 1)
        self.assertEqual(self.waits, [])

    def test_nowhere(self) -> None:
        """An answer without a place for the upload is a failure."""
        self.script = lambda _, __: Said(201)
        self.assertEqual(self.ostore(*SENDING).status, 1)

    def test_never_ready(self) -> None:
        """An upload that is never read back to its end is left in the end."""

        def script(asked: Asked, _: int) -> Said:
            if asked.method == "POST":
                return Said(201, {"Location": "/temp/t"})
            return Said(202)

        self.script = script
        words = [word for word in SENDING if not word.startswith("--piece")]
        result = self.ostore(*words)
        self.assertEqual(result.status, 1)
        self.assertIn("did not finish", result.err)
