"""Lean clients on plain sockets, many in a process.

They share an epoll and one turn; small requests are built beforehand. Contents follow
from their names, so whoever reads one can check it: what cannot be compressed, with a
digest of its own in the first bytes of each tile of 256 KiB. Small bodies are compared
whole, large ones in these bytes, and whole in one tile of 16. Whatever is not as
expected ends the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence

import attrs

TILE = 256 << 10
NOISE = random.Random("ostore").randbytes(TILE)
MIX = ("GET",) * 9 + ("HEAD",) * 6 + ("PUT",) * 3 + ("DELETE",) * 2
"""What `MIXED` draws from; a name is deleted after it was put in the same run."""
MARK = 32
PAGE = 1000
_CHECKED = 16
_PATIENCE = 120.0
_HEAD = 16 << 10
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n")
_NEXT = re.compile(rb'"next": ?(?:"([^"]*)"|null)')


@attrs.frozen
class Job:
    """Clients that do one kind of work, each until `each` requests or `seconds`.

    PUTs go below `writes`, by client and turn. Everything else reads below `reads`, in
    turn, what so many clients put there, each this many (`readable`). LIST is the
    pages of 1,000 names below `reads`.
    """

    port: int
    method: str
    size: int
    numbers: Sequence[int]
    each: int
    seconds: float
    writes: str
    reads: str = ""
    readable: Sequence[int] = ()


@attrs.frozen
class Result:
    """When the first and the last began and ended, and what was done by each client."""

    began: float
    ended: float
    cpu: float
    latencies: Sequence[float]
    done: Sequence[int]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / (self.ended - self.began)

    def slower_than(self, share: float) -> float:
        """The latency that this share of all requests stays below."""
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))]


def mark(name: str, tile: int) -> bytes:
    """The first bytes of a tile of the content of that name."""
    return hashlib.sha256(f"{name} {tile}".encode()).digest()


def content(name: str, size: int) -> Iterator[bytes]:
    """The content of that name, in tiles."""
    for tile in range(0, size, TILE):
        yield mark(name, tile // TILE) + NOISE[MARK : min(TILE, size - tile)]


@attrs.frozen
class Request:
    """One of them: what is sent, but for a large body that follows."""

    method: str
    name: str
    data: bytes


class Client:
    """One connection that makes its requests in turn; `run` calls it."""

    def __init__(self, job: Job, number: int) -> None:
        self.latencies: list[float] = []
        self.socket = socket.create_connection(("127.0.0.1", job.port), _PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._size = job.size
        self._large = job.size > TILE
        planned = requests(job, number)
        self._requests = planned if self._large else iter(list(planned))
        self._tail = NOISE[MARK : job.size]
        self._buffer = bytearray(TILE + 2 * _HEAD)
        self._view = memoryview(self._buffer)
        self._request = Request("", "", b"")
        self._output = memoryview(b"")
        self._unsent: Iterator[bytes] = iter(())
        self._began = 0.0
        self._filled = 0
        self._body = 0
        self._left = -1  # of a body; below 0 while the head is awaited
        self._tile = 0

    def begin(self) -> bool:
        """Turn to the next request; False after the last."""
        request = next(self._requests, None)
        if request is None:
            return False
        self._request = request
        self._filled, self._left, self._tile = 0, -1, 0
        if self._large and request.method == "PUT":
            self._unsent = content(request.name, self._size)
        self._began = time.perf_counter()
        self._output = memoryview(request.data)
        return True

    def send(self) -> bool:
        """Send what the socket takes; whether all is sent."""
        while True:
            try:
                count = self.socket.send(self._output)
            except BlockingIOError:
                return False
            self._output = self._output[count:]
            if not self._output:
                more = next(self._unsent, None)
                if more is None:
                    return True
                self._output = memoryview(more)

    def receive(self) -> bool:
        """Take what has come; whether the answer is complete."""
        tiles = self._large and self._left >= 0
        room = min(TILE - self._filled, self._left) if tiles else _HEAD
        count = self.socket.recv_into(self._view[self._filled :], room)
        if not count:
            raise self._wrong("closed")
        self._filled += count
        if self._left < 0:
            self._take_head()
        else:
            self._left -= count
        if self._left < 0:
            return False
        if self._request.method == "GET":
            self._check()
        if self._left:
            return False
        self.latencies.append(time.perf_counter() - self._began)
        return True

    def _take_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled) + 4
        if end < 4:
            return
        method = self._request.method
        found = _LENGTH.search(self._buffer, 0, end)
        length = int(found[1]) if found else 0
        if not self._buffer.startswith(b"200", 9):
            raise self._wrong("refused")
        if method in {"GET", "HEAD"} and length != self._size:
            raise self._wrong(f"{length} bytes")
        self._left = 0 if method == "HEAD" else length - (self._filled - end)
        self._body = end
        if self._large and method == "GET":
            self._view[: self._filled - end] = bytes(self._view[end : self._filled])
            self._filled -= end

    def _check(self) -> None:
        """Compare a small body that is complete, or a tile that is."""
        buffer, at = self._buffer, 0 if self._large else self._body
        if self._left and (not self._large or self._filled < TILE):
            return
        right = buffer.startswith(mark(self._request.name, self._tile), at)
        if self._tile % _CHECKED == 0:
            tail = NOISE[MARK : self._filled] if self._large else self._tail
            right &= buffer.startswith(tail, at + MARK)
        if not right:
            raise self._wrong("other bytes than were written")
        self._tile, self._filled = self._tile + 1, 0

    def _wrong(self, what: str) -> ConnectionError:
        said = bytes(self._buffer[: min(self._filled, 600)])
        return ConnectionError(
            f"{self._request.method} {self._request.name}: {what}; {said!r}"
        )


def requests(job: Job, number: int) -> Iterator[Request]:
    """What that client does, in its order."""
    chance, put = random.Random(number), list[str]()
    for turn in range(job.each):
        method = chance.choice(MIX) if job.method == "MIXED" else job.method
        if method == "DELETE" and not put:
            method = "PUT"
        if method == "PUT":
            name = f"{job.writes}/{number}/{turn}"
            put.append(name)
        elif method == "DELETE":
            name = put.pop(0)
        else:
            writer = number % len(job.readable)
            name = f"{job.reads}/{writer}/{(number + turn) % job.readable[writer]}"
        length = f"Content-Length: {job.size}\r\n" if method == "PUT" else ""
        head = f"{method} /objects/{name} HTTP/1.1\r\nHost: bench\r\n{length}\r\n"
        data = head.encode()
        if method == "PUT" and job.size <= TILE:
            data += b"".join(content(name, job.size))
        yield Request(method, name, data)


def run(clients: Sequence[Client], seconds: float) -> tuple[float, float]:
    """Have them all make their requests; when the first began and the last ended."""
    with contextlib.closing(select.epoll()) as poll:
        by_number = {each.socket.fileno(): each for each in clients}
        both = select.EPOLLIN | select.EPOLLOUT
        began = time.perf_counter()
        for number, client in by_number.items():
            client.begin()
            poll.register(number, select.EPOLLIN if client.send() else both)
        left = len(clients)
        while left:
            events = poll.poll(_PATIENCE)
            if not events:
                raise ConnectionError(f"no answer within {_PATIENCE:.0f} s")
            for number, event in events:
                client = by_number[number]
                if event & select.EPOLLOUT and client.send():
                    poll.modify(number, select.EPOLLIN)
                if not event & ~select.EPOLLOUT or not client.receive():
                    continue
                if time.perf_counter() - began >= seconds or not client.begin():
                    poll.unregister(number)
                    left -= 1
                elif not client.send():
                    poll.modify(number, both)
        return began, time.perf_counter()


def listed(job: Job) -> Result:
    """All names below a prefix, page by page; what they are is looked at afterwards."""
    expected = sorted(
        f"{job.reads}/{client}/{turn}"
        for client, count in enumerate(job.readable)
        for turn in range(count)
    )
    connection = socket.create_connection(("127.0.0.1", job.port), _PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pages, after = list[bytes](), b""
    used, began = time.process_time(), time.perf_counter()
    for _ in range(len(expected) // PAGE + 1):
        query = f"prefix={job.reads}/&limit={PAGE}&after={after.decode()}"
        head = f"GET /objects/?{query} HTTP/1.1\r\nHost: bench\r\n\r\n"
        connection.sendall(head.encode())
        pages.append(_whole(connection))
        found = _NEXT.findall(pages[-1])
        if not found or not found[-1]:
            break
        after = found[-1]
    ended, used = time.perf_counter(), time.process_time() - used
    connection.close()
    names = [item["name"] for page in pages for item in json.loads(page)["items"]]
    if names != expected:
        raise ConnectionError(f"{len(names)} names are listed, or others than written")
    return Result(began, ended, used, [ended - began], [1])


def _whole(connection: socket.socket) -> bytes:
    """The body of an answer."""
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data):
        more = connection.recv(1 << 20)
        if not more:
            raise ConnectionError(f"closed within {bytes(data[:300])!r}")
        data += more
    if not data.startswith(b"200", 9):
        raise ConnectionError(f"no page: {bytes(data[:300])!r}")
    return bytes(data[end + 4 :])


def _length(data: bytearray) -> int:
    found = _LENGTH.search(data)
    return int(found[1]) if found else 0
