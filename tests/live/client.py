"""A blocking HTTP client for stories: one connection a request, every wait bounded."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

PATIENCE = 75.0
"""Seconds without any byte after which a request has failed."""

Headers = Sequence[tuple[str, str]]


@attrs.frozen
class Answer:
    """One whole answer; names of headers are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Cut(OSError):
    """The connection ended before the answer did; `got` came of the body."""

    def __init__(self, why: object, got: bytes = b"") -> None:
        super().__init__(f"cut: {why!r}")
        self.got = got


class Asking:
    """One request in steps: head and body out, answer in; ends with `close`."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE)
        try:
            self._connect(port, receive_buffer)
        except OSError as error:
            raise Cut(error) from error
        self._answer: http.client.HTTPResponse | None = None

    def _connect(self, port: int, receive_buffer: int) -> None:
        if receive_buffer:
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            raw.settimeout(PATIENCE)
            raw.connect(("127.0.0.1", port))
            self._connection.sock = raw
        else:
            self._connection.connect()

    def head(self, method: str, target: str, headers: Headers, size: int) -> None:
        """Send the head; a body of `size` bytes follows, none when it is negative."""
        with self._cut():
            named = any(name.lower() == "host" for name, _ in headers)
            self._connection.putrequest(
                method, target, skip_accept_encoding=True, skip_host=named
            )
            for name, value in headers:
                self._connection.putheader(name, value)
            if size >= 0:
                self._connection.putheader("Content-Length", str(size))
            self._connection.endheaders()

    def send(self, data: bytes) -> None:
        """Send some of the body. Raises Cut."""
        with self._cut():
            self._connection.send(data)

    def begin(self) -> int:
        """Wait for the answer's head; its status. Raises Cut."""
        with self._cut():
            self._answer = self._connection.getresponse()
        return self._answer.status

    def read(self, size: int | None = None) -> bytes:
        """So many bytes of the answer's body, or the rest of it. Raises Cut."""
        assert self._answer is not None
        with self._cut():
            got = self._answer.read(size)
        if size is not None and len(got) < size:
            raise Cut("early end", got)
        return got

    def answer(self) -> Answer:
        """The whole answer. Raises Cut."""
        if self._answer is None:
            self.begin()
        body = self.read()
        assert self._answer is not None
        headers = {k.lower(): v for k, v in self._answer.getheaders()}
        return Answer(self._answer.status, headers, body)

    def close(self) -> None:
        """Cut the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _cut(self) -> Iterator[None]:
        try:
            yield
        except http.client.IncompleteRead as error:
            raise Cut(error, error.partial) from error
        except (OSError, http.client.HTTPException) as error:
            raise Cut(error) from error


def ask(
    port: int,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes | None = None,
) -> Answer:
    """One request and its whole answer. Raises Cut."""
    with contextlib.closing(Asking(port)) as asking:
        asking.head(method, target, headers, -1 if body is None else len(body))
        if body:
            try:
                asking.send(body)
            except Cut:  # refused early: the answer may be there all the same
                return asking.answer()
        return asking.answer()
