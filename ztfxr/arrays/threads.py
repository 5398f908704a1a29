"""Threads: our own loops over cores, and BLAS held to one thread wherever tasks already fill them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

__all__ = ["in_parallel", "one_blas_thread", "task", "workers"]

T = TypeVar("T")
R = TypeVar("R")

_lock = threading.Lock()
_active = 0
_saved: list[tuple[Any, int]] = []
_local = threading.local()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _set_threads(library: Any, number: int) -> None:
    """Set the threads of a BLAS library from any thread.

    threadpoolctl 3.8 (not 3.6) lets only the thread that set OpenBLAS first set it again, and ignores others in
    silence: the last of our tasks could not restore what the first had saved. Our lock and count do that job.
    """
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    library.set_num_threads(number)
    if release is not None:
        release(force=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread until the last of the concurrent blocks ends.

    BLAS threads are a setting of the process, so nested or concurrent blocks are counted: the first saves and
    lowers the setting, the last restores it. Two dask threads with two BLAS threads each on two cores ran the
    demonstration in 37 s instead of 7 s.
    """
    global _active
    with _lock:
        if _active == 0:
            for library in _controller().lib_controllers:
                _saved.append((library, library.num_threads))
                _set_threads(library, 1)
        _active += 1
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if _active == 0:
                while _saved:
                    _set_threads(*_saved.pop())


@contextmanager
def task() -> Iterator[None]:
    """Mark this thread as one of many that a scheduler runs: no threads of its own, no BLAS threads."""
    before = getattr(_local, "in_task", False)
    _local.in_task = True
    try:
        with one_blas_thread():
            yield
    finally:
        _local.in_task = before


def workers() -> int:
    """Threads that a loop here may use: one inside a task, else the cores that this process may run on."""
    if getattr(_local, "in_task", False):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[function(i) for i in items]`` on `workers` threads, for functions that release the GIL."""
    n = workers()
    if n == 1:
        return [function(i) for i in items]
    with one_blas_thread(), ThreadPoolExecutor(n) as pool:
        return list(pool.map(function, items))
