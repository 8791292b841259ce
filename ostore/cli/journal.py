"""Transfers under way, one small file each, so that a killed command goes on.

The files, and compressed contents and packs that are on their way, are in
`$XDG_STATE_HOME/ostore/transfers`, named by a hash of what they are about. The first
line is a JSON object, each further line the number of a finished piece; a line cut
short by a kill is left out. Who works on one holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ostore.cli.failures import Failure

FORGOTTEN_AFTER = 14 * 86400.0
"""Seconds after which a transfer that nobody went on with is forgotten."""


class Journal:
    """The folder of transfers; made when first needed."""

    def __init__(self, folder: Path, wall: Callable[[], float]) -> None:
        self.folder = folder / "transfers"
        self._wall = wall
        self._swept = False

    def open(self, *about: str) -> Entry:
        """The entry of one transfer, locked; Failure when another command has it."""
        path = self.place("transfer", *about)
        try:
            return Entry(path)
        except OSError as error:
            raise self._unusable(error) from error

    def place(self, kind: str, *about: str) -> Path:
        """Where a file of that kind about something is, or is to be."""
        key = hashlib.sha256("\0".join(about).encode("utf-8", "surrogateescape"))
        if not self._swept:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._sweep()
            except OSError as error:
                raise self._unusable(error) from error
        return self.folder / f"{key.hexdigest()[:32]}.{kind}"

    def _unusable(self, error: OSError) -> Failure:
        return Failure(
            f"the folder of transfers {str(self.folder)!a} cannot be used: "
            f"{error.strerror}; set XDG_STATE_HOME to one that can"
        )

    def _sweep(self) -> None:
        """Forget what nobody went on with, once a command."""
        self._swept, now = True, self._wall()
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > FORGOTTEN_AFTER:
                    with path.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()


class Entry:
    """What is known of one transfer; `close` keeps it, `forget` removes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = self._locked()
        self.facts: dict[str, Any] = {}
        self.pieces: set[int] = set()
        self._read()

    def _locked(self) -> IO[bytes]:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            file = os.fdopen(handle, "r+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                same = os.path.samestat(os.fstat(handle), self.path.stat())
            except FileNotFoundError:
                same = False
            except BlockingIOError:
                file.close()
                raise Failure("another ostore command has this transfer") from None
            if same:
                return file
            file.close()

    def _read(self) -> None:
        *whole, _ = self._file.read().split(b"\n")
        try:
            facts = json.loads(whole[0])
            pieces = {int(line) for line in whole[1:]}
        except (ValueError, IndexError):
            return
        if isinstance(facts, dict):
            self.facts, self.pieces = facts, pieces

    def begin(self, facts: Mapping[str, Any]) -> None:
        """These facts, and no piece yet."""
        self.facts, self.pieces = dict(facts), set()
        self._file.truncate(0)
        self._file.write(json.dumps(self.facts).encode() + b"\n")

    def finished(self, piece: int) -> None:
        """That piece is written."""
        self.pieces.add(piece)
        self._file.write(b"%d\n" % piece)

    def close(self) -> None:
        """Keep it for another time."""
        self._file.close()

    def forget(self) -> None:
        """The transfer is over."""
        self.path.unlink(missing_ok=True)
        self._file.close()
