"""Profiles of a process while it serves, as text (py-spy)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

WAITING = (
    "ThreadWorkers._work",
    "ThreadWriter._take",
    "EPollReactor.doPoll",
    "Condition.wait",
)
"""Where threads that do nothing are, which a profiler cannot always tell."""


def profile(pid: int, seconds: int, raw: Path, work: Callable[[], object]) -> str:
    """What that process did in that time, while `work` is done again and again."""
    beside = Path(sys.executable).parent
    pyspy = shutil.which("py-spy") or shutil.which("py-spy", path=str(beside))
    if pyspy is None:
        raise SystemExit("py-spy is not installed")
    profiler = subprocess.Popen(
        [
            *(pyspy, "record", "-r", "250", "-f", "raw", "-t"),
            *("-d", str(seconds), "-p", str(pid), "-o", str(raw)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1)
    while profiler.poll() is None:
        work()
    return condensed(raw)


def condensed(raw: Path, rows: int = 40) -> str:
    """A profile as text: the lines most samples were in, and those on the way to them."""
    leaf: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    total = 0
    for line in raw.read_text("utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [each for each in stack.split(";") if not each.startswith("thread ")]
        if not frames or frames[-1].startswith(WAITING):
            continue
        total += int(count)
        leaf[frames[-1]] += int(count)
        for frame in {frame.rpartition(":")[0] for frame in frames}:
            anywhere[frame] += int(count)
    lines = [f"{total} samples"]
    for title, found in (("itself", leaf), ("with what it calls", anywhere)):
        lines.append(f"\n{title}")
        shown = [
            f"{100 * count / total:6.1f} %  {frame}"
            for frame, count in found.most_common()
            if not (found is anywhere and count > 0.97 * total)
        ]
        lines += shown[:rows]
    return "\n".join(lines) + "\n"
