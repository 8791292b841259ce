"""Stories that once ended badly, made short; the key says what was wrong."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulator.cluster import Plan
from tests.simulator.story import Step, Story

KEPT: Mapping[str, Story] = {
    "a lease from a clock that was ahead kept all from scrubbing": Story(
        2352,
        Plan(
            compressing=(True, True),
            search=True,
            quorum=5,
            cached=False,
            keep=2,
            packing=64_000,
        ),
        (
            Step(19, "put", (1, "b", 7, "keyed"), 3.0),
            Step(29, "rot", (1, 1, 0.00040558550909286506), 0.0),
            Step(33, "jump", ("engine", 1, 4000.0), 0.0),
            Step(36, "wait", (20.0,), 0.0),
        ),
    ),
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
    "an empty disk took the place of a node, and answered for the lost one too": Story(
        80,
        Plan(compressing=(True, True), search=True, cached=False, every=60.0),
        (
            Step(0, "wipe", (3, 4.0), 0.3),
            Step(9, "clear", (1, "c"), 3.0),
            Step(16, "put", (1, "a", 3, "plain"), 15.0),
        ),
    ),
    "of two alike the one that nobody read was rotten": Story(
        175,
        Plan(compressing=(False, True), cached=False, keep=2),
        (
            Step(21, "wait", (30.0,), 0.0),
            Step(26, "get", (1, "c", 0, (0.27, 0.09)), 0.3),
            Step(27, "put", (1, "b", 7, "plain"), 0.0),
            Step(28, "wait", (3.0,), 3.0),
            Step(29, "put", (0, "c", 7, "plain"), 0.0),
            Step(30, "failing", (3, "writes", 30.0), 0.3),
            Step(31, "rot", (3, 2, 0.25), 0.0),
            Step(32, "copy", (1, "b", "c"), 0.0),
            Step(33, "put", (1, "c", 3, "keyed"), 0.0),
            Step(34, "kill", (4, "kill", 0, 60.0), 0.3),
            Step(35, "clear", (0, "a"), 0.3),
            Step(36, "put", (1, "a", 2, "slow"), 0.3),
            Step(39, "rot", (2, 4, 0.17), 0.3),
            Step(40, "wipe", (0, 12.0), 0.3),
            Step(41, "locate", (0, 2), 0.3),
        ),
    ),
    "a shard that was being moved passed for one that is rebuilt": Story(
        493,
        Plan(search=True, quorum=4, nodes=7, every=60.0),
        (
            Step(5, "deaf", (0, 1, 4.0), 0.0),
            Step(7, "put", (0, "a", 5, "plain"), 3.0),
            Step(8, "clear", (0, "a"), 0.0),
            Step(11, "wait", (35.0,), 0.0),
            Step(20, "put", (0, "b", 6, "slow"), 0.0),
            Step(21, "put", (0, "b", 5, "plain"), 0.0),
        ),
    ),
    "a token was given for what a beginning that failed had left on three nodes": Story(
        423,
        Plan(compressing=(True, False), quorum=6, cached=False, keep=2, sweeping=True),
        (
            Step(5, "kill", (1, "power", 0, 12.0), 0.0),
            Step(6, "kill", (3, "power", 2, 12.0), 0.0),
            Step(7, "upload", (1, "a", 1), 15.0),
        ),
    ),
    "an upload was finished twice, its first version taken back in between": Story(
        1169,
        Plan(compressing=(True, False), sweeping=True),
        (
            Step(1, "metadata", ("stuck", 30.0), 0.0),
            Step(2, "upload", (0, "b", 9), 0.0),
            Step(6, "job", (1, "retention"), 3.0),
            Step(7, "failing", (5, "reads", 60.0), 0.0),
            Step(12, "kill", (2, "kill", 0, 60.0), 0.0),
            Step(15, "wait", (70.0,), 0.0),
        ),
    ),
    "what the second renewal no longer found was missing, and the version was silent": Story(
        628,
        Plan(compressing=(False,), cached=False, keep=0, every=60.0),
        (
            Step(4, "metadata", ("stuck", 90.0), 0.0),
            Step(5, "put", (0, "b", 4, "plain"), 32.0),
            Step(6, "put", (0, "a", 5, "plain"), 3.0),
            Step(8, "job", (0, "orphans"), 0.0),
            Step(13, "wait", (35.0,), 0.0),
            Step(14, "job", (0, "orphans"), 10.0),
            Step(15, "cut", (0, 1, "refused", 12.0), 0.0),
            Step(16, "wait", (70.0,), 0.0),
        ),
    ),
}

OPEN: Mapping[int, str] = {}
"""Seeds that end badly and are not mended yet, and what is known of them."""
