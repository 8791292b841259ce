"""A synchronous HTTP/1.1 client, made for large bodies on both ways.

It stands on `http.client` of the standard library: a command that moves files needs
no event loop, a thread for each of a few connections is enough, and a reactor would
make every start slower and every fault harder to tell in one line. Measured here,
`http.client` is imported in 25 ms; `httpx` takes five times that and copies every
chunk twice. What is missing there is added: kept connections, attempts with back-off,
answers that come while the body is still being sent, and bodies read into a buffer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

from ostore import __version__
from ostore.cli.answer import Answer, reason
from ostore.cli.backoff import RETRIED, Backoff, retry_after
from ostore.cli.endpoint import Endpoint
from ostore.cli.failures import Failure, Missing, Refused, Unreachable

MAX_PROBLEM = 64 << 10
CONNECT, IDLE = 10.0, 65.0
"""Seconds to connect; seconds a server may say and take nothing."""
AGENT = f"ostore/{__version__}"
BUSY = "upload-busy"
"""The problem type of the one 409 that passes: the writer before us is not gone yet."""

Body = bytes | Callable[[], Iterable[bytes | memoryview]]
"""Bytes, or what begins them anew for each attempt."""


class Client:
    """Asks one endpoint, over connections that are kept; threads may share it.

    Made once a command; `close` ends it. Unless it is `patient`, a service that was
    never reached is not waited for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        wall: Callable[[], float],
        sleep: Callable[[float], object],
        chance: Callable[[], float],
        backoff: Backoff,
        patient: bool = True,
        authorization: str | None = None,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.endpoint = endpoint
        self.wall = wall
        self.backoff = backoff
        self._sleep = sleep
        self._chance = chance
        self._patient = patient
        self._reached = False
        self._authorization = authorization
        self._trust = trust
        self._context: ssl.SSLContext | None = None
        self._told = told
        self._idle: list[http.client.HTTPConnection] = []
        self._used: set[http.client.HTTPConnection] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def stop(self) -> None:
        """Cut all connections: what waits on them fails, and nothing is tried again.

        For handlers of signals; it takes no lock, which the interrupted may hold.
        """
        self._stopped = True
        for connection in tuple(self._used):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        *,
        accept: tuple[int, ...] = (200,),
        attempts: int | None = None,
    ) -> Answer:
        """The answer, one of the statuses in `accept`.

        Tried again after errors of the network and after statuses that pass, up to
        `attempts`: every write must bear an Idempotency-Key, or be sent once. Raises
        Unreachable, Refused, Missing.
        """
        failed = 0
        while True:
            try:
                return self.once(method, target, headers, body, accept=accept)
            except (Unreachable, Refused) as error:
                failed += 1
                if attempts is not None and failed >= attempts:
                    raise
                self.pause(failed, error)

    def pause(self, failed: int, error: Failure) -> None:
        """Wait before the next attempt, or raise the error when there is none."""
        asked = error.wait if isinstance(error, Refused) else None
        passing = not isinstance(error, Refused) or error.code in RETRIED
        if isinstance(error, Refused) and error.code == 409:
            passing = error.slug == BUSY
        if isinstance(error, Unreachable) and error.absent:
            passing = self._patient or self._reached
        passing = passing and not self._stopped
        wait = self.backoff.wait(failed, asked, self._chance) if passing else None
        if wait is None or not isinstance(error, Refused | Unreachable):
            raise error
        self._told(f"{error}; trying again in {wait:.1f} s")
        self._sleep(wait)

    def rest(self, seconds: float) -> float:
        """Wait so long before a question is asked again; gives the seconds."""
        self._sleep(seconds)
        return seconds

    def once(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        *,
        accept: tuple[int, ...] = (200,),
    ) -> Answer:
        """As `ask`, and one attempt alone (two where a kept connection was stale)."""
        answer = self._exchange(method, target, dict(headers or {}), body)
        if answer.code in accept:
            return answer
        raise self._refusal(answer, method, target)

    def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: Body
    ) -> Answer:
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            connection = kept or self._connect()
            self._used.add(connection)
            try:
                return self._send(connection, method, target, headers, body)
            except (OSError, http.client.HTTPException) as error:
                self._returned(connection, False)
                # A server may end a kept connection just when it is used again.
                if kept is None or not isinstance(error, ConnectionError):
                    why = reason(error)
                    raise Unreachable(f"{self.endpoint}: {why}") from error
            except BaseException:
                self._returned(connection, False)
                raise

    def _connect(self) -> http.client.HTTPConnection:
        if self._stopped:
            raise Unreachable("stopped")
        host, port = self.endpoint.host, self.endpoint.port
        connection: http.client.HTTPConnection
        if self.endpoint.tls:
            with self._lock:
                self._context = self._context or self._trust()
            connection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT, context=self._context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            failure = Unreachable(
                f"{self.endpoint}: {reason(error)}; is the service running, and is "
                "--endpoint right?"
            )
            failure.absent = True
            raise failure from error
        connection.sock.settimeout(IDLE)
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: dict[str, str],
        body: Body,
    ) -> Answer:
        head = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
        if self._authorization is not None:
            head.setdefault("Authorization", self._authorization)
        chunked = False
        if isinstance(body, bytes):
            if body or method in ("PUT", "POST"):
                head["Content-Length"] = str(len(body))
        elif "Content-Length" not in head:
            head["Transfer-Encoding"] = "chunked"
            chunked = True
        connection.putrequest(
            method, target, skip_host="Host" in head, skip_accept_encoding=True
        )
        for name, value in head.items():
            connection.putheader(name, value)
        whole = True
        try:
            if isinstance(body, bytes):
                connection.endheaders(body or None)
            else:
                connection.endheaders(
                    self._until_answered(connection, body()), encode_chunked=chunked
                )
        except (BrokenPipeError, ConnectionResetError):
            # What the server said before it stopped listening is still to be read.
            whole = False
        raw = connection.getresponse()
        raw.will_close = raw.will_close or not whole
        self._reached = True
        return Answer(raw, connection, self._returned)

    def _until_answered(
        self,
        connection: http.client.HTTPConnection,
        body: Iterable[bytes | memoryview],
    ) -> Iterable[bytes | memoryview]:
        """The body, ended early when the server has already answered."""
        for chunk in body:
            # Over TLS a readable socket may hold a session ticket and no answer.
            if not self.endpoint.tls and select.select([connection.sock], [], [], 0)[0]:
                raise BrokenPipeError("answered early")
            yield chunk

    def _returned(self, connection: http.client.HTTPConnection, again: bool) -> None:
        self._used.discard(connection)
        if again:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.close()

    def _refusal(self, answer: Answer, method: str, target: str) -> Refused:
        wait = retry_after(answer.header("Retry-After"), self.wall())
        slug, detail = "", ""
        try:
            if method == "HEAD":
                answer.close()
            else:
                problem = json.loads(answer.read(MAX_PROBLEM))
                slug = str(problem.get("type", "")).removeprefix("urn:ostore:problem:")
                detail = str(problem.get("detail", "") or problem.get("title", ""))
        except (Unreachable, ValueError, AttributeError, RecursionError):
            pass
        reason = http.client.responses.get(answer.code, "")
        text = f"the server said {answer.code} {detail or reason}".rstrip()
        path = target.partition("?")[0]
        if path.startswith("/objects/") and path != "/objects/":
            text = f"{unquote(path.removeprefix('/objects/'))}: {text}"
        if slug == "deleted" or answer.header("X-Ostore-Delete-Marker"):
            text += "; `ostore versions` shows what there was"
        kind = Missing if answer.code == 404 else Refused
        return kind(text, answer.code, slug, wait)
