"""What the checker says of the histories that an exploration comes to."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tests.support.linearizable import UNKNOWN, Operation, Versions, explain
from tests.support.recorder import Nothing
from tests.support.worlds import Begun, Ends, PathStep, Wrong

History = dict[tuple[int, int], Operation]


class Verdicts:
    """Checks each history once; `names` are those that the clients speak of."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._checked: set[object] = set()
        self.outcomes: set[object] = set()

    @property
    def histories(self) -> int:
        """How many different ones were checked."""
        return len(self._checked)

    def check(
        self, path: Sequence[PathStep], begun: tuple[Begun, ...], ends: Ends
    ) -> None:
        """The history of these steps, and what is read in the end. Raises Wrong."""
        history = _history(path)
        answers = ((which, history[which].answer) for which in sorted(history))
        outcome = tuple(answers), ends
        if (begun, outcome) in self._checked:
            return
        self._checked.add((begun, outcome))
        self.outcomes.add(outcome)
        for name, end in ends:
            operations = [
                each
                for (client, _), each in history.items()
                if self._names[client] == name
            ]
            last = Operation(Versions(), end, len(path), len(path) + 1)
            why = explain([*operations, last])
            if why is not None:
                steps = "\n".join(label for label, _ in path)
                raise Wrong(f"{name!r}: {why}\nafter these steps:\n{steps}")


def _history(path: Sequence[PathStep]) -> History:
    """Calls and answers; without the calls that surely did nothing."""
    history: History = {}
    for time, (_, marks) in enumerate(path):
        for mark in marks:
            if mark.call is not None:
                history[mark.operation] = Operation(mark.call, UNKNOWN, time)
            elif isinstance(mark.answer, Nothing):
                del history[mark.operation]
            elif mark.answer != UNKNOWN:
                begun = history[mark.operation]
                history[mark.operation] = attrs.evolve(
                    begun, answer=mark.answer, returned=time + 0.5
                )
    return history
