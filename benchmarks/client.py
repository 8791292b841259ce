"""A lean HTTP client on plain sockets; runs in a process of its own.

Every function takes the port first and returns plain values, so that a pool can
call it. Bodies are random bytes: new to the store, and not compressible.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

PIECE = 1 << 20
SMALL = 4096
_TIMEOUT = 120


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(_TIMEOUT)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))

    def head(self, method: str, target: str, length: int | None = None) -> bytes:
        """The head of a request."""
        body = "" if length is None else f"Content-Length: {length}\r\n"
        return f"{method} {target} HTTP/1.1\r\nHost: bench\r\n{body}\r\n".encode()

    def answer(self) -> tuple[int, int, bytes]:
        """Status, Content-Length, and what came behind the head."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError(f"closed within the head: {data[:200]!r}")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return int(lines[0].split()[1]), length, rest

    def finish(self, expected: int) -> bytes:
        """The whole small body of an answer with that status."""
        status, length, body = self.answer()
        while len(body) < length:
            body += self.socket.recv(length - len(body))
        if status != expected:
            raise ConnectionError(f"status {status}, not {expected}: {body[:300]!r}")
        return body

    def close(self) -> None:
        """End it."""
        self.socket.close()


def noise(size: int) -> Iterator[bytes]:
    """Random pieces, made as they are asked for."""
    while size:
        piece = os.urandom(min(PIECE, size))
        size -= len(piece)
        yield piece


def put(port: int, target: str, size: int) -> tuple[float, str]:
    """Seconds of a PUT whose bytes were made beforehand, and their SHA-256."""
    content = memoryview(os.urandom(size))
    digest = hashlib.sha256(content).hexdigest()
    connection = Connection(port)
    started = time.perf_counter()
    connection.socket.sendall(connection.head("PUT", target, size))
    connection.socket.sendall(content)
    connection.finish(200)
    took = time.perf_counter() - started
    connection.close()
    return took, digest


def put_stream(port: int, target: str, size: int) -> None:
    """PUT bytes that are made while they are sent: no memory here, no fair clock."""
    connection = Connection(port)
    connection.socket.sendall(connection.head("PUT", target, size))
    for piece in noise(size):
        connection.socket.sendall(piece)
    connection.finish(200)
    connection.close()


def get(port: int, target: str, digest: str | None = None) -> float:
    """Seconds of a GET; with a digest the bytes are checked against it."""
    connection = Connection(port)
    buffer = memoryview(bytearray(PIECE))
    started = time.perf_counter()
    connection.socket.sendall(connection.head("GET", target))
    status, length, rest = connection.answer()
    if status != 200:
        raise ConnectionError(f"status {status}, not 200")
    hasher = hashlib.sha256(rest)
    left = length - len(rest)
    while left:
        count = connection.socket.recv_into(buffer)
        if not count:
            raise ConnectionError(f"closed with {left} bytes to come")
        left -= count
        if digest is not None:
            hasher.update(buffer[:count])
    took = time.perf_counter() - started
    connection.close()
    if digest is not None and hasher.hexdigest() != digest:
        raise ConnectionError("the bytes read are not the bytes written")
    return took


def together(
    clients: int, begin: Callable[[int], Callable[[], list[float]]]
) -> tuple[float, list[float]]:
    """Wall seconds of so many threads at once, and the latencies that they give.

    Each runs what `begin` gave for its number, once all have begun.
    """
    latencies: list[float] = []
    failed: list[Exception] = []
    barrier = threading.Barrier(clients + 1)

    def run(number: int) -> None:
        try:
            work = begin(number)
            barrier.wait()
            latencies.extend(work())
        except (OSError, threading.BrokenBarrierError) as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        raise failed[0] from None
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    return took, latencies


def small(
    port: int, method: str, prefix: str, clients: int, each: int
) -> tuple[float, list[float]]:
    """Wall seconds of clients x each requests of 4 KiB, and each one's latency."""
    bodies = [[os.urandom(SMALL) for _ in range(each)] for _ in range(clients)]

    def begin(client: int) -> Callable[[], list[float]]:
        connection = Connection(port)

        def run() -> list[float]:
            latencies = []
            for number, body in enumerate(bodies[client]):
                target = f"{prefix}/{client}/{number}"
                sent = time.perf_counter()
                if method == "PUT":
                    head = connection.head("PUT", target, SMALL)
                    connection.socket.sendall(head + body)
                else:
                    connection.socket.sendall(connection.head("GET", target))
                connection.finish(200)
                latencies.append(time.perf_counter() - sent)
            connection.close()
            return latencies

        return run

    return together(clients, begin)


def slow_get(port: int, target: str, clients: int, seconds: float) -> None:
    """Read one large object `clients` times, 16 KiB each 0.1 s, then walk away."""
    connections = [Connection(port, 65536) for _ in range(clients)]
    for connection in connections:
        connection.socket.sendall(connection.head("GET", target))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for connection in connections:
            connection.socket.recv(16384)
        time.sleep(0.1)
    for connection in connections:
        connection.close()


def slow_put(port: int, prefix: str, clients: int, seconds: float) -> None:
    """Upload `clients` objects, 64 KiB each 0.1 s, and walk away before the end."""
    connections = [Connection(port) for _ in range(clients)]
    for number, connection in enumerate(connections):
        head = connection.head("PUT", f"{prefix}/{number}", 1 << 30)
        connection.socket.sendall(head)
        connection.socket.setblocking(False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _, ready, _ = select.select([], [c.socket for c in connections], [], 0.1)
        for one in ready:
            one.send(os.urandom(65536))
        time.sleep(0.1)
    for connection in connections:
        connection.close()


def fetch(port: int, target: str) -> bytes:
    """The body of a small answer."""
    connection = Connection(port)
    connection.socket.sendall(connection.head("GET", target))
    body = connection.finish(200)
    connection.close()
    return body


def digest_header(digest: str) -> str:
    """RFC 3230 text of a hex SHA-256."""
    return "SHA-256=" + base64.b64encode(bytes.fromhex(digest)).decode()
