"""Silence the warnings of other packages without harm to other threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_lock = threading.RLock()


@contextmanager
def quiet(category: type[Warning]) -> Iterator[None]:
    """Ignore `category` inside the block, one thread at a time.

    `warnings.catch_warnings` saves and restores state of the whole process: two threads that overlap in it leave their
    filters behind for good. Keep the block short.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
