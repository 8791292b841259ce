"""What can go wrong for the one who typed the command, and its exit status.

Failure            1   it did not work; the text says what to do next
  Unreachable      1   no answer, or one that was cut
  Refused          1   the server said no
Misused            2   the command line or the settings
Missing            3   there is no such object, version or job
Damaged            4   bytes that are not what their SHA-256 says
Several            of several failures, the gravest status
"""

from __future__ import annotations

from collections.abc import Sequence


class Failure(Exception):
    """It did not work; the text is for a person."""

    status = 1


class Unreachable(Failure):
    """No answer came, or it was cut; `absent`: nobody took the connection."""

    absent = False


class Refused(Failure):
    """An answer that is none of those asked for."""

    def __init__(
        self, text: str, code: int, slug: str = "", wait: float | None = None
    ) -> None:
        super().__init__(text)
        self.code = code
        self.slug = slug
        self.wait = wait


class Misused(Failure):
    """The command line or the settings cannot be used."""

    status = 2


class Missing(Refused):
    """There is no such object, version or job."""

    status = 3


class Damaged(Failure):
    """Bytes that are not what their SHA-256 says; nothing wrong was kept."""

    status = 4


class Several(Failure):
    """Some of many failed; each was told when it happened."""

    def __init__(self, text: str, failures: Sequence[Failure]) -> None:
        super().__init__(text)
        found = {failure.status for failure in failures}
        self.status = next(status for status in (4, 1, 2, 3) if status in found)
