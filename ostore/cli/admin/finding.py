"""What `ostore admin doctor` finds, and what it makes of a service's own view. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ostore.cli.admin.view import Node, View, seconds_of, span
from ostore.cli.console import size_text

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LITTLE, LEAST = 0.10, 0.05
"""Parts of a disk that are free: worth a word, worth an alarm."""
LATE = 3600.0
"""Seconds after which a job that is due should have begun."""
NEAR, FAR = 2.0, 60.0
"""Seconds between clocks: all that can be told from a header, all that is borne."""


@attrs.frozen
class Finding:
    """One thing that was looked at; `mend` says what to do where it is not well."""

    what: str
    state: str
    detail: str
    mend: str = ""


_NODES = {
    "up": (OK, ""),
    "scanning": (WARNING, "nothing: it counts its shards and will be up"),
    "draining": (WARNING, "`ostore admin undrain` takes it back; else wait"),
    "suspect": (WARNING, "look whether the service reaches it, and how busy it is"),
    "full": (PROBLEM, "make room on its disk, or add a node"),
    "readonly": (PROBLEM, "look into its log and at its disk: a write failed"),
    "down": (
        PROBLEM,
        "start its service; after rebuild-delay what it holds is built anew elsewhere",
    ),
    "conflict": (
        PROBLEM,
        "two processes speak under one id: end the one whose root is a copy",
    ),
}


def of_view(view: View, now: float, data_shards: int | None) -> Iterator[Finding]:
    """What a service's own view says; `data_shards` where it is known."""
    if not view.nodes:
        yield Finding(
            "nodes",
            PROBLEM,
            "none was ever heard",
            "start data services with the same broker and the same cluster secret",
        )
    for node in view.nodes:
        yield from _of_node(node)
    for fault in view.faults:
        yield Finding("node", PROBLEM, fault, "mend its root, then start it again")
    yield _of_repairs(view, data_shards)
    for job in view.jobs:
        due = seconds_of(job.next)
        what = f"job {job.name}"
        if job.state == "failed":
            yield Finding(
                what, PROBLEM, "the last run failed", f"`ostore admin run {job.name}`"
            )
        elif due is not None and now - due > LATE and job.state != "running":
            late = f"was due {span(now - due)} ago"
            yield Finding(
                what, WARNING, late, "look into the services' logs: what holds it up?"
            )
        else:
            yield Finding(what, OK, job.state or "not run yet")


def _of_node(node: Node) -> Iterator[Finding]:
    what = f"node {node.id[:12]}"
    state, mend = _NODES.get(node.state, (WARNING, ""))
    detail = f"{node.state}, zone {node.zone}"
    if node.heard is not None:
        detail += f", heard {span(node.heard)} ago"
    yield Finding(what, state, detail, mend)
    if node.total and node.state != "down":
        free = f"{size_text(node.free)} of {size_text(node.total)} free"
        if node.share < LITTLE:
            state = PROBLEM if node.share < LEAST else WARNING
            yield Finding(f"disk of {what}", state, free, _NODES["full"][1])
        else:
            yield Finding(f"disk of {what}", OK, free)


def _of_repairs(view: View, data_shards: int | None) -> Finding:
    if not view.waiting:
        return Finding("repairs", OK, "none waits")
    detail = f"{view.waiting} contents wait"
    worst = view.worst
    if worst is None:
        return Finding("repairs", WARNING, detail, "wait, or look which nodes are away")
    detail += f"; the worst has {worst} shards left"
    if data_shards is not None and worst <= data_shards:
        bare = "bring lost nodes back before another fails: nothing may be lost now"
        return Finding("repairs", PROBLEM, detail, bare)
    return Finding("repairs", WARNING, detail, "wait, or look which nodes are away")


def of_clock(what: str, apart: float) -> Finding:
    """How far a clock is from ours."""
    detail = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} ours"
    mend = "let chrony or systemd-timesyncd keep both clocks"
    if abs(apart) > FAR:
        return Finding(what, PROBLEM, detail, f"{mend}: signatures are refused")
    if abs(apart) > NEAR:
        return Finding(what, WARNING, detail, mend)
    return Finding(what, OK, "as ours")
