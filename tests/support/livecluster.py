"""A whole cluster on this machine: broker, search server, data and api services.

As a program (`python -m tests.support.livecluster FOLDER`) it starts one for trying
things out, says where everything is, and stops it all at Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.child import Child
from tests.support.rabbitmq import RabbitMQ
from tests.support.searchserver import SearchServer


class Service:
    """One api or data service that can die and come back on its port."""

    def __init__(self, role: str, folder: Path, words: Sequence[str]) -> None:
        self.role = role
        self._folder = folder
        self._words = list(words)
        self._starts = 0
        self.port = 0
        self.node = ""
        self.child: Child

    def start(self) -> None:
        """Start the process; it may not be ready."""
        self._starts += 1
        listen = ("--listen", f"127.0.0.1:{self.port}")
        self.child = Child(
            self._folder,
            *self._words,
            *listen,
            name=f"log-{self._starts}",
            role=self.role,
        )

    def wait(self) -> None:
        """Wait until it says that it is ready."""
        [(self.port, self.node)] = self.child.nodes()

    def freeze(self) -> None:
        """SIGSTOP: it hangs."""
        self.child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on."""
        self.child.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: it is dead."""
        self.child.kill()

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        self.child.terminate()
        return self.child.ended()


class LiveCluster:
    """Data services and apis over a broker and a metadata store that are there.

    Blocking. `close` kills what still runs.
    """

    def __init__(
        self,
        folder: Path,
        rabbitmq: str,
        metadata: Sequence[str],
        data: int = 6,
        api: int = 2,
        options: Sequence[str] = (),
    ) -> None:
        """`metadata` are options of the apis that say where it is."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.secret = folder / "secret"
        if not self.secret.exists():
            self.secret.write_text(secrets.token_hex(32) + "\n", "ascii")
        self._rabbitmq = rabbitmq
        self._metadata = list(metadata)
        self._options = list(options)
        self.data = [self._data(number) for number in range(1, data + 1)]
        self.apis = [self._api(number) for number in range(1, api + 1)]

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        for service in (*self.data, *self.apis):
            service.start()
        for service in (*self.data, *self.apis):
            service.wait()

    def add_data(self) -> Service:
        """One more data service, not yet started."""
        service = self._data(len(self.data) + 1)
        self.data.append(service)
        return service

    def close(self) -> None:
        """Kill what still runs."""
        for service in (*self.apis, *self.data):
            if hasattr(service, "child"):
                service.child.close()

    def stop(self) -> list[int]:
        """SIGTERM to all; their exit statuses."""
        return [service.stop() for service in (*self.apis, *self.data)]

    def _shared(self) -> list[str]:
        return [
            "--rabbitmq-server",
            self._rabbitmq,
            "--cluster-secret-file",
            str(self.secret),
        ]

    def _data(self, number: int) -> Service:
        folder = self.folder / f"data-{number}"
        zone = f"zone-{(number - 1) % 3 + 1}"
        words = ["--storage-root", str(folder / "root"), "--zone", zone]
        words += self._pairs("--heartbeat")
        return Service("ostore-data", folder, [*words, *self._shared()])

    def _api(self, number: int) -> Service:
        folder = self.folder / f"api-{number}"
        words = [*self._metadata, *self._options, *self._shared()]
        return Service("ostore-api", folder, words)

    def _pairs(self, key: str) -> Iterator[str]:
        if key in self._options:
            at = self._options.index(key)
            yield from self._options[at : at + 2]


@contextmanager
def development(
    folder: Path, data: int, api: int, sqlite: bool
) -> Iterator[LiveCluster]:
    """A cluster of one's own with a broker and a metadata store of its own."""
    metadata = ["--metadata", f"sqlite:{folder / 'metadata.sqlite'}"]
    with ExitStack() as ended:
        broker = RabbitMQ()
        ended.callback(broker.close)
        broker.start()
        if not sqlite:
            server = SearchServer(folder / "search", "opensearch-3")
            ended.callback(server.close)
            server.start()
            metadata = ["--es-server", server.url]
        cluster = LiveCluster(folder, broker.url(), metadata, data, api)
        ended.callback(cluster.close)
        cluster.start()
        yield cluster
        cluster.stop()


def say(line: str) -> None:
    """To standard output at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """Start a cluster, say where it is, stop it at SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--data", type=int, default=6)
    parser.add_argument("--api", type=int, default=2)
    parser.add_argument("--sqlite", action="store_true")
    given = parser.parse_args(words)
    folder = Path(given.folder or tempfile.mkdtemp(prefix="ostore-cluster-"))
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with development(
        folder.resolve(), given.data, 1 if given.sqlite else given.api, given.sqlite
    ) as cluster:
        for service in (*cluster.data, *cluster.apis):
            say(f"{service.role} http://127.0.0.1:{service.port} {service.node}")
        say(f"everything lies in {folder}; Ctrl-C stops it")
        over.wait()
    return 0


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())
    sys.exit(main(sys.argv[1:]))
