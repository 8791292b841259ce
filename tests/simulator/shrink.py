"""Makes a failing story short: what can be left out is (delta debugging, Zeller 1999)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from tests.simulator.stage import play
from tests.simulator.story import Step, Story

TRIES = 400
"""Stories that are played at most."""


def shrunk(
    story: Story,
    fails: Callable[[Story], bool] = lambda story: bool(play(story).violations),
    tries: int = TRIES,
) -> Story:
    """A story of as few steps as can be found that fails too."""
    left = tries

    def still(steps: Sequence[Step]) -> bool:
        nonlocal left
        left -= 1
        return fails(attrs.evolve(story, steps=tuple(steps)))

    steps = list(story.steps)
    size = max(1, len(steps) // 2)
    while left > 0:
        at, changed = 0, False
        while at < len(steps) and left > 0:
            fewer = steps[:at] + steps[at + size :]
            if still(fewer):
                steps, changed = fewer, True
            else:
                at += size
        if size == 1 and not changed:
            break
        size = max(1, size // 2)
    for at, step in enumerate(steps):
        quick = [*steps[:at], attrs.evolve(step, pause=0.0), *steps[at + 1 :]]
        if left > 0 and step.pause and still(quick):
            steps = quick
    return attrs.evolve(story, steps=tuple(steps))
