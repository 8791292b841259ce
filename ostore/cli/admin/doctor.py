"""All that `ostore admin doctor` looks at, in the order in which it tells it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ostore.cli.admin.asking import Administration
from ostore.cli.admin.broker import broker
from ostore.cli.admin.finding import (
    OK,
    PROBLEM,
    WARNING,
    Finding,
    of_clock,
    of_view,
)
from ostore.cli.admin.local import of_files, settings
from ostore.cli.admin.searching import search_server
from ostore.cli.admin.view import Node
from ostore.cli.answer import CHUNK
from ostore.cli.backoff import Backoff
from ostore.cli.client import Client
from ostore.cli.endpoint import Endpoint
from ostore.cli.failures import Failure, Misused
from ostore.cli.session import Session


class Doctor:
    """Looks at one service, and with a role at its settings; changes nothing."""

    def __init__(self, session: Session, role: str | None, config: str | None) -> None:
        self._session = session
        self._role = role
        self._config = config
        self._found: Mapping[str, Any] = {}

    def findings(self) -> Iterator[Finding]:
        """Everything that was looked at, one after the other."""
        if self._role is not None:
            yield from self._settings(self._role)
        yield from self._service()

    def _settings(self, role: str) -> Iterator[Finding]:
        environ = self._session.world.environ
        self._found, verdict = settings(role, self._config, environ)
        yield verdict
        yield from of_files(role, self._found)
        for url in self._found.get("rabbitmq_server") or ():
            yield broker(url, self._trust)
        if role == "api" and self._found.get("metadata") is None:
            wall = self._session.world.wall
            for url in self._found.get("es_server") or ():
                yield search_server(url, self._api_key(), self._trust, wall)

    def _service(self) -> Iterator[Finding]:
        asking = Administration(self._session)
        endpoint = self._session.client.endpoint
        what = f"service {endpoint}"
        try:
            reasons = asking.reasons()
            view = asking.view()
        except Failure as failure:
            mend = "start it, or mend --endpoint"
            yield Finding(what, PROBLEM, str(failure), mend)
            return
        for why in reasons:
            yield Finding(what, PROBLEM, f"is not ready: {why}", "see below")
        if not reasons:
            yield Finding(what, OK, f"ostore {view.version} is ready")
        yield from self._admitted(asking)
        yield from self._clock("clock of the service", self._session.client)
        now = self._session.world.wall()
        yield from of_view(view, now, self._found.get("data_shards"))
        for node in view.nodes:
            if node.state != "down" and "://" in node.url:
                yield from self._node_clock(node)

    def _admitted(self, asking: Administration) -> Iterator[Finding]:
        own = self._session.settings
        if own.secret_file is None and own.secret_text is None:
            return
        try:
            asking.admitted()
        except (Failure, Misused) as failure:
            yield Finding(
                "cluster secret", PROBLEM, str(failure), "use the services' own file"
            )
        else:
            yield Finding("cluster secret", OK, "the service takes it")

    def _clock(self, what: str, client: Client) -> Iterator[Finding]:
        wall = self._session.world.wall
        before = wall()
        answer = client.once("GET", "/health/live")
        answer.read(CHUNK)
        after = wall()
        try:
            told = parsedate_to_datetime(answer.header("Date") or "").timestamp()
        except (ValueError, TypeError):
            return
        # It shows whole seconds, and was written at any time in between.
        apart = max(told - after, 0.0) or min(told + 1 - before, 0.0)
        yield of_clock(what, apart)

    def _node_clock(self, node: Node) -> Iterator[Finding]:
        what = f"clock of node {node.id[:12]}"
        try:
            client = Client(
                Endpoint.parse(node.url),
                wall=self._session.world.wall,
                sleep=self._session.world.sleep,
                chance=self._session.world.chance,
                backoff=Backoff(attempts=1),
                trust=self._trust,
            )
            try:
                yield from self._clock(what, client)
            finally:
                client.close()
        except Failure as failure:
            mend = "nothing, when nodes are out of reach from here on purpose"
            yield Finding(what, WARNING, f"not known: {failure}", mend)

    def _api_key(self) -> str | None:
        path = self._found.get("es_api_key_file")
        try:
            return Path(path).read_text("utf-8").strip() if path else None
        except (OSError, UnicodeError):
            return None

    def _trust(self) -> ssl.SSLContext:
        given = self._found.get("tls_ca")
        own = self._session.settings.ca_file
        try:
            return ssl.create_default_context(cafile=given or (own and str(own)))
        except (OSError, ssl.SSLError) as error:
            raise Misused(f"{given or own}: cannot be used: {error}") from error
