"""What a supervisor and its workers say to each other: a JSON object a line.

to a worker      {"scrape": ID}                say what you count
                 {"sum": ID, "text": TEXT}     what all of you count together
to a supervisor  {"ready": URL}                it would serve requests
                 {"failed": LINE}              it cannot start; its process ends
                 {"counts": ID, "text": TEXT}  the answer to scrape
                 {"ask": ID, "text": TEXT}     wants the sum; its own part
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]

MAX_LINE = 8 << 20
"""Bytes of a message; /metrics of a service with every label is below 1 MiB."""

FROM_SUPERVISOR = 3
TO_SUPERVISOR = 4
LISTENING = 5
"""Descriptors that a worker finds open."""


class TooLong(Exception):
    """The other end sends something else than messages."""


def packed(message: Message) -> bytes:
    """A message as its line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Lines:
    """Cuts what comes in into messages; one for each end of a conversation."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Hand over the messages that `data` completes. Raises TooLong, ValueError."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise TooLong(f"a message of more than {MAX_LINE} bytes")
        for line in lines:
            self._take(json.loads(line))
