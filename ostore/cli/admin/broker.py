"""Whether a RabbitMQ lets a service in: the opening of AMQP 0-9-1, and no more.

Fifty lines by hand: the services' own client needs a reactor, and this command has
none.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

from ostore.cli.admin.finding import OK, PROBLEM, Finding
from ostore.cli.answer import reason

TIMEOUT = 10.0
MAX_FRAME = 1 << 20
_HEADER = b"AMQP\x00\x00\x09\x01"
_FRAME = struct.Struct(">BHL")
_START, _START_OK, _TUNE, _TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
_OPEN, _OPEN_OK, _CLOSE = (10, 40), (10, 41), (10, 50)


class NoBroker(Exception):
    """What came is no AMQP; or what the broker said when it refused."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


def broker(url: str, trust: Callable[[], ssl.SSLContext]) -> Finding:
    """What one URL of `rabbitmq-server` leads to; passwords are not shown."""
    parts = urlsplit(url)
    tls = parts.scheme == "amqps"
    host, port = parts.hostname or "", parts.port or (5671 if tls else 5672)
    what = f"broker {host}:{port}"
    vhost = unquote(parts.path[1:]) or "/"
    user, password = (
        unquote(parts.username or "guest"),
        unquote(parts.password or "guest"),
    )
    try:
        with socket.create_connection((host, port), TIMEOUT) as plain:
            stream: socket.socket = plain
            if tls:
                stream = trust().wrap_socket(plain, server_hostname=host)
            with stream, stream.makefile("rwb") as file:
                version = _opened(cast("BinaryIO", file), user, password, vhost)
    except NoBroker as error:
        if error.code == 403:
            return Finding(
                what, PROBLEM, f"refuses user {user!a}", "mend rabbitmq-server's URL"
            )
        if error.code in (402, 530):
            vhosts = f"make virtual host {vhost!a} and let {user!a} in"
            return Finding(what, PROBLEM, str(error), vhosts)
        return Finding(what, PROBLEM, str(error), "is this a RabbitMQ?")
    except OSError as error:
        mend = "start it, or mend rabbitmq-server's URL"
        return Finding(what, PROBLEM, reason(error), mend)
    return Finding(what, OK, f"RabbitMQ {version} lets {user!a} in")


def _opened(file: BinaryIO, user: str, password: str, vhost: str) -> str:
    """Log in and out; the broker's version. Raises NoBroker, OSError."""
    file.write(_HEADER)
    start = _method(file, _START)
    capabilities = _short("authentication_failure_close") + b"t\x01"
    properties = _short("capabilities") + b"F" + _long(capabilities)
    response = f"\0{user}\0{password}".encode()
    login = _long(properties) + _short("PLAIN") + _long(response) + _short("en_US")
    _send(file, _START_OK, login)
    _method(file, _TUNE)
    _send(file, _TUNE_OK, struct.pack(">HLH", 1, 131072, 0))
    _send(file, _OPEN, _short(vhost) + _short("") + b"\0")
    _method(file, _OPEN_OK)
    _send(file, _CLOSE, struct.pack(">H", 200) + _short("") + struct.pack(">HH", 0, 0))
    return _version(start)


def _send(file: BinaryIO, method: tuple[int, int], rest: bytes) -> None:
    payload = struct.pack(">HH", *method) + rest
    file.write(_FRAME.pack(1, 0, len(payload)) + payload + b"\xce")
    file.flush()


def _method(file: BinaryIO, wanted: tuple[int, int]) -> bytes:
    """The arguments of the method that must come now."""
    file.flush()
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        raise NoBroker("it closed the connection")
    kind, _, size = _FRAME.unpack(head)
    if kind != 1 or not 4 <= size <= MAX_FRAME:
        raise NoBroker("it speaks something else")
    payload = file.read(size + 1)
    if len(payload) <= size or payload[-1:] != b"\xce":
        raise NoBroker("it speaks something else")
    method = struct.unpack_from(">HH", payload)
    if method == _CLOSE and size >= 7:
        (code,) = struct.unpack_from(">H", payload, 4)
        text = payload[7 : 7 + payload[6]].decode("utf-8", "replace")
        raise NoBroker(text, code)
    if method != wanted:
        raise NoBroker("it speaks something else")
    return payload[4:-1]


def _version(start: bytes) -> str:
    """The text behind the key `version` in the server's properties."""
    _, found, rest = start.partition(_short("version") + b"S")
    if not found or len(rest) < 4:
        return "of unknown version"
    (size,) = struct.unpack_from(">L", rest)
    return rest[4 : 4 + min(size, 40)].decode("utf-8", "replace")


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes([len(raw)]) + raw


def _long(raw: bytes) -> bytes:
    return struct.pack(">L", len(raw)) + raw
