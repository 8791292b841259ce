"""`python -m ostore.service.checking ROLE [FILE]`: settings as a service would take them.

Prints one JSON object for a program that looks after services: `settings`, or the
`error` with which the service would refuse to start. Starts nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ostore.service.config import resolve
from ostore.service.failing import StartError
from ostore.service.secret import read


def checked(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """What is printed."""
    role, *rest = words
    try:
        settings = resolve(role, {"config": rest[0] if rest else None}, environ)
    except StartError as error:
        return {"error": str(error)}
    found = attrs.asdict(settings, value_serializer=lambda _, __, value: _plain(value))
    path = settings.cluster_secret_file
    try:
        # A standalone makes the file when it first starts.
        if role != "standalone" or Path(path).exists():
            read(path)
    except StartError as error:
        return {"settings": found, "error": str(error)}
    return {"settings": found}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    plain = value is None or isinstance(value, str | int | float | dict)
    return value if plain else str(value)


if __name__ == "__main__":
    print(json.dumps(checked(sys.argv[1:], os.environ)))  # noqa: T201  # its answer
