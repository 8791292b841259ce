"""Measure the `ostore` command beside curl: `python benchmarks/command.py --help`.

Both do the same work against the same server, in turns, so that bad moments hit both:
compare ratios, not figures of different days. The best of the rounds counts: other
work on the machine only ever makes one slower.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import machine
from benchmarks.servers import Server

MIB = 1 << 20
GOALS = (
    ("put / curl", 0.85),
    ("get / curl", 0.85),
    ("sync / curl one by one", 5.0),
)


class Bench:
    """One run: figures by name, in the order in which they were measured."""

    def __init__(self, server: Server, folder: Path, size: int, rounds: int) -> None:
        self.figures: dict[str, float] = {}
        self._url = f"http://127.0.0.1:{server.port}"
        self._folder = folder
        self._size = size
        self._rounds = rounds
        self._puts = 0

    def run(self, small: int) -> None:
        """Measure all; `small` files in the folder that is synced."""
        self._large()
        self._many(small)
        self._start()

    def _large(self) -> None:
        source, copy = self._folder / "large", self._folder / "copy"
        with source.open("wb") as file:
            for _ in range(self._size // MIB):
                file.write(os.urandom(MIB))
        seconds: dict[str, list[float]] = {
            name: [] for name in ("curl put", "put", "curl get", "get")
        }
        peaks: dict[str, list[int]] = {"put": [], "get": []}
        for _ in range(self._rounds):
            url = f"{self._url}/objects/bench/large"
            self._another(source)
            took, _ = self._timed("curl", "-sfT", str(source), "-o", "/dev/null", url)
            seconds["curl put"].append(took)
            self._another(source)
            took, peak = self._ostore("put", str(source), "--to", "bench/large")
            seconds["put"].append(took)
            peaks["put"].append(peak)
            took, _ = self._timed("curl", "-sf", "-o", str(copy), url)
            seconds["curl get"].append(took)
            took, peak = self._ostore("get", "bench/large", str(copy))
            seconds["get"].append(took)
            peaks["get"].append(peak)
        for name, times in seconds.items():
            self._note(f"{name} MB/s", self._size / 1e6 / min(times))
        for name in ("put", "get"):
            ratio = self.figures[f"{name} MB/s"] / self.figures[f"curl {name} MB/s"]
            self._note(f"{name} / curl", ratio)
            self._note(f"{name} peak MiB", max(peaks[name]) / MIB)
        source.unlink()
        copy.unlink()

    def _many(self, count: int) -> None:
        """As many new files of 4 KiB: all by one sync, and each by a curl."""
        folder = self._folder / "small"
        folder.mkdir()
        curl: list[float] = []
        sync: list[float] = []
        again: list[float] = []
        peaks: list[int] = []
        for _ in range(self._rounds):
            self._fresh(folder, count)
            curl.append(sum(self._curl_small(folder, n) for n in range(count)))
            self._fresh(folder, count)
            took, peak = self._ostore("sync", "-q", str(folder), "sync/")
            sync.append(took)
            peaks.append(peak)
            again.append(self._ostore("sync", "-q", str(folder), "sync/")[0])
        self._note("sync peak MiB", max(peaks) / MIB)
        self._note("curl one by one files/s", count / min(curl))
        self._note("sync files/s", count / min(sync))
        self._note("sync / curl one by one", min(curl) / min(sync))
        self._note("sync again files/s", count / min(again))

    def _fresh(self, folder: Path, count: int) -> None:
        for n in range(count):
            (folder / f"{n:05}").write_bytes(os.urandom(4096))

    def _curl_small(self, folder: Path, n: int) -> float:
        url = f"{self._url}/objects/curl/{n:05}"
        path = str(folder / f"{n:05}")
        return self._timed("curl", "-sfT", path, "-o", "/dev/null", url)[0]

    def _start(self) -> None:
        times = [self._ostore("ls", "nothing/")[0] for _ in range(10)]
        self._note("ls of nothing ms", statistics.median(times) * 1000)

    def _another(self, source: Path) -> None:
        """Make it a content that the service does not have."""
        with source.open("r+b") as file:
            file.write(os.urandom(64))

    def _ostore(self, *words: str) -> tuple[float, int]:
        command = "from ostore.cli.main import main; main()"
        return self._timed(
            sys.executable, "-c", command, "--endpoint", self._url, *words
        )

    def _timed(self, *words: str) -> tuple[float, int]:
        """Seconds, and the most resident bytes."""
        began = time.perf_counter()
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(words)}: status {child.returncode}")
        return time.perf_counter() - began, usage.ru_maxrss * 1024

    def _note(self, name: str, value: float) -> None:
        self.figures[name] = value
        print(f"{name:<28}{value:>12.2f}", flush=True)


def main(words: list[str]) -> int:
    """Measure, print, write JSON; the exit status says nothing about goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--root", type=Path, default=Path("build"), help="on this disk")
    parser.add_argument("--json", type=Path, default=Path("build/command.json"))
    parser.add_argument("server", nargs="*", help="options of the server, behind --")
    options = parser.parse_args(words)
    options.root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.root)).resolve()
    try:
        facts = machine.facts(folder)
        for name, value in facts.items():
            print(f"{name:<28}{value}")
        with Server.standalone(folder, options.server) as server:
            size, rounds = (64 * MIB, 1) if options.quick else (1024 * MIB, 4)
            bench = Bench(server, folder, size, rounds)
            bench.run(100 if options.quick else 1000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    reached = {name: bench.figures[name] >= bound for name, bound in GOALS}
    for name, bound in GOALS:
        outcome = "reached" if reached[name] else "MISSED"
        print(f"goal: {name} at least {bound:g}: {outcome}")
    result = {"machine": facts, "figures": bench.figures, "goals": reached}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
