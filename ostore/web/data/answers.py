"""What the answers of a node have in common."""

from __future__ import annotations

import json
from typing import Any

from ostore.backends.nodes.protocol import problem_of
from ostore.backends.shards.temporary import TooLong, WrongOffset
from ostore.model.errors import Refused, ShardError
from ostore.model.nodes import Boot
from ostore.model.ranges import Unsatisfiable
from ostore.model.signing import Unsigned, WrongTime
from ostore.streaming.problem import Problem, as_problem
from ostore.streaming.reply import Reply


def send_json(reply: Reply, value: Any) -> None:
    """200 with JSON."""
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    reply.send(200, {"Content-Type": "application/json"}, body)


def shown_boot(boot: Boot) -> str:
    """A boot in headers and JSON."""
    return f"{boot.counter}-{boot.random}"


def problem(error: Exception) -> Problem | None:
    """The answer to an error; None when it is not for the asker's eyes."""
    if isinstance(error, WrongTime):
        return Problem(401, str(error), slug="wrong-time", headers=_CHALLENGE)
    if isinstance(error, Unsigned):
        return Problem(401, str(error), slug="unsigned", headers=_CHALLENGE)
    if isinstance(error, Unsatisfiable):
        headers = {"Content-Range": error.content_range, "Accept-Ranges": "bytes"}
        return Problem(416, str(error), slug="range-not-satisfiable", headers=headers)
    if isinstance(error, WrongOffset):
        headers = {"Upload-Offset": str(error.held)}
        return Problem(409, str(error), slug="node-refused", headers=headers)
    if isinstance(error, TooLong):
        return Problem(413, str(error), slug="shard-refused")
    found = problem_of(error) if isinstance(error, ShardError | Refused) else None
    if found is None:
        return as_problem(error)
    status, slug = found
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Problem(status, str(error), slug=slug, headers=headers)


_CHALLENGE = {"WWW-Authenticate": "OSTORE1"}
