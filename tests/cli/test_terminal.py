"""What a person at a terminal sees, over a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading

from tests.cli.support import ServiceTestCase
from tests.support.child import environment
from tests.support.standalone import some_bytes

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(rb"\x1b\[(?:[1-9][0-9;]*)m")


class TerminalTests(ServiceTestCase):
    """Bars and colours."""

    def seen(self, *words: str, **environ: str) -> tuple[int, bytes]:
        """Exit status, and all that a terminal got when it is all three streams."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "ostore.cli.main", *words],
            cwd=self.folder,
            env=environment(
                {"TERM": "xterm-256color", "COLUMNS": "100", **self.environ, **environ}
            ),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            close_fds=True,
        )
        os.close(theirs)
        got = bytearray()
        try:
            while data := os.read(ours, 65536):
                got += data
        except OSError:
            pass  # Linux says EIO when the other end is closed
        finally:
            os.close(ours)
        return process.wait(60), bytes(got)

    def setUp(self) -> None:
        """A file that takes a few chunks."""
        super().setUp()
        self.content = some_bytes(20_000_000)
        self.file("large", self.content)

    def test_bars(self) -> None:
        """Transfers show the name, a bar and sizes; the result stays when they go."""
        status, got = self.seen("put", "large", "--piece=4MiB")
        self.assertEqual(status, 0)
        self.assertIn(b"large", got)
        self.assertIn("━".encode(), got)
        self.assertIn(b"MiB", got)
        self.assertIn(b"put large -> large@", ESCAPE.sub(b"", got))
        status, got = self.seen("get", "large", "copy", "--piece=4MiB")
        self.assertEqual(status, 0)
        self.assertIn("━".encode(), got)
        self.assertEqual((self.folder / "copy").read_bytes(), self.content)

    def test_results_above_bars(self) -> None:
        """The result lines of a sync come whole, each on a line of its own."""
        for n in range(30):
            self.file(f"d/{n:02}-[bold]:smile:", some_bytes(100_000))
        status, got = self.seen("sync", "d", "p/")
        self.assertEqual(status, 0)
        lines = ESCAPE.sub(b"", got).replace(b"\r", b"\n").split(b"\n")
        for n in range(30):
            self.assertIn(b"put %02d-[bold]:smile:" % n, lines)

    def test_no_color(self) -> None:
        """NO_COLOR takes colours away, and leaves the bars."""
        _, plain = self.seen("put", "large", NO_COLOR="1")
        self.assertIn(b"/19.1 MiB", plain)
        self.assertIsNone(COLOUR.search(plain))
        _, coloured = self.seen("put", "large")
        self.assertIsNotNone(COLOUR.search(coloured))

    def test_quiet(self) -> None:
        """Neither with --quiet nor with --json is there a bar."""
        for option in ("--quiet", "--json"):
            _, got = self.seen("put", option, "large")
            self.assertNotIn("━".encode(), got)
            self.assertIsNone(ESCAPE.search(got))

    def test_piped(self) -> None:
        """Into a pipe nothing but the result is written."""
        result = subprocess.run(
            [sys.executable, "-m", "ostore.cli.main", "put", "large"],
            cwd=self.folder,
            env=environment(self.environ),
            capture_output=True,
            timeout=60,
            check=True,
        )
        self.assertRegex(result.stdout, rb"^put large -> large@\d+ \(19.1 MiB\)\n$")
        self.assertEqual(result.stderr, b"")

    def test_interrupt(self) -> None:
        """Ctrl-C ends it with 130, a line and no traceback, and leaves no file."""
        self.done("put", "large")
        for number in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen(
                [sys.executable, "-c", SLOW, "get", "--piece=64MiB", "large", "copy"],
                cwd=self.folder,
                env=environment(self.environ),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"begun\n")
            process.send_signal(number)
            watch = threading.Timer(60, process.kill)
            watch.start()
            _, err = process.communicate()
            watch.cancel()
            self.assertEqual(process.returncode, 128 + number, err)
            self.assertEqual(
                err, b"\nostore: stopped; the same command goes on with it\n"
            )
            self.assertFalse((self.folder / "copy").exists())
            self.assertEqual(self.leftovers(), [])


SLOW = """
import threading
from ostore.cli import target
from ostore.cli.main import main
whole = target.Landing.write
def write(self, data, at):
    print("begun", flush=True)
    threading.Event().wait(0.5)
    whole(self, data, at)
target.Landing.write = write
main()
"""
"""The command with a slow disk, which tells when it writes."""
