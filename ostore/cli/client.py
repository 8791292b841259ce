"""A synchronous HTTP/1.1 client, made for large bodies on both ways.

It stands on `http.client` of the standard library: a command that moves files needs
no event loop, a thread for each of a few connections is enough, and a reactor would
make every start slower and every fault harder to tell in one line. Measured here,
`http.client` is imported in 25 ms; `httpx` takes five times that and copies every
chunk twice. What is missing there is added: kept connections, attempts with back-off,
answers that come while the body is still being sent, and bodies read into a buffer.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from ostore import __version__
from ostore.cli.backoff import RETRIED, Backoff, retry_after
from ostore.cli.failures import Failure, Missing, Misused, Refused, Unreachable

CHUNK = 1 << 20
"""Bytes read or sent at once."""
MAX_JSON = 64 << 20
"""Bytes of an answer that is read whole: a page of 1000 names with all headers."""
MAX_PROBLEM = 64 << 10
CONNECT, IDLE = 10.0, 65.0
"""Seconds to connect; seconds a server may say and take nothing."""
AGENT = f"ostore/{__version__}"

Body = bytes | Callable[[], Iterable[bytes | memoryview]]
"""Bytes, or what begins them anew for each attempt."""


@attrs.frozen
class Endpoint:
    """Where the service is."""

    tls: bool
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From a URL, or from host:port. Raises Misused."""
        try:
            url: SplitResult = urlsplit(text if "://" in text else f"http://{text}")
            port = url.port
        except ValueError:
            raise _bad_endpoint(text) from None
        extra = url.path.rstrip("/") or url.query or url.fragment or url.username
        if url.scheme not in ("http", "https") or not url.hostname or extra:
            raise _bad_endpoint(text)
        tls = url.scheme == "https"
        return cls(tls, url.hostname, port or (443 if tls else 80))

    @property
    def authority(self) -> str:
        """Host and port as `http.client` sends them in Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The URL."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def _bad_endpoint(text: str) -> Misused:
    return Misused(
        f"endpoint {text!a} cannot be used: allowed is http://HOST:PORT or "
        "https://HOST:PORT"
    )


class Answer:
    """One answer, its body unread; whoever asked closes it, or reads it to its end.

    Made by Client alone. A body read to its end leaves the connection for others.
    """

    def __init__(
        self,
        raw: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        done: Callable[[http.client.HTTPConnection, bool], None],
    ) -> None:
        self.code = raw.status
        self.headers = raw.headers
        self._raw = raw
        self._connection = connection
        self._done: Callable[[http.client.HTTPConnection, bool], None] | None = done

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return self.headers.get(name)

    def number(self, name: str) -> int | None:
        """The value of a header that is a number; None without one."""
        text = self.header(name)
        return int(text) if text and text.isascii() and text.isdigit() else None

    def into(self, buffer: memoryview) -> int:
        """Read some of the body; 0 at its end. Raises Unreachable when it is cut."""
        try:
            count = self._raw.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"the answer was cut: {_reason(error)}") from error
        if count == 0:
            missing = self._raw.length
            self._leave(not missing)
            if missing:
                raise Unreachable(f"the answer was cut {missing} bytes before its end")
        return count

    def read(self, limit: int) -> bytes:
        """The whole body. Raises Unreachable when it is cut or longer than `limit`."""
        parts: list[bytes] = []
        buffer = memoryview(bytearray(min(limit + 1, CHUNK)))
        held = 0
        while count := self.into(buffer):
            parts.append(bytes(buffer[:count]))
            held += count
            if held > limit:
                self.close()
                raise Unreachable(f"an answer of more than {limit} bytes")
        return b"".join(parts)

    def json(self) -> Any:
        """The body as JSON. Raises Unreachable when it is none."""
        try:
            return json.loads(self.read(MAX_JSON))
        except ValueError as error:
            raise Unreachable("the answer is not JSON: is this an ostore?") from error

    def close(self) -> None:
        """Let go of the connection."""
        self._leave(False)

    def _leave(self, whole: bool) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            again = whole and not self._raw.will_close
            self._raw.close()
            done(self._connection, again)


class Client:
    """Asks one endpoint, over connections that are kept; threads may share it.

    Made once a command; `close` ends it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        wall: Callable[[], float],
        sleep: Callable[[float], object],
        chance: Callable[[], float],
        backoff: Backoff,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.endpoint = endpoint
        self.wall = wall
        self.backoff = backoff
        self._sleep = sleep
        self._chance = chance
        self._trust = trust
        self._context: ssl.SSLContext | None = None
        self._told = told
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

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
            try:
                return self._send(connection, method, target, headers, body)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # A server may end a kept connection just when it is used again.
                if kept is None:
                    why = _reason(error)
                    raise Unreachable(f"{self.endpoint}: {why}") from error
            except BaseException:
                connection.close()
                raise

    def _connect(self) -> http.client.HTTPConnection:
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
            raise Unreachable(
                f"{self.endpoint}: {_reason(error)}; is the service running, and is "
                "--endpoint right?"
            ) from error
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
        try:
            if isinstance(body, bytes):
                connection.endheaders(body or None)
            else:
                connection.endheaders(
                    self._until_answered(connection, body()), encode_chunked=chunked
                )
        except (BrokenPipeError, ConnectionResetError):
            # What the server said before it stopped listening is still to be read.
            raw = connection.getresponse()
        else:
            raw = connection.getresponse()
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
        except (Unreachable, ValueError, AttributeError):
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


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({error.verify_message}); see ca-file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
