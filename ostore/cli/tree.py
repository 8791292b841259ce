"""A local folder as relative names, slashes between the parts."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ostore.cli.failures import Failure


def files(
    folder: Path, skipped: Callable[[str, str], None]
) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder; `skipped` hears what is left out, and why.

    Symbolic links are not followed, hidden parts of transfers are passed over. Raises
    Failure when the folder cannot be read.
    """

    def failed(error: OSError) -> None:
        raise Failure(f"{error.filename!a} cannot be read: {error.strerror}")

    for where, folders, names in os.walk(folder, onerror=failed):
        folders.sort()
        for name in folders:
            path = Path(where, name)
            if path.is_symlink():
                skipped(_relative(folder, path), "a symbolic link")
        for name in sorted(names):
            path = Path(where, name)
            relative = _relative(folder, path)
            if name.startswith(".ostore-") and name.endswith(".part"):
                continue
            try:
                found = path.lstat()
                relative.encode("utf-8")
            except UnicodeEncodeError:
                skipped(relative, "its name is not UTF-8")
                continue
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                yield relative, found
            else:
                link = stat.S_ISLNK(found.st_mode)
                skipped(relative, "a symbolic link" if link else "not a file")


def emptied(path: Path, top: Path) -> None:
    """Remove folders that are empty by now, from that one up to `top`."""
    with contextlib.suppress(OSError):
        while path != top:
            path.rmdir()
            path = path.parent


def _relative(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
