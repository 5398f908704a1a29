"""Difference imaging of a square pair: how time and memory grow with area, kernel size and spatial order."""

from __future__ import annotations

from typing import Any

import ztfxr
from benchmarks._scenes import make_pair


class _Pair:
    """A pair in memory, of which nothing but masks is told unless `noise` is set."""

    timeout = 300
    noise = False

    def prepare(self, size: int) -> None:
        pair = make_pair(size)
        self.arguments: dict[str, Any] = pair.labeled() | (pair.noise() if self.noise else {})
        self.options: dict[str, Any] = {}

    def time_difference(self, *_: object) -> None:
        ztfxr.difference(**self.arguments, **self.options)

    def peakmem_difference(self, *_: object) -> None:
        self.time_difference()


class Area(_Pair):
    """Everything by default, noise measured from the residuals: linear in area once frames are large."""

    params = ([1024, 2048, 3080],)
    param_names = ("size",)

    def setup(self, size: int) -> None:
        self.prepare(size)
        self.time_difference()


class KernelSize(_Pair):
    """Variances given, a kernel of fixed size that varies quadratically."""

    params = ([9, 13, 17], [1024, 3080])
    param_names = ("kernel_size", "size")
    noise = True

    def setup(self, kernel_size: int, size: int) -> None:
        self.prepare(size)
        self.options = {"kernel_size": kernel_size, "kernel_order": 2}
        self.time_difference()


class KernelOrder(_Pair):
    """Variances given, a kernel of 13 pixels of each spatial order."""

    params = ([0, 1, 2, 3], [1024, 3080])
    param_names = ("kernel_order", "size")
    noise = True

    def setup(self, kernel_order: int, size: int) -> None:
        self.prepare(size)
        self.options = {"kernel_size": 13, "kernel_order": kernel_order}
        self.time_difference()
