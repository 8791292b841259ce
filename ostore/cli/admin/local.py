"""What a service's settings lead to on this machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ostore.cli.admin.finding import LEAST, LITTLE, OK, PROBLEM, WARNING, Finding
from ostore.cli.console import size_text
from ostore.cli.failures import Failure

TIMEOUT = 60.0


def settings(
    role: str, config: str | None, environ: Mapping[str, str]
) -> tuple[Mapping[str, Any], Finding]:
    """Settings as a service of that role would take them, and whether it would.

    The service's own code reads them, in a process of its own, as this command must
    not depend on it.
    """
    words = [sys.executable, "-m", "ostore.service.checking", role]
    if config is not None:
        words.append(config)
    try:
        result = subprocess.run(  # noqa: S603  # our own module
            words,
            # The code that runs here, wherever it lies.
            env={**environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
        found = json.loads(result.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise Failure(f"the settings cannot be checked: {error}") from error
    what = f"settings of ostore-{role}"
    if "error" in found:
        mend = "as it says; every key is in docs/configuration.md"
        why = str(found["error"])
        return found.get("settings", {}), Finding(what, PROBLEM, why, mend)
    return found["settings"], Finding(what, OK, "would be taken")


def of_files(role: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    """The secret file, keys and storage roots."""
    for key in ("cluster_secret_file", "tls_key", "es_api_key_file"):
        if found.get(key) is not None:
            yield from _of_secret(key.replace("_", "-"), Path(found[key]))
    if role != "api":
        given = found.get("storage_root") or []
        for root in [given] if isinstance(given, str) else given:
            yield _of_root(Path(root))


def _of_secret(key: str, path: Path) -> Iterator[Finding]:
    try:
        found = path.stat()
    except OSError:
        return
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        detail = f"{path} can be read by others"
        yield Finding(key, WARNING, detail, f"chmod 600 {path}")
    else:
        yield Finding(key, OK, f"{path} is its owner's alone")


def _of_root(root: Path) -> Finding:
    what = f"storage root {root}"
    above = root
    while not above.exists() and above != above.parent:
        above = above.parent
    if not os.access(above, os.W_OK | os.X_OK):
        mend = "run the service as its owner, or chown it"
        return Finding(what, PROBLEM, f"{above} cannot be written by this user", mend)
    space = os.statvfs(above)
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    detail = f"{size_text(free)} of {size_text(total)} free"
    if above != root:
        detail += ", not made yet"
    share = free / total if total else 0.0
    if share < LITTLE:
        state = PROBLEM if share < LEAST else WARNING
        return Finding(what, state, detail, "make room, or add a node on another disk")
    if space.f_files and space.f_favail < space.f_files * LEAST:
        return Finding(what, PROBLEM, "few inodes are free", "make room for files")
    return Finding(what, OK, detail)
