"""Processes of clients that do jobs: a load generator that does not limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import attrs

from benchmarks.clients import Client, Job, Result, listed, run

AT_ONCE = 16
"""Clients that share a process, as long as there are processes left."""
MOST_PROCESSES = 4


def serve(pipe: Connection) -> None:
    """A process of clients: takes jobs, says when it is ready, begins when told."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            job: Job = pipe.recv()
            try:
                pipe.send(_done(job, pipe))
            except Exception as error:  # noqa: BLE001 - whoever gave the job raises it
                pipe.send(ConnectionError(f"{job.method} {job.size}: {error!r}"))


def _done(job: Job, pipe: Connection) -> Result:
    clients = [] if job.method == "LIST" else [Client(job, n) for n in job.numbers]
    pipe.send("ready")
    pipe.recv()
    if job.method == "LIST":
        return listed(job)
    used = time.process_time()
    began, ended = run(clients, job.seconds)
    used = time.process_time() - used
    for client in clients:
        client.socket.close()
    latencies = [took for client in clients for took in client.latencies]
    return Result(began, ended, used, latencies, [len(c.latencies) for c in clients])


class Load:
    """Processes of clients, from the block's begin to its end."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

    def __enter__(self) -> Load:
        for _ in range(MOST_PROCESSES):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join()

    def do(self, job: Job) -> Result:
        """The work of all clients together. Raises ConnectionError."""
        count = min(MOST_PROCESSES, -(-len(job.numbers) // AT_ONCE))
        pipes = self._pipes[:count]
        for number, pipe in enumerate(pipes):
            pipe.send(attrs.evolve(job, numbers=job.numbers[number::count]))
        self._answers(pipes)
        for pipe in pipes:
            pipe.send("go")
        found: list[Result] = self._answers(pipes)
        done = [0] * len(job.numbers)
        for number, each in enumerate(found):
            done[number::count] = each.done
        return Result(
            min(each.began for each in found),
            max(each.ended for each in found),
            sum(each.cpu for each in found),
            [took for each in found for took in each.latencies],
            done,
        )

    def _answers(self, pipes: Sequence[Connection]) -> list[Any]:
        answers = [pipe.recv() for pipe in pipes]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers
