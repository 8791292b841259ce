"""Memory that was needed once is given back."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.child import environment

STORY = """
from ostore.service.allocation import give_back_memory
give_back_memory()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

first = bytearray(1 << 20)
del first
before = resident()
large, small = [], []
for number in range(128):
    large.append(bytearray(b"x") * (1 << 20))
    small.append(bytes([number % 256]) * 5000)
assert resident() - before > 100 << 20
del large
print(resident() - before)
"""


class AllocationTests(SynchronousTestCase):
    """A process of its own, since it cannot be undone."""

    def test_large_buffers(self) -> None:
        """Large buffers go back to the system whatever small ones stay between them."""
        done = subprocess.run(
            [sys.executable, "-c", STORY],
            env=environment({}),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        self.assertLess(int(done.stdout), 24 << 20)

    def test_settled(self) -> None:
        """What was there when a service had started is looked at no more."""
        story = (
            "import gc\n"
            "from ostore.service.allocation import settle\n"
            "settle()\n"
            "print(gc.get_freeze_count(), len(gc.get_objects()))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", story],
            env=environment({}),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        frozen, watched = map(int, done.stdout.split())
        self.assertGreater(frozen, 1000)
        self.assertLess(watched, frozen)
