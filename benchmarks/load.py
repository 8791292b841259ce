"""A load generator that does not limit: clients on plain sockets, many in a process.

Sixteen clients share a process, an epoll and one turn; small requests are built
beforehand. Contents follow from their names, so whoever reads one can check it: what
cannot be compressed, with a digest of its own in the first bytes of each tile of
256 KiB. Small bodies are compared whole, large ones in these bytes, and whole in one
tile of 16. Whatever is not as expected ends the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import random
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import attrs

TILE = 256 << 10
NOISE = random.Random("ostore").randbytes(TILE)
MIX = ("GET",) * 9 + ("HEAD",) * 6 + ("PUT",) * 3 + ("DELETE",) * 2
"""What `MIXED` draws from; a name is deleted after it was put in the same run."""
MARK = 32
AT_ONCE = 16
MOST_PROCESSES = 4
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


class Client:
    """One connection that makes its requests in turn; `run` calls it."""

    def __init__(self, job: Job, number: int) -> None:
        self.latencies: list[float] = []
        self.socket = socket.create_connection(("127.0.0.1", job.port), _PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._job = job
        self._size = job.size
        self._large = job.size > TILE
        self._requests = iter(self._plan(number))
        self._buffer = bytearray(TILE + 2 * _HEAD)
        self._view = memoryview(self._buffer)
        self._output = memoryview(b"")
        self._unsent: Iterator[bytes] = iter(())
        self._expected: tuple[bool, str, bytes] = (False, "", b"")
        self._began = 0.0
        self._filled = 0
        self._left = -1  # of a body; below 0 while the head is awaited
        self._tile = 0

    def begin(self) -> bool:
        """Send the next request; False after the last."""
        request = next(self._requests, None)
        if request is None:
            return False
        method, name, head, first = request
        self._expected = method == "GET", name, first
        self._filled, self._left, self._tile = 0, -1, 0
        self._unsent = iter(())
        if self._large and method == "PUT":
            self._unsent = content(name, self._size)
        self._began = time.perf_counter()
        self._output = memoryview(head)
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
        large = self._large and self._left >= 0
        room = min(TILE - self._filled, self._left) if large else _HEAD
        count = self.socket.recv_into(self._view[self._filled :], room)
        if not count:
            raise ConnectionError(f"closed within {bytes(self._buffer[:300])!r}")
        self._filled += count
        if large:
            self._left -= count
            self._check_tiles()
        elif self._left < 0:
            self._take_head()
        else:
            self._left -= count
            if self._left == 0 and self._expected[0]:
                self._check_small()
        if self._left != 0:
            return False
        self.latencies.append(time.perf_counter() - self._began)
        return True

    def _take_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n", 0, self._filled) + 4
        if end < 4:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        size = int(length[1]) if length else 0
        read, name, _ = self._expected
        if not self._buffer.startswith(b"200", 9) or (read and size != self._size):
            said = bytes(self._buffer[: min(self._filled, 600)])
            raise ConnectionError(f"not the answer expected for {name}: {said!r}")
        self._body = end
        if not read and name.startswith("HEAD "):
            if size != self._size:
                raise ConnectionError(f"{name} has {size} bytes, not {self._size}")
            self._left = 0
            return
        self._left = size - (self._filled - end)
        if not read:
            return
        if self._large:
            self._view[: self._filled - end] = bytes(self._view[end : self._filled])
            self._filled -= end
            self._check_tiles()
        elif self._left == 0:
            self._check_small()

    def _check_small(self) -> None:
        _, name, first = self._expected
        at, buffer = self._body, self._buffer
        if not (
            buffer.startswith(first, at)
            and buffer.startswith(NOISE[MARK : self._size], at + MARK)
        ):
            raise ConnectionError(f"the bytes of {name} are not those written")

    def _check_tiles(self) -> None:
        if not self._expected[0] or (self._left and self._filled < TILE):
            return
        name, tile = self._expected[1], self._tile
        right = self._buffer.startswith(mark(name, tile))
        if tile % _CHECKED == 0:
            right &= self._buffer.startswith(NOISE[MARK : self._filled], MARK)
        if not right:
            raise ConnectionError(f"the bytes of {name} are not those written")
        self._tile, self._filled = tile + 1, 0

    def _plan(self, number: int) -> Iterator[tuple[str, str, bytes, bytes]]:
        """Method, name, all that is sent of small requests, and a body's first bytes."""
        small = [] if self._large else list(self._requests_of(number))
        return iter(small) if small else self._requests_of(number)

    def _requests_of(self, number: int) -> Iterator[tuple[str, str, bytes, bytes]]:
        job, chance, put = self._job, random.Random(number), list[str]()
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
                own = (number + turn) % job.readable[writer]
                name = f"{job.reads}/{writer}/{own}"
            length = f"Content-Length: {job.size}\r\n" if method == "PUT" else ""
            head = f"{method} /objects/{name} HTTP/1.1\r\nHost: bench\r\n{length}\r\n"
            request = head.encode()
            if method == "PUT" and not self._large:
                request += b"".join(content(name, job.size))
            first = mark(name, 0) if method == "GET" else b""
            yield method, f"HEAD {name}" if method == "HEAD" else name, request, first


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
    data = bytearray()
    end = wanted = 0
    while not end or len(data) < wanted:
        more = connection.recv(1 << 20)
        data += more
        if not end and (end := data.find(b"\r\n\r\n") + 4) >= 4:
            length = _LENGTH.search(data, 0, end)
            wanted = end + int(length[1]) if length else end
        end = max(end, 0) if end >= 4 else 0
        if not more or (end and not data.startswith(b"200", 9)):
            raise ConnectionError(f"no page: {bytes(data[:300])!r}")
    return bytes(data[end:])


def serve(pipe: Connection) -> None:
    """A process of clients: takes jobs, says when it is ready, begins when told."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            job: Job = pipe.recv()
            try:
                pipe.send(_done(job, pipe))
            except Exception as error:  # noqa: BLE001 - whoever gave the job raises it
                pipe.send(ConnectionError(f"{job.method} {job.size}: {error!r}"))


def _done(job: Job, pipe: Connection) -> Result:
    clients = [] if job.method == "LIST" else [Client(job, n) for n in job.numbers]
    pipe.send("ready")
    pipe.recv()
    if job.method == "LIST":
        return listed(job)
    used = time.process_time()
    began, ended = run(clients, job.seconds)
    used = time.process_time() - used
    for client in clients:
        client.socket.close()
    latencies = [took for client in clients for took in client.latencies]
    return Result(began, ended, used, latencies, [len(c.latencies) for c in clients])


class Load:
    """Processes of clients, from the block's begin to its end."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

    def __enter__(self) -> Load:
        for _ in range(MOST_PROCESSES):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join()

    def do(self, job: Job) -> Result:
        """The work of all clients together. Raises ConnectionError."""
        count = min(MOST_PROCESSES, -(-len(job.numbers) // AT_ONCE))
        pipes = self._pipes[:count]
        for number, pipe in enumerate(pipes):
            pipe.send(attrs.evolve(job, numbers=job.numbers[number::count]))
        self._answers(pipes)
        for pipe in pipes:
            pipe.send("go")
        found: list[Result] = self._answers(pipes)
        done = [0] * len(job.numbers)
        for number, each in enumerate(found):
            done[number::count] = each.done
        return Result(
            min(each.began for each in found),
            max(each.ended for each in found),
            sum(each.cpu for each in found),
            [took for each in found for took in each.latencies],
            done,
        )

    def _answers(self, pipes: Sequence[Connection]) -> list[Any]:
        answers = [pipe.recv() for pipe in pipes]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers
