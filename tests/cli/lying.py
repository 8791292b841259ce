"""A service that says whatever a test wants."""

from __future__ import annotations

import hashlib
import json
import socketserver
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs

from tests.cli.support import CommandTestCase


@attrs.frozen
class Asked:
    """A request that came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Said:
    """What is answered: `body` is cut after `sent` bytes; None code: only raw bytes."""

    code: int | None = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    sent: int | None = None
    early: bool = False
    """Before the body was read."""


Script = Callable[[Asked, int], Said]
"""The answer to a request; the number counts from 0."""


def thing(content: bytes, /, claimed: bytes | None = None, **headers: str) -> Said:
    """An object whose headers are about `claimed`."""
    found = {
        "ETag": f'"{hashlib.sha256(content if claimed is None else claimed).hexdigest()}"',
        "X-Ostore-Version": "1",
        **headers,
    }
    return Said(200, found, content)


def ranged(said: Said, asked: Asked) -> Said:
    """The part of it that was asked for."""
    span = asked.headers.get("Range")
    if span is None or not said.body:
        return said
    first, last = span.removeprefix("bytes=").split("-")
    size = len(said.body)
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first else size
    headers = {**said.headers, "Content-Range": f"bytes {begin}-{end - 1}/{size}"}
    return attrs.evolve(said, code=206, headers=headers, body=said.body[begin:end])


def made(content: bytes, number: int = 1) -> Said:
    """The answer to a write."""
    hash = b64encode(hashlib.sha256(content).digest()).decode()
    version = {
        "name": "x",
        "version": number,
        "size": len(content),
        "hash": hash,
        "created": "2026-01-01T00:00:00.000Z",
        "deleted": False,
    }
    return Said(body=json.dumps(version).encode())


def problem(code: int, slug: str, detail: str, **headers: str) -> Said:
    """A refusal."""
    body = {"type": f"urn:ostore:problem:{slug}", "detail": detail, "status": code}
    return Said(code, headers, json.dumps(body).encode())


class LyingTestCase(CommandTestCase):
    """With `script` as the service, and `asked` what came."""

    script: Script

    def setUp(self) -> None:
        """Begin to listen."""
        super().setUp()
        self.asked: list[Asked] = []
        case, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                asked = Asked(self.command, self.path, dict(self.headers.items()), b"")
                with lock:
                    number = len(case.asked)
                    case.asked.append(asked)
                said = case.script(asked, number)
                if not said.early:
                    asked = attrs.evolve(asked, body=self.taken())
                    case.asked[number] = asked
                    said = case.script(asked, number)
                self.say(said)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815  # the base class's names

            def taken(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def say(self, said: Said) -> None:
                if said.code is None:
                    self.wfile.write(said.body)
                    self.close_connection = True
                    return
                self.send_response_only(said.code)
                headers = {"Content-Length": str(len(said.body)), **said.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                if said.sent is not None or said.early:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said.body[: said.sent])

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = True

            def handle_error(self, *_: object) -> None:
                """A client that went away is no news."""

        server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(socketserver.BaseServer.shutdown, server)
        self.addCleanup(server.socket.close)
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
