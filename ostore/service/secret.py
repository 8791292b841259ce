"""The cluster secret: a file that only its owner reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ostore.model.errors import Malformed
from ostore.model.messages import secret_lines
from ostore.service.failing import StartError


def read_or_make(path: str, entropy: Callable[[int], bytes]) -> list[bytes]:
    """The secrets in that file, which is made (0600) when missing.

    Raises StartError for a file that cannot be used.
    """
    if not Path(path).exists():
        try:
            _make(path, entropy(32).hex())
        except OSError as error:
            raise _unusable(path, error.strerror) from error
    return read(path)


def read(path: str) -> list[bytes]:
    """The secrets in that file. Raises StartError for one that cannot be used."""
    try:
        return secret_lines(Path(path).read_text("utf-8"))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise _unusable(path, why) from error
    except Malformed as error:
        raise StartError(f"cluster-secret-file {path}: {error}") from error


def _unusable(path: str, why: str | None) -> StartError:
    return StartError(
        f"cluster-secret-file {path} cannot be used ({why}): allowed is a readable "
        "file with a line of at least 32 characters"
    )


def _make(path: str, secret: str) -> None:
    fresh = f"{path}.new"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, f"{secret}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    Path(fresh).rename(path)
