"""The files of one SQLite store: whose they are, and whether they are still there."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import attrs

from ostore.model.errors import OutcomeUnknown, Refused


class Place:
    """Owns the lock file beside the database, from `take` to `leave`.

    The lock is the kernel's: it ends with the process, however that ends. The lock
    file itself is never removed, so that nobody can lock one that is already gone.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None
        self._files: tuple[_Identity, _Identity] | None = None

    def take(self) -> None:
        """Become the only user of the path; Refused when there is another.

        A file that is missing is made, empty, for the owner alone: what SQLite makes
        beside it gets the same permissions.
        """
        try:
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refused(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Refused(f"{self.path} is in use by another process") from error
        self._lock = lock
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            self.leave()
            raise Refused(f"{self.path} cannot be made: {error.strerror}") from error

    def remember(self) -> None:
        """Note which files are open now; they are ours, and nobody else's business."""
        for path in (self.path, f"{self.path}-wal", f"{self.path}-shm"):
            with suppress(FileNotFoundError, PermissionError):  # its owner's matter
                if os.stat(path).st_mode & 0o077:  # noqa: PTH116 - as in _identity
                    os.chmod(path, 0o600)  # noqa: PTH101
        self._files = self._look()

    def check(self) -> None:
        """Raise OutcomeUnknown when the open files are no longer those at the path.

        What is written to a removed file ends with the process; so this is asked
        between a commit and its acknowledgement.
        """
        if self._look() != self._files:
            raise OutcomeUnknown("the metadata files were removed or replaced")

    def leave(self) -> None:
        """Let others use the path. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _look(self) -> tuple[_Identity, _Identity] | None:
        try:
            return _identity(self.path), _identity(f"{self.path}-wal")
        except OSError:
            return None


@attrs.frozen
class _Identity:
    device: int
    inode: int


def _identity(path: str) -> _Identity:
    found = os.stat(path)  # noqa: PTH116 - two integers, no Path wanted
    return _Identity(found.st_dev, found.st_ino)
