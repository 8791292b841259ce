"""Several files at once, bounded; one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ostore.cli.failures import Failure, Several

T = TypeVar("T")
AHEAD = 4
"""Jobs that wait for each worker, so a long list is never held whole."""


def each(
    jobs: Iterable[T],
    work: Callable[[T], object],
    *,
    workers: int,
    complain: Callable[[str], None],
) -> int:
    """Do the work for each; how many were done. Raises the failure, or Several."""
    failures: list[Failure] = []
    done = 0
    under_way: set[Future[object]] = set()

    def reap(*, all_of_them: bool) -> None:
        nonlocal done, under_way
        while under_way and (all_of_them or len(under_way) >= workers * AHEAD):
            ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                try:
                    future.result()
                    done += 1
                except Failure as failure:
                    failures.append(failure)
                    complain(str(failure))

    with ThreadPoolExecutor(workers, "transfer") as pool:
        try:
            for job in jobs:
                under_way.add(pool.submit(work, job))
                reap(all_of_them=False)
            reap(all_of_them=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        told = f"{len(failures)} of {done + len(failures)} failed"
        raise Several(told, failures)
    return done
