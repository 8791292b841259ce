"""Rounds of work to figures, and figures to a table in Markdown."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from benchmarks.clients import Result
from benchmarks.works import MEMORY, MIB, WORKS, Goal

Figures = dict[str, Any]
"""What one service did in one kind of work, for JSON; `figures_of` makes it."""

FOOT = """
Rates are MiB/s from 1 MiB on, else requests a second, of a listing seconds; medians with the
least and the greatest, rounds: {rounds}. `limit` is the same work in the same round
without the service: for a large PUT SHA-256, coding and a durable write of 1.5 times the
bytes in one thread; for a PUT up to 1 MiB these for as many contents as there are
clients, appended to six logs written ahead, all synced at once, and one SQLite transaction
(WAL, FULL); for a GET or HEAD the same requests to a server of {lean} lines that sends
plain files; for the mixed work the sum of its parts; for a listing reading SQLite and making
JSON. `of it` is the median of the rounds' ratios. CPU is that of the service, user and
system, in ms a request or s/GiB{processes}. The last column is the clients' own part of their CPU
and the service's together: {least:.0f} to {most:.0f} %; against the limit's server the same clients
made {alone} GETs of 4 KiB a second (c=32). Memory is
resident: the most at any time (but of `slow-put` and `slow-get`), and what a work added at most; `slow-put` and `slow-get` are 64 clients that
send or take a little at a time and walk away. No request failed, or there would be no table: what was
read was compared with what was written.
"""


@attrs.frozen
class Round:
    """One round: what the clients saw, what the service used, what the limit did."""

    result: Result
    cpu: float
    limit: float


def figures_of(name: str, rounds: Sequence[Round]) -> Figures:
    """The medians of these rounds, with the spread of the rate."""
    work = WORKS[name]

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(value(each) for each in rounds)

    def rate(one: Round) -> float:
        if work.method == "LIST":
            return one.result.latencies[0]
        return one.result.rate * (work.size / MIB if work.large else 1)

    def unit(one: Round) -> float:
        """Of what the CPU is counted: requests in thousands, or GiB."""
        count = len(one.result.latencies)
        return count * work.size / (1 << 30) if work.large else count / 1000

    def ratio(one: Round) -> float:
        whole = one.limit / rate(one)
        return whole if work.method == "LIST" else 1 / whole

    rates = [rate(each) for each in rounds]
    return {
        "unit": _unit(name),
        "rate": statistics.median(rates),
        "least": min(rates),
        "most": max(rates),
        "rounds": rates,
        "p50 ms": median(lambda each: each.result.slower_than(0.5) * 1000),
        "p99 ms": median(lambda each: each.result.slower_than(0.99) * 1000),
        "cpu": median(lambda each: each.cpu / unit(each)),
        "cpu unit": "s/GiB" if work.large else "ms",
        "clients": median(
            lambda each: each.result.cpu / max(each.cpu + each.result.cpu, 1e-9)
        ),
        "limit": median(lambda each: each.limit),
        "of the limit": median(ratio),
    }


def reached(found: Figures, goal: Goal) -> bool:
    """Whether these figures are what was aimed at."""
    if found["unit"] == "s":
        return bool(found["rate"] <= goal.rate)
    return bool(
        found["rate"] >= goal.rate
        and found["of the limit"] >= goal.of_limit
        and (not goal.p99 or found["p99 ms"] < goal.p99)
    )


def shown(found: Figures) -> str:
    """One line for people who wait."""
    return (
        f"{number(found['rate']):>7} {found['unit']:<5}"
        f" ({number(found['least'])} to {number(found['most'])})"
        f"  limit {number(found['limit'])}, {found['of the limit']:.2f} of it"
        f"  p50 {number(found['p50 ms'])} p99 {number(found['p99 ms'])} ms"
        f"  CPU {found['cpu']:.2f} {found['cpu unit']}"
        f"  clients {100 * found['clients']:.0f} %"
    )


def table(
    figures: Mapping[str, Mapping[str, Figures]],
    goals: Mapping[str, Goal],
    memory: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Any],
) -> str:
    """All figures in Markdown, with what they mean below."""
    rows = [
        "| work | goal | reached (least to most) | met | limit | of it "
        "| p50 / p99 ms | CPU | clients |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shares = []
    for name, by_service in figures.items():
        for service, found in by_service.items():
            goal = goals.get(name)
            shares.append(100 * found["clients"])
            work = name if len(by_service) == 1 else f"{name}, {service}"
            cells = (
                work,
                _goal(goal),
                f"{number(found['rate'])} {found['unit']}"
                f" ({number(found['least'])} to {number(found['most'])})",
                "" if goal is None else "yes" if reached(found, goal) else "no",
                number(found["limit"]),
                f"{found['of the limit']:.2f}",
                f"{number(found['p50 ms'])} / {number(found['p99 ms'])}",
                f"{found['cpu']:.2f} {found['cpu unit']}",
                f"{shares[-1]:.0f} %",
            )
            rows.append(f"| {' | '.join(cells)} |")
    rows += _memory_rows(memory, aimed=facts["service"] == "standalone")
    words = {**facts, "least": min(shares, default=0), "most": max(shares, default=0)}
    foot = textwrap.fill(" ".join(FOOT.format(**words).split()), 110)
    return "\n".join(rows) + f"\n\n{foot}\n"


def _memory_rows(
    memory: Mapping[str, Mapping[str, float]], *, aimed: bool
) -> Iterator[str]:
    for what, by_service in memory.items():
        for service, most in by_service.items():
            label = what if len(by_service) == 1 else f"{what}, {service}"
            goal = f"{MEMORY[what]:.0f}" if aimed else ""
            met = "" if not aimed else "yes" if most <= MEMORY[what] else "no"
            yield (f"| memory: {label} | {goal} | {most:.0f} MiB | {met} | | | | | |")


def number(value: float) -> str:
    """With thousands, and no more digits than say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _goal(goal: Goal | None) -> str:
    if goal is None:
        return ""
    words = [number(goal.rate)] if goal.rate else []
    words += [f"{goal.of_limit:g} of the limit"] if goal.of_limit else []
    words += [f"p99 below {goal.p99:g} ms"] if goal.p99 else []
    return ", ".join(words)


def _unit(name: str) -> str:
    work = WORKS[name]
    if work.method == "LIST":
        return "s"
    return "MiB/s" if work.large else "/s"
