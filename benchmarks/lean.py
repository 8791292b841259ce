"""Plain files over HTTP with nothing else: what a server in Python could do at most.

`python benchmarks/lean.py FOLDER` answers GET and HEAD of /objects/a/b/c with the file
a-b-c: a small one is read and sent with its head, of a large one `sendfile` sends
pages. One process, one epoll; it checks nothing, for it faces no stranger.
"""

from __future__ import annotations

import os
import select
import socket
import sys

SMALL = 64 << 10
TURN = 4 << 20
"""Bytes of one file before it is another's turn."""


class Answering:
    """One connection."""

    def __init__(self, connection: socket.socket, folder: str) -> None:
        self.connection = connection
        self._folder = folder
        self._file = -1
        self._at = 0

    def ask(self) -> bool:
        """Take a request and answer; whether all is sent. Raises ConnectionError."""
        request = self.connection.recv(65536)
        if not request:
            raise ConnectionError
        method, target, _ = request.split(b" ", 2)
        path = target[len(b"/objects/") :].replace(b"/", b"-").decode("ascii")
        file = os.open(f"{self._folder}/{path}", os.O_RDONLY)
        size = os.fstat(file).st_size
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        if method == b"HEAD" or size <= SMALL:
            body = b"" if method == b"HEAD" else os.pread(file, size, 0)
            os.close(file)
            self.connection.send(head + body)
            return True
        self.connection.send(head, socket.MSG_MORE)
        self._file, self._at = file, 0
        return self.go_on()

    def go_on(self) -> bool:
        """Send more of the file; whether all is sent."""
        end = self._at + TURN
        while self._at < end:
            try:
                count = os.sendfile(
                    self.connection.fileno(), self._file, self._at, TURN
                )
            except BlockingIOError:
                return False
            if not count:
                self._close_file()
                return True
            self._at += count
        return False

    def close(self) -> None:
        """End it."""
        self._close_file()
        self.connection.close()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def main(folder: str) -> None:
    """Serve until it is killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    port = listener.getsockname()[1]
    print(f"lean ready on http://127.0.0.1:{port}", flush=True)
    found: dict[int, Answering] = {}
    while True:
        for number, event in poll.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                found[connection.fileno()] = Answering(connection, folder)
                poll.register(connection.fileno(), select.EPOLLIN)
                continue
            one = found[number]
            try:
                if event & select.EPOLLOUT:
                    if one.go_on():
                        poll.modify(number, select.EPOLLIN)
                elif not one.ask():
                    poll.modify(number, select.EPOLLOUT)
            except ConnectionError:
                poll.unregister(number)
                del found[number]
                one.close()


if __name__ == "__main__":
    main(sys.argv[1])
