"""The file of the access log: a line an entry, written in batches."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from ostore.service.accesslog import WAITING, AccessLog


class AccessLogTests(SynchronousTestCase):
    """When lines are written."""

    def setUp(self) -> None:
        """A log in a file of its own."""
        self.path = self.mktemp()
        self.log = AccessLog(self.path)
        self.addCleanup(self.log._file.close)

    def written(self) -> list[int]:
        """The numbers of the entries in the file."""
        lines = Path(self.path).read_text("ascii").splitlines()
        return [json.loads(line)["n"] for line in lines]

    def test_whatever_stands_in_it(self) -> None:
        """An entry is one line, and no value of it begins another."""
        texts = "\n", '"},{"n":1}', "},{", "\\", "\0\u2028\ud800"
        entries = [{"n": 0, "target": text} for text in texts]
        for entry in entries:
            self.log.write(entry)
        self.log.flush()
        lines = Path(self.path).read_text("ascii").split("\n")
        self.assertEqual([json.loads(line) for line in lines[:-1]], entries)

    def test_told(self) -> None:
        """Nothing before it is told to, all of it then, once."""
        for n in range(3):
            self.log.write({"n": n})
        self.assertEqual(self.written(), [])
        self.log.flush()
        self.log.flush()
        self.assertEqual(self.written(), [0, 1, 2])

    def test_many(self) -> None:
        """So many entries do not wait to be told."""
        for n in range(WAITING + 1):
            self.log.write({"n": n})
        self.assertEqual(self.written(), list(range(WAITING)))
        self.log.flush()
        self.assertEqual(self.written(), list(range(WAITING + 1)))

    def test_end(self) -> None:
        """The end leaves none behind."""
        log = AccessLog(self.path)
        log.write({"n": 7})
        log.close()
        self.assertEqual(self.written(), [7])

    def test_disk_that_fails(self) -> None:
        """Lines that cannot be written are counted, and hold up nobody."""
        with patch.object(self.log._file, "write", side_effect=OSError("full")):
            self.log.write({"n": 1})
            self.log.flush()
        self.assertEqual(self.log.lost, 1)
        self.log.write({"n": 2})
        self.log.flush()
        self.assertEqual(self.written(), [2])
