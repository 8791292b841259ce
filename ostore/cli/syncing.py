"""What has to be done so that two sides hold the same. Pure.

Sizes decide first; of what has the same size on both sides, the SHA-256 does. The
caller hashes only what `doubtful` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from ostore.cli.globs import Globs


@attrs.frozen
class There:
    """What a side holds under a relative name; no hash where it is not known."""

    size: int
    hash: str | None = None


@attrs.frozen
class Plan:
    """Relative names, each in the order of its bytes."""

    copy: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    """What cannot be done, and why."""


@attrs.frozen
class Filter:
    """Which names take part; what does not is neither copied nor deleted."""

    include: Globs | None = None
    exclude: Globs | None = None

    def takes(self, name: str) -> bool:
        """Whether this one does: included, and not excluded."""
        if self.exclude is not None and self.exclude.match(name):
            return False
        return self.include is None or self.include.match(name)


def doubtful(source: Mapping[str, There], target: Mapping[str, There]) -> Iterator[str]:
    """The names whose hashes must be known on both sides."""
    for name in ordered(source):
        if name in target and source[name].size == target[name].size:
            yield name


def plan(
    source: Mapping[str, There],
    target: Mapping[str, There],
    *,
    delete: bool,
    refuse: Callable[[str], str | None] = lambda _: None,
) -> Plan:
    """What makes the target like the source.

    `refuse` says why a name cannot be on the target, or None.
    """
    copy: list[str] = []
    same: list[str] = []
    refused: list[tuple[str, str]] = []
    for name in ordered(source):
        why = refuse(name)
        if why is not None:
            refused.append((name, why))
        elif _equal(source[name], target.get(name)):
            same.append(name)
        else:
            copy.append(name)
    gone = [name for name in ordered(target) if name not in source] if delete else []
    return Plan(tuple(copy), tuple(gone), tuple(same), tuple(refused))


def ordered(names: Mapping[str, There]) -> list[str]:
    """The names in the order of their bytes."""
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def shadowed(names: Mapping[str, There]) -> Mapping[str, str]:
    """Names that are also folders of others, with one of those."""
    found: dict[str, str] = {}
    for name in ordered(names):
        parts = name.split("/")
        for count in range(1, len(parts)):
            folder = "/".join(parts[:count])
            if folder in names:
                found.setdefault(folder, name)
    return found


def _equal(source: There, target: There | None) -> bool:
    if target is None or source.size != target.size:
        return False
    return source.hash is not None and source.hash == target.hash
