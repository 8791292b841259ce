"""A real OpenSearch or Elasticsearch of the test's own, on ports of its own.

Maven fetches it once into $OSTORE_SERVERS (default ~/.cache/ostore-servers; for root
/var/cache/ostore-servers, since some servers run as another user then). It needs a Java
of the right age: $JAVA_HOME, or any in /usr/lib/jvm.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from pathlib import Path

POM = Path(__file__).with_name("search-servers.xml")
PATIENCE = 180.0
"""Seconds after which a server that does not answer has failed."""

JAVAS = {
    "opensearch-3": range(21, 100),
    "opensearch-2": range(11, 24),
    "elasticsearch-9": range(21, 100),
    "elasticsearch-8": range(17, 24),
    "elasticsearch-7": range(11, 24),
}
"""Every kind of server, and the major versions of Java that it runs on."""

_UNWANTED = ("Xlog:gc", "ErrorFile=", "HeapDumpPath=", "jdk.incubator.vector")


def java_for(kind: str) -> Path | None:
    """The home of the newest Java that fits, None when there is none."""
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    homes += sorted(Path("/usr/lib/jvm").glob("*"))
    fit: dict[int, Path] = {}
    for home in homes:
        release = home / "release"
        text = release.read_text() if release.is_file() else ""
        match = re.search(r'JAVA_VERSION="(\d+)', text)
        if match and int(match[1]) in JAVAS[kind] and (home / "bin/java").exists():
            fit.setdefault(int(match[1]), home)
    return fit[max(fit)] if fit else None


def files_of(kind: str) -> Path:
    """The folder of the server's files, which is there once they are fetched."""
    home = Path("/var/cache") if os.getuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("OSTORE_SERVERS", home / "ostore-servers")) / kind


def fetch(kind: str) -> Path:
    """The folder of the server's files, downloaded when it is missing.

    Raises CalledProcessError after a few attempts.
    """
    target = files_of(kind)
    if target.exists():
        return target
    part = target.with_name(f"{kind}.{os.getpid()}")
    _download(kind, part / "lib" if kind.startswith("opensearch") else part)
    for archive in part.glob("*.zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(part)
        archive.unlink()
        for script in part.glob("*/bin/*"):
            script.chmod(0o755)
    try:
        part.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(part)
    return target


def _download(kind: str, folder: Path) -> None:
    words = ["mvn", "-B", "-q", "-f", str(POM), "-P", kind]
    words += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    words += [f"-DoutputDirectory={folder}"]
    for wait in (5, 20, None):
        done = subprocess.run(words, check=wait is None, stdin=subprocess.DEVNULL)
        if done.returncode == 0 or wait is None:
            return
        time.sleep(wait)


def free_port(candidates: range | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on: any, or one of the candidates."""
    ports = [0] if candidates is None else random.sample(candidates, len(candidates))
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise RuntimeError(f"no free port in {candidates}")


class SearchServer:
    """One server over one folder; `start`, then `url` answers, then `stop`.

    Whoever makes it adds `stop` to the clean-ups. It can be killed and started again
    over the same data.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        java = java_for(kind)
        if java is None:
            raise RuntimeError(f"{kind} needs a Java of version {JAVAS[kind]}")
        self._java = java
        self._files = fetch(kind)
        # The runner wants a port up to 9299, and takes the next when it is in use.
        runner = kind.startswith("opensearch")
        self.port = free_port(range(9201, 9300) if runner else None)
        self._transport = free_port()
        self.name = f"ostore-{self._transport}"
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers as itself, its shards open."""
        runner = self.kind.startswith("opensearch")
        words, environ, user = self._runner() if runner else self._script()
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                words,
                env={**os.environ, **environ},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=None if user is None else "nogroup",
                extra_groups=None if user is None else [],
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = (self.folder / "output.log").read_text("utf-8", "replace")
                raise RuntimeError(f"{self.kind} did not start:\n{said[-2000:]}")
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None, "never started"
        return self._process.pid

    def stop(self) -> None:
        """End it in peace. Idempotent."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def signal(self, number: int) -> None:
        """Signal the server, and the launcher that some have."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3)
        try:
            connection.request(
                "GET", "/_cluster/health?wait_for_status=yellow&timeout=1s"
            )
            answer = connection.getresponse()
            health = json.load(answer)
            return answer.status == 200 and health["cluster_name"] == self.name
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _runner(self) -> tuple[list[str], dict[str, str], str | None]:
        config = self.folder / "node_1" / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "opensearch.yml").write_text(
            f"cluster.name: {self.name}\n"
            "node.name: node1\n"
            "discovery.type: single-node\n"
            "network.host: 127.0.0.1\n"
            f"transport.port: {self._transport}\n"
            "action.auto_create_index: false\n"
            "cluster.routing.allocation.disk.threshold_enabled: false\n"
        )
        return (
            [
                str(self._java / "bin/java"),
                "-Xms256m",
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-Dio.netty.noUnsafe=true",
                "-Dlog4j2.disable.jmx=true",
                "-cp",
                f"{self._files}/lib/*",
                "org.codelibs.opensearch.runner.OpenSearchRunner",
                "-basePath",
                str(self.folder),
                "-numOfNode",
                "1",
                "-baseHttpPort",
                str(self.port - 1),
                "-clusterName",
                self.name,
            ],
            {},
            None,
        )

    def _script(self) -> tuple[list[str], dict[str, str], str | None]:
        home = next(path for path in self._files.iterdir() if path.is_dir())
        config = self.folder / "config"
        if not config.exists():
            shutil.copytree(home / "config", config)
            options = config / "jvm.options"
            kept = [
                line
                for line in options.read_text().splitlines()
                if not any(word in line for word in _UNWANTED)
            ]
            options.write_text("\n".join(kept) + "\n")
            for name in ("data", "logs", "tmp"):
                (self.folder / name).mkdir()
        user = None
        if os.getuid() == 0:  # as root it will not run
            user = "nobody"
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, "nobody", "nogroup")
        settings = {
            "cluster.name": self.name,
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": self._transport,
            "path.data": self.folder / "data",
            "path.logs": self.folder / "logs",
            "action.auto_create_index": "false",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "xpack.security.enabled": "false",
        }
        return (
            [
                str(home / "bin/elasticsearch"),
                *(f"-E{key}={value}" for key, value in settings.items()),
            ],
            {
                "ES_JAVA_HOME": str(self._java),
                "ES_PATH_CONF": str(config),
                "ES_TMPDIR": str(self.folder / "tmp"),
                "ES_JAVA_OPTS": "-Xms256m -Xmx512m",
                "HOME": str(self.folder),
            },
            user,
        )
