"""Bugs put in on purpose are caught: a simulator that finds nothing proves little."""

from __future__ import annotations

from itertools import chain

from tests.simulator.mutations import MUTATIONS
from tests.simulator.shrink import shrunk
from tests.simulator.stage import play
from tests.simulator.story import write
from tests.simulator.test_seeds import Stories

SEEDS = 200


class Mutations(Stories):
    """Each of them shows within so many seeds."""

    def caught(self, name: str, known: int) -> int:
        """A seed that shows it: the one `known` to do so, or the first of all that does."""
        with MUTATIONS[name]():
            for seed in chain([known], range(SEEDS)):
                if play(write(seed)).violations:
                    return seed
        raise self.failureException(f"{name}: not caught within {SEEDS} seeds")

    def test_folder_fsync_left_out(self) -> None:
        """Names that are not durable."""
        self.caught("folder fsync left out", 1)

    def test_metadata_not_asked_again(self) -> None:
        """A content is moved to garbage that was an orphan a while ago."""
        self.caught("metadata not asked again before the move", 54)

    def test_second_renew_left_out(self) -> None:
        """Shards may be collected while the version is being written."""
        self.caught("second renew left out", 5)

    def test_layouts_mixed(self) -> None:
        """Shards of two layouts of one content are taken for one."""
        self.caught("layouts mixed", 30)

    def test_late_commit_accepted(self) -> None:
        """A node names a shard after the deadline."""
        self.caught("late commit accepted", 54)

    def test_lease_epoch_ignored(self) -> None:
        """A node obeys whoever had the lease before."""
        self.caught("lease epoch ignored", 17)

    def test_duplicate_keeper_picked_at_random(self) -> None:
        """Of two alike, the one goes that another would keep."""
        self.caught("duplicate keeper picked at random", 74)

    def test_degraded_not_written(self) -> None:
        """A version does not tell which of its shards are missing."""
        self.caught("degraded not written", 3)

    def test_unsure_taken_for_none(self) -> None:
        """Shards are rebuilt that may be there."""
        self.caught("unsure taken for none", 7)

    def test_torn_tail_cut_in_the_middle(self) -> None:
        """A start takes the first bad record of a segment for its end."""
        self.caught("torn tail cut in the middle", 81)

    def test_short_story(self) -> None:
        """A story that fails becomes short."""
        name = "folder fsync left out"
        seed = self.caught(name, 1)
        with MUTATIONS[name]():
            short = shrunk(write(seed))
            self.assertTrue(play(short).violations)
        self.assertEqual([step.kind for step in short.steps], ["put"])
