"""Globs over names and relative paths. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class Globs:
    """Any of some patterns: `*`, `**`, `?`, `[a-z]`, `[!a-z]`.

    A pattern without a slash is about the last part; one that ends in a slash is
    about all that is below such a folder; all others are about the whole.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [re.compile(_translated(p), re.DOTALL) for p in patterns]

    def match(self, name: str) -> bool:
        """Whether one of them fits."""
        return any(pattern.fullmatch(name) for pattern in self._patterns)


def _translated(pattern: str) -> str:
    below = pattern.endswith("/")
    rest = pattern.removeprefix("/").rstrip("/") if below else pattern.removeprefix("/")
    anchored = "/" in rest or pattern.startswith("/")
    body = "".join(_part(token) for token in _TOKEN.findall(rest))
    start = "" if anchored else "(?:.*/)?"
    return f"{start}{body}/.*" if below else start + body


def _part(token: str) -> str:
    if token in _WILD:
        return _WILD[token]
    if token.startswith("[") and len(token) > 2:
        negated = token.startswith("[!")
        inner = token[2 if negated else 1 : -1].replace("\\", r"\\")
        inner = inner.replace("[", r"\[").replace("^", r"\^")
        if inner and not _reversed_range(inner):
            return f"[{'^' if negated else ''}{inner}]"
    return re.escape(token)


def _reversed_range(inner: str) -> bool:
    try:
        re.compile(f"[{inner}]")
    except re.error:
        return True
    return False
