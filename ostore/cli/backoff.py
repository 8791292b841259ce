"""How long to wait before the next attempt, and when to give up. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC

import attrs

RETRIED = frozenset({409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed; 409 only where it says so."""


@attrs.frozen
class Backoff:
    """Doubling waits with full jitter; `Retry-After` is a floor, up to `longest`."""

    attempts: int = 6
    first: float = 0.5
    longest: float = 60.0

    def wait(
        self, failed: int, asked: float | None, chance: Callable[[], float]
    ) -> float | None:
        """Seconds to wait after so many failed attempts; None: give up.

        `asked` is what Retry-After said; `chance` gives a number from 0 to 1.
        """
        if failed >= self.attempts:
            return None
        ceiling = min(self.longest, self.first * 2.0 ** (failed - 1))
        jittered = ceiling * (0.5 + chance() / 2)
        return min(max(jittered, asked or 0.0), self.longest)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); None without a usable one."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # seldom needed

    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(
        0.0, (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now
    )
