"""Where epochs run: in this process, in processes of this machine, or on a dask cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, TypeVar

from ztfxr.errors import InputError, ZtfxrError

__all__ = ["Pool", "WorkersDiedError", "open_pool"]

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 2
_AHEAD = 3
_REFRESH_S = 5.0
_TASK_S, _MAX_BATCH = 0.5, 32


class WorkersDiedError(ZtfxrError):
    """Every worker that was given an item died over it."""


class Pool(Protocol):
    """Something that maps a function over items, as they finish, without ever holding all of them."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | WorkersDiedError]]:
        """Pairs of item and result in the order they finish; an error of the function is raised."""
        ...


class SerialPool:
    """One item after the other, in this process."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | WorkersDiedError]]:
        """Pairs of item and result, in order."""
        for item in items:
            yield item, function(item)


class DaskPool:
    """The workers of a `distributed.Client`; a few tasks per worker are in flight.

    A task takes one item, and more once they turn out to be short: the scheduler needs some 5 ms for each task.
    The scheduler blames every task that was on a worker when it died, so those that it gives up run again, each with
    nothing beside it, before one is said to be deadly.
    """

    def __init__(self, client: Any) -> None:
        if getattr(client, "asynchronous", False):
            raise InputError("the client is asynchronous; give a plain distributed.Client(...)")
        self._client = client
        self._limit, self._seen = 0, -_REFRESH_S

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R | WorkersDiedError]]:
        """Pairs of item and result as they finish; dask runs items again whose worker died."""
        from distributed import KilledWorker, as_completed

        remaining, suspects = iter(items), list[T]()
        flying: dict[Any, list[T]] = {}
        finished = as_completed()  # type: ignore[no-untyped-call]
        size, alone = 1, False
        try:
            while True:
                while len(flying) < (1 if alone or suspects else self._in_flight()):
                    alone = bool(suspects)
                    batch = [suspects.pop()] if suspects else list(islice(remaining, size))
                    if not batch:
                        break
                    future = self._client.submit(_each, function, batch, pure=False, retries=_RETRIES)
                    flying[future] = batch
                    finished.add(future)  # type: ignore[no-untyped-call]
                if not flying:
                    return
                future = next(finished)
                batch = flying.pop(future)
                try:
                    results, seconds = future.result()
                    size = _batch_size(size, seconds / len(batch))
                    yield from zip(batch, results, strict=True)
                except KilledWorker as error:
                    if alone:
                        yield batch[0], WorkersDiedError(f"every worker that took it died ({error})")
                    else:
                        suspects += batch
                finally:
                    future.release()
                alone = False
        finally:
            if flying:
                self._client.cancel(list(flying))

    def _in_flight(self) -> int:
        """A few tasks a thread: none waits for the next, and the scheduler never holds many."""
        now = time.monotonic()
        if now - self._seen > _REFRESH_S:
            threads = sum(self._client.nthreads().values())
            self._limit, self._seen = max(2, _AHEAD * threads), now
        return self._limit


def _each(function: Callable[[T], R], items: list[T]) -> tuple[list[R], float]:
    """The results of one task, and its seconds."""
    start = time.monotonic()
    return [function(item) for item in items], time.monotonic() - start


def _batch_size(now: int, seconds_per_item: float) -> int:
    """Items that fill a task, at most twice as many as now, since one item says little about the next."""
    return max(1, min(2 * now, _MAX_BATCH, int(_TASK_S / max(seconds_per_item, 1e-6))))


@contextmanager
def open_pool(client: Any, workers: int | None, n_items: int) -> Iterator[Pool]:
    """The pool for `n_items`: the client's cluster, or else processes of this machine.

    Processes and not threads: an epoch of a cut-out spends half of its time in Python, and two threads were slower
    than one. They are dask's, so that they end with this process and one that dies is replaced.
    """
    if client is not None:
        if workers is not None:
            raise InputError("give workers= or client=: the client's cluster has its own number of workers")
        yield DaskPool(client)
        return
    count = _count(workers)
    if min(count, n_items) <= 1:
        yield SerialPool()
        return
    import dask
    from distributed import Client, LocalCluster

    # A LocalCluster gives up a worker for good that is not back some time after it died, by default 15 seconds.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as own,  # type: ignore[no-untyped-call]
    ):
        yield DaskPool(own)


def _count(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if workers < 1:
        raise InputError(f"workers is at least 1; got {workers}")
    return workers
