"""The one broker and the one search server that the live tests of a run share.

Each is started on first use and ended when the process ends. One that cannot be
started fails every test that needs it, with the same words; nothing is skipped.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from secrets import token_hex

from tests.support import livecluster
from tests.support.rabbitmq import RabbitMQ
from tests.support.searchserver import SearchServer

SEARCH = livecluster.SEARCH
INDICES = ("ostore-heads-v1", "ostore-cluster-v1")
TEMPLATES = ("ostore-heads", "ostore-cluster")


@cache
def _broker() -> RabbitMQ | str:
    try:
        made = RabbitMQ()
        made.start()
    except (AssertionError, OSError) as error:
        return (
            f"no live test without RabbitMQ (apt-get install rabbitmq-server): {error}"
        )
    return made


@cache
def _search() -> SearchServer | str:
    folder = Path(tempfile.mkdtemp(prefix="ostore-search-"))
    folder.chmod(0o755)  # some servers run as another user
    try:
        made = SearchServer(folder, SEARCH)
        atexit.register(made.close)
        made.start()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return f"no live test without a search server (needs maven, Java 21): {error}"
    return made


def broker() -> RabbitMQ:
    """The broker, running. Raises AssertionError."""
    made = _broker()
    if isinstance(made, str):
        raise AssertionError(made)
    return made


def search() -> SearchServer:
    """The search server, running. Raises AssertionError."""
    made = _search()
    if isinstance(made, str):
        raise AssertionError(made)
    return made


def vhost() -> str:
    """A vhost of the broker in which nobody was before."""
    name = f"v{token_hex(4)}"
    broker().control("add_vhost", name)
    broker().control("set_permissions", "-p", name, broker().user, ".*", ".*", ".*")
    return name


def forget() -> None:
    """Empty the search server: no cluster was ever here."""
    paths = [f"/{name}" for name in INDICES]
    paths += [f"/_index_template/{name}" for name in TEMPLATES]
    for path in paths:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", search().port, timeout=60)
        ) as connection:
            connection.request("DELETE", path)
            status = connection.getresponse().status
        assert status in (200, 404), f"DELETE {path}: {status}"
