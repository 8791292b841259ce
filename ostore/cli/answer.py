"""An answer of the service, read a buffer at a time."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from typing import Any

from ostore.cli.failures import Unreachable

CHUNK = 256 << 10
"""Bytes read or sent at once: what the second cache of a core holds. Buffers of 1 MiB
take twice the time of the kernel."""
MAX_JSON = 64 << 20
"""Bytes of an answer that is read whole: a page of 1000 names with all headers."""


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
            raise Unreachable(f"the answer was cut: {reason(error)}") from error
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
        except (ValueError, RecursionError) as error:
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


def reason(error: Exception) -> str:
    """What went wrong with a connection, for a person."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({error.verify_message}); see ca-file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
