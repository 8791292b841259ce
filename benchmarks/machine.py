"""What the machine is, and what it could do without a server."""

from __future__ import annotations

import hashlib
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
from ostore.erasure.codec import Codecs
from ostore.erasure.geometry import Buffer, Geometry

STRIPE = 1 << 20
GEOMETRY = Geometry(4, 2)


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


def limit(folder: Path, size: int) -> float:
    """Seconds to hash, code and durably write that many random bytes as six shards.

    One thread, nothing overlaps: SHA-256 of each stripe, its parity, the blocks
    appended to six files; then each file synced and named, and the folder synced.
    """
    content = memoryview(os.urandom(size))
    codec = Codecs().get(GEOMETRY)
    block = STRIPE // GEOMETRY.data
    names = [folder / f"limit.{index}" for index in range(GEOMETRY.shards)]
    started = time.perf_counter()
    hasher = hashlib.sha256()
    files = [
        folder.joinpath(f"limit.{i}.temp").open("wb", buffering=0)
        for i in range(len(names))
    ]
    for at in range(0, size, STRIPE):
        stripe = content[at : at + STRIPE]
        hasher.update(stripe)
        blocks = [stripe[i : i + block] for i in range(0, STRIPE, block)]
        shards: list[Buffer] = [*blocks, *codec.encode(blocks)]
        for file, piece in zip(files, shards, strict=True):
            file.write(piece)
    for index, file in enumerate(files):
        os.fdatasync(file.fileno())
        file.close()
        folder.joinpath(f"limit.{index}.temp").rename(names[index])
    _sync_folder(folder)
    took = time.perf_counter() - started
    for name in names:
        name.unlink()
    return took


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
