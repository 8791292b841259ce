"""Run the Trial suite and end with one plain line: N passed, N failed, N skipped.

An error counts as failed, an expected failure as passed, a todo that came true as
failed. The exit status is 0 only when something ran and nothing failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
OUTSIDE = {"live", "simulator"}
"""Folders of tests that need other servers, or are many minutes of stories."""

_VERDICT = re.compile(r"(?:PASSED|FAILED)(?: \((?P<counts>[a-zA-Z=, 0-9]*)\))?")
_RAN = re.compile(r"Ran (?P<tests>[0-9]+) tests? in ")


def targets() -> list[str]:
    """The packages of tests that run anywhere, and the modules beside them."""
    tests = CHECKOUT / "tests"
    return [
        f"tests.{path.stem}"
        for path in sorted(tests.iterdir())
        if (path.is_dir() and (path / "__init__.py").exists())
        or path.match("test_*.py")
        if path.stem not in OUTSIDE
        if path.match("test_*.py") or any(path.rglob("test_*.py"))
    ]


def totals(output: str) -> tuple[int, int, int] | None:
    """Passed, failed, skipped of Trial's last words; None when it had none."""
    ran: int | None = None
    counts: dict[str, int] | None = None
    for line in output.splitlines():
        if match := _RAN.match(line):
            ran, counts = int(match["tests"]), None
        elif (match := _VERDICT.fullmatch(line.strip())) and ran is not None:
            pairs = (word.split("=") for word in (match["counts"] or "").split(", "))
            counts = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    if ran is None or counts is None:
        return None
    failed = sum(
        counts.get(kind, 0) for kind in ("failures", "errors", "unexpectedSuccesses")
    )
    passed = counts.get("successes", 0) + counts.get("expectedFailures", 0)
    return passed, failed, counts.get("skips", 0)


def main(words: Sequence[str]) -> int:
    """Run the tests named, or all; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args(words)
    command = [sys.executable, "-b"]
    if options.coverage:
        command += ["-m", "coverage", "run"]
    command += ["-m", "twisted.trial", "--reporter=text"]
    if options.jobs > 1:
        command.append(f"--jobs={options.jobs}")
    command += options.tests or targets()
    child = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
    )
    lines: list[str] = []
    assert child.stdout is not None
    for line in child.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    status = child.wait()
    found = totals("".join(lines))
    if found is None:
        print(f"trial ended with status {status} and no summary")
        print("0 passed, 1 failed, 0 skipped")
        return 1
    passed, failed, skipped = found
    if status and not failed:
        print(f"trial ended with status {status}")
        failed = 1
    if not passed and not failed:
        print("no test ran")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
