"""How a service that cannot start says so: one line, and an exit status not 0."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

from twisted.internet.error import ReactorNotRunning


class StartError(Exception):
    """The service cannot start; `str()` of it is one line for the operator."""


def fail_start(reactor: Any, line: str) -> None:
    """Print `line` and end the process with status 1, after an orderly stop.

    For what goes wrong once twistd has taken over, before or while the reactor
    runs; services are stopped as by SIGTERM. Before that raise StartError.
    """
    # twistd has made sys.stderr a log by now, and drops the reactor's outcome: the
    # status can only be set at the interpreter's very end.
    stderr = sys.__stderr__
    if stderr is not None:
        print(line, file=stderr, flush=True)
    atexit.unregister(_leave)
    atexit.register(_leave)
    reactor.callWhenRunning(_stop, reactor)


def _stop(reactor: Any) -> None:
    try:
        reactor.stop()
    except ReactorNotRunning:
        return  # it is being stopped already


def _leave() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(1)
