"""A local file that is received: whole and checked, or not there at all.

Bytes go to a hidden file beside the target; only when their SHA-256 is right is it
renamed. A name from the service never leads out of the folder it is meant for.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import TracebackType

from ostore.cli.answer import CHUNK
from ostore.cli.failures import Failure


class Unsafe(Failure):
    """A name that would lead out of the folder, or cannot be a file."""


def below(folder: Path, name: str) -> Path:
    """Where that name lies below the folder. Raises Unsafe."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise Unsafe(f"{name!a} cannot be a file below a folder; get it with a name")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise Unsafe(f"{name!a} cannot be a file's name here") from None
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise Unsafe(f"{name!a} has a part of more than 255 bytes; get it with a name")
    path = folder
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            raise Unsafe(f"{name!a} leads through the symbolic link {str(path)!a}")
    return path / parts[-1]


def last_part(name: str) -> str:
    """The file name that an object's name ends in. Raises Unsafe."""
    last = PurePosixPath(name).name if not name.endswith("/") else ""
    below(Path(), last)
    return last


class Landing:
    """A hidden file that becomes the target when it is right.

    Left without `settle` it is removed, unless `keep` says that it will be gone on
    with.
    """

    def __init__(self, path: Path, mark: str | None = None) -> None:
        self.path = path
        self.part = path.parent / f".ostore-{mark or secrets.token_hex(8)}.part"
        self.keep = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self.handle = os.open(self.part, flags, 0o666)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._settled = False

    def __enter__(self) -> Landing:
        """The file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; remove it unless it is settled or kept."""
        os.close(self.handle)
        if not self._settled and not self.keep:
            self.part.unlink(missing_ok=True)

    def write(self, data: memoryview, at: int) -> None:
        """Put these bytes there."""
        try:
            while data:
                count = os.pwrite(self.handle, data, at)
                data, at = data[count:], at + count
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def read(self, first: int, end: int, tell: Callable[[memoryview], object]) -> None:
        """Give back what was written, a chunk at a time."""
        view = memoryview(bytearray(CHUNK))
        while first < end:
            count = os.preadv(self.handle, [view[: end - first]], first)
            if count == 0:
                raise Failure(f"{str(self.part)!a} became shorter; try again")
            tell(view[:count])
            first += count

    def settle(self, *, durable: bool = False) -> None:
        """The bytes are right: make it the target, `durable` also for a power cut."""
        try:
            if durable:
                os.fsync(self.handle)
            self.part.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._settled = True


def _unwritable(path: Path, error: OSError) -> Failure:
    return Failure(f"{str(path)!a} cannot be written: {error.strerror}")
