"""Whether a search server lets a service in, and how it is."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from ostore.cli.admin.finding import OK, PROBLEM, WARNING, Finding
from ostore.cli.backoff import Backoff
from ostore.cli.client import Client
from ostore.cli.endpoint import Endpoint
from ostore.cli.failures import Failure, Misused, Refused

ELASTIC, OPEN = ("7", "8", "9"), ("1", "2", "3")
"""Major versions that are spoken to."""


def search_server(
    url: str,
    key: str | None,
    trust: Callable[[], ssl.SSLContext],
    wall: Callable[[], float],
) -> Finding:
    """What one URL of `es-server` leads to; `key` is an API key."""
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    authorization = None
    if key:
        authorization = f"ApiKey {key}"
    elif parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
    what = f"search server {bare}"
    try:
        client = Client(
            Endpoint.parse(bare),
            wall=wall,
            sleep=lambda _: None,
            chance=lambda: 0.5,
            backoff=Backoff(attempts=1),
            authorization=authorization,
            trust=trust,
        )
    except Misused as error:
        return Finding(what, PROBLEM, str(error), "mend es-server")
    try:
        about = client.ask("GET", "/").json()
        health = client.ask("GET", "/_cluster/health").json()
    except Refused as error:
        if error.code in (401, 403):
            mend = "mend the user in es-server's URL, or es-api-key-file"
            return Finding(what, PROBLEM, str(error), mend)
        return Finding(what, PROBLEM, str(error), "look into its log")
    except Failure as error:
        return Finding(what, PROBLEM, str(error), "start it, or mend es-server")
    finally:
        client.close()
    return _judged(what, about, health)


def _judged(what: str, about: Any, health: Any) -> Finding:
    try:
        number = str(about["version"]["number"])
        opensearch = about["version"].get("distribution") == "opensearch"
        status, nodes = str(health["status"]), int(health["number_of_nodes"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return Finding(what, PROBLEM, "is no search server", "mend es-server")
    kind = "OpenSearch" if opensearch else "Elasticsearch"
    detail = f"{kind} {number}, {status}, {nodes} node{'' if nodes == 1 else 's'}"
    if number.partition(".")[0] not in (OPEN if opensearch else ELASTIC):
        spoken = "Elasticsearch 7 to 9 or OpenSearch 1 to 3 is needed"
        return Finding(what, PROBLEM, detail, spoken)
    if status == "red":
        mend = "bring its nodes back: it lacks primary shards"
        return Finding(what, PROBLEM, detail, mend)
    if status == "yellow" and nodes > 1:
        return Finding(what, WARNING, detail, "wait: copies of shards are made")
    return Finding(what, OK, detail)
