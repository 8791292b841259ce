"""The kinds of work that `hotpaths` measures, and what is aimed at."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

KIB, MIB = 1 << 10, 1 << 20
NAMES = "names"
"""10,000 contents of 4 KiB, made once, for whatever reads small ones."""


@attrs.frozen
class Work:
    """So many clients that make `each` requests, or as many as go into `seconds`."""

    method: str
    size: int
    clients: int
    each: int
    seconds: float = 60.0
    reads: str = ""
    """The work that wrote what this one reads."""

    @property
    def large(self) -> bool:
        """Whether bytes a second tell, not requests."""
        return self.size >= MIB


@attrs.frozen
class Goal:
    """The least rate (MiB/s, requests a second; the most seconds of a listing).

    `of_limit` is the least part of the limit, `p99` the most milliseconds.
    """

    rate: float = 0.0
    of_limit: float = 0.0
    p99: float = 0.0


def _small(method: str, clients: int, each: int) -> Work:
    reads = "" if method == "PUT" else NAMES
    return Work(method, 4 * KIB, clients, each, 2.0, reads)


GROUPS: Mapping[str, Mapping[str, Work]] = {
    "small": {
        NAMES: Work("PUT", 4 * KIB, 20, 500),
        "put-4k-c1": _small("PUT", 1, 4000),
        "get-4k-c1": _small("GET", 1, 20_000),
        "head-4k-c1": _small("HEAD", 1, 20_000),
        "put-4k-c32": _small("PUT", 32, 800),
        "get-4k-c32": _small("GET", 32, 2500),
        "head-4k-c32": _small("HEAD", 32, 2500),
        "mixed-4k-c32": _small("MIXED", 32, 1000),
        "put-4k-c128": _small("PUT", 128, 200),
        "get-4k-c128": _small("GET", 128, 600),
        "head-4k-c128": _small("HEAD", 128, 600),
        "list-10000": Work("LIST", 0, 1, 1, reads=NAMES),
        "put-1m-c8": Work("PUT", MIB, 8, 32),
        "get-1m-c8": Work("GET", MIB, 8, 128, reads="put-1m-c8"),
    },
    "large": {
        "put-256m-c1": Work("PUT", 256 * MIB, 1, 2),
        "get-256m-c1": Work("GET", 256 * MIB, 1, 4, reads="put-256m-c1"),
        "put-256m-c4": Work("PUT", 256 * MIB, 4, 1),
        "get-256m-c4": Work("GET", 256 * MIB, 4, 2, reads="put-256m-c4"),
        "put-64m-c1": Work("PUT", 64 * MIB, 1, 4),
        "get-64m-c1": Work("GET", 64 * MIB, 1, 12, reads="put-64m-c1"),
        "put-64m-c4": Work("PUT", 64 * MIB, 4, 2),
        "get-64m-c4": Work("GET", 64 * MIB, 4, 6, reads="put-64m-c4"),
        "degraded-64m-c4": Work("GET", 64 * MIB, 4, 6, reads="put-64m-c4"),
    },
    "huge": {
        "put-2g-c1": Work("PUT", 2048 * MIB, 1, 1),
        "get-2g-c1": Work("GET", 2048 * MIB, 1, 1, reads="put-2g-c1"),
    },
}
"""In the order in which they are done; each group has a service of its own.

So no more than about 12 GiB of the disk are used at once.
"""
WORKS = {name: work for group in GROUPS.values() for name, work in group.items()}
DEGRADED = "degraded-64m-c4"

STANDALONE: Mapping[str, Goal] = {
    "put-256m-c1": Goal(of_limit=0.40),
    "get-256m-c1": Goal(of_limit=0.50),
    "put-64m-c4": Goal(550, of_limit=0.65),
    "get-64m-c4": Goal(2400),
    DEGRADED: Goal(2000),
    "put-1m-c8": Goal(300),
    "get-1m-c8": Goal(1400),
    "put-4k-c32": Goal(4000, p99=40),
    "put-4k-c1": Goal(800),
    "get-4k-c32": Goal(10_000),
    "get-4k-c1": Goal(3000),
    "list-10000": Goal(0.1),
    "put-2g-c1": Goal(450),
    "get-2g-c1": Goal(1800),
}
CLUSTER: Mapping[str, Goal] = {
    "put-64m-c4": Goal(350),
    "get-64m-c4": Goal(800),
    "put-4k-c32": Goal(1500),
    "get-4k-c32": Goal(4000),
}
SLOW_PUT, SLOW_GET = "slow-put", "slow-get"
"""64 clients that send or take little at a time, and walk away."""
MEMORY: Mapping[str, float] = {
    "in all of it": 250.0,
    "put-2g-c1": 64.0,
    "get-2g-c1": 64.0,
    SLOW_PUT: 160.0,
    SLOW_GET: 160.0,
}
"""Resident MiB of a standalone: the most in all, and by how much some work adds."""
SEARCH = 0.6
"""The least part of what a search server itself takes."""
