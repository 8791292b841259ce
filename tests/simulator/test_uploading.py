"""Uploads in parts reach their end in the simulator, and what was promised is watched."""

from __future__ import annotations

import attrs

from tests.simulator.cluster import Plan
from tests.simulator.contents import LARGE
from tests.simulator.stage import play
from tests.simulator.story import Step, Story
from tests.simulator.test_seeds import Stories


class Uploads(Stories):
    """Stories of one upload."""

    story = Story(
        1,
        Plan(compressing=(True, False), search=True),
        (Step(0, "upload", (0, "a", LARGE[0]), 10.0),),
    )

    def told(self, story: Story) -> list[str]:
        """What came of the uploads."""
        outcome = play(story, keep=True)
        self.assertEqual(outcome.violations, ())
        return [line for line in outcome.lines if "told upload" in line]

    def test_undisturbed(self) -> None:
        """It becomes a version."""
        (told,) = self.told(self.story)
        self.assertIn("Seen(number=1", told)

    def test_engine_dies(self) -> None:
        """Another engine goes on with it."""
        steps = (
            attrs.evolve(self.story.steps[0], pause=0.1),
            Step(1, "crash", (0, 60.0), 60.0),
        )
        (told,) = self.told(attrs.evolve(self.story, steps=steps))
        self.assertIn("Seen(number=1", told)

    def test_node_dies(self) -> None:
        """One node may lose its power."""
        steps = (
            attrs.evolve(self.story.steps[0], pause=0.1),
            Step(1, "kill", (2, "power", 0, 30.0), 60.0),
        )
        (told,) = self.told(attrs.evolve(self.story, steps=steps))
        self.assertIn("Seen(number=1", told)
