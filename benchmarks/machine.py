"""What the machine is."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import twisted
from ostore import __version__


def facts(folder: Path) -> dict[str, str]:
    """What a reader of the figures needs to know."""
    return {
        "ostore": __version__,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": str(os.cpu_count()),
        "cpus really given": f"{_cpus_given():.2f}",
        "file system": _file_system(folder),
        "4 KiB write and fdatasync": f"{_sync_time(folder) * 1000:.2f} ms",
    }


def _sync_time(folder: Path) -> float:
    path = folder / "sync"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            started = time.perf_counter()
            file.write(os.urandom(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(times)


def _spin(seconds: float) -> float:
    """CPU seconds got while asking for all of them."""
    end, used = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end:
        pass
    return time.process_time() - used


def _cpus_given() -> float:
    count = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        pool.map(_spin, [0.1] * count, 1)
        return sum(pool.map(_spin, [1.0] * count, 1))


def _cpu() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _file_system(folder: Path) -> str:
    kind, best = "unknown", -1
    for line in _lines("/proc/mounts"):
        _, mount, name = line.split()[:3]
        if folder.resolve().is_relative_to(mount) and len(mount) > best:
            kind, best = name, len(mount)
    return kind


def _lines(path: str) -> Iterator[str]:
    if sys.platform == "linux":
        yield from Path(path).read_text("utf-8", "replace").splitlines()
