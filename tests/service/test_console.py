"""A log on a pipe that nobody reads."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ostore.service.console import ATOMIC, Console


class ConsoleTests(SynchronousTestCase):
    """Lines go out as long as they are taken."""

    def setUp(self) -> None:
        """A pipe."""
        self.reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        self.console = Console(writer)

    def test_lines_that_are_read(self) -> None:
        """What is written comes out as it was, longer than a pipe takes at once too."""
        long = "é" * ATOMIC + "\n"
        for line in ("short\n", long, "last\n"):
            self.console.write(line)
        taken = os.read(self.reader, 1 << 20).decode()
        os.close(self.reader)
        self.assertEqual(taken, f"short\n{long}last\n")
        self.assertEqual(self.console.lost, 0)

    def test_a_pipe_that_nobody_reads(self) -> None:
        """Writing returns, what does not fit is counted, and told once it fits."""
        count = 2000
        for _ in range(count):
            self.console.write("x" * 99 + "\n")
        lost = self.console.lost
        kept = os.read(self.reader, 1 << 20)
        self.assertEqual(kept, (b"x" * 99 + b"\n") * (count - lost))
        self.assertGreater(lost, 0)
        self.console.write("again\n")
        told = os.read(self.reader, 1 << 20).decode()
        os.close(self.reader)
        self.assertEqual(told, f"{lost} log entries were lost\nagain\n")

    def test_a_reader_that_left(self) -> None:
        """A closed other end is no error for who logs."""
        os.close(self.reader)
        self.assertEqual(self.console.write("lost\n"), 5)
        self.assertEqual(self.console.lost, 1)
