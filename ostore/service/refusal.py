"""How a setting is refused: one line, in which no password is shown."""

from __future__ import annotations

import re

import attrs

from ostore.service.failing import StartError

_OPENING = re.compile(r"""[\['"]{0,2}(?:(?:\w{1,9}:)?//)?""")


@attrs.frozen
class Given:
    """A value as it was found, and where."""

    raw: object
    source: str


def refusal(key: str, given: Given | None, allowed: str) -> StartError:
    """What to raise; nothing given means that a default does not fit the rest."""
    if given is None:
        return StartError(f"{key} (default): allowed is {allowed}")
    return StartError(
        f"{key} = {shown(given.raw)} ({given.source}): allowed is {allowed}"
    )


def shown(raw: object) -> str:
    """A value for the operator: printable, not too long, and without a password.

    What stands before an @ is left out whatever it is: a URL that is refused is
    often one in which it is not plain where the password ends.
    """
    value = ascii(raw)
    secret, at, rest = value.rpartition("@")
    if at:
        opening = _OPENING.match(secret)
        assert opening is not None
        value = f"{opening[0]}***@{rest}"
    return value if len(value) <= 80 else f"{value[:77]}..."
