"""Stories that once ended badly, made short; the key says what was wrong."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulator.cluster import Plan
from tests.simulator.story import Step, Story

KEPT: Mapping[str, Story] = {
    "a shard that stood on two of six nodes kept another from being rebuilt": Story(
        125,
        Plan(compressing=(True, True), search=True, cached=True),
        (
            Step(0, "kill", (2, "power", 0, 60.0), 0.0),
            Step(1, "put", (1, "c", 4, "plain"), 3.0),
            Step(4, "instant", (0, "c", 4), 15.0),
            Step(6, "locate", (1, 9), 15.0),
            Step(14, "kill", (0, "kill", 0, 60.0), 0.0),
            Step(19, "delete", (0, "c"), 3.0),
            Step(22, "get", (0, "c", 3, ()), 15.0),
            Step(26, "locate", (0, 6), 15.0),
        ),
    ),
    "a read saw all shards, two of them on one node, and nobody mended that": Story(
        591,
        Plan(compressing=(True, False), cached=False),
        (
            Step(2, "put", (0, "c", 7, "plain"), 0.0),
            Step(3, "copy", (0, "a", "b"), 3.0),
            Step(10, "lose", (5, 2), 0.0),
            Step(11, "kill", (1, "power", 0, 60.0), 0.0),
            Step(14, "kill", (0, "power", 0, 12.0), 0.0),
            Step(19, "put", (0, "b", 7, "slow"), 15.0),
        ),
    ),
}

OPEN = {
    80: "a shard of a fresh PUT is gone after a wiped node came back",
    175: "a content ends with five shards: the sixth is not built anew",
}
"""Seeds that end badly and are not mended yet, and what is known of them."""
