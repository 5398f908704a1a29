"""Many windows of one image at once, on its pixel grid or shifted by parts of a pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import EllipsisType
from typing import cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ztfxr.arrays.geometry.transform import Transform
from ztfxr.arrays.images.resample import Interpolation, Resampled, kernel_table, resample
from ztfxr.arrays.threads import in_parallel, task
from ztfxr.arrays.types import Bools, Floats, Ints, Numbers, Scalar

__all__ = ["Cutouts", "Windows", "gather", "gather_shifted"]

Slices = tuple[slice, ...]

_NOWHERE = -(1 << 40)


@dataclass(frozen=True)
class Cutouts:
    """Square windows of `size` pixels around central pixels `y`, `x` (array positions), all within the image."""

    y: Ints
    x: Ints
    size: int

    def __len__(self) -> int:
        return len(self.y)

    def windows(self, image: NDArray[Scalar], margin: int = 0) -> NDArray[Scalar]:
        """The pixels of every cut-out, with `margin` more on each side; copies, (cutout, y, x)."""
        n, half = self.size + 2 * margin, self.size // 2 + margin
        return sliding_window_view(image, (n, n))[self.y - half, self.x - half]

    def take(self, which: Ints) -> Cutouts:
        """Some of the cut-outs."""
        return Cutouts(self.y[which], self.x[which], self.size)


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows around positions; every pair is (y, x).

    Parameters
    ----------
    position
        Absolute pixels, (source,) each.
    sides
        Pixels of the windows. One starts ``side // 2`` pixels before its central pixel.
    origin
        Absolute pixel of the first row and column of the image.
    """

    position: tuple[Floats, Floats]
    sides: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    @cached_property
    def known(self) -> Bools:
        """Which positions have a pixel, on the image or off it; (source,)."""
        return np.asarray((np.abs(self.position[0]) < 2.0**31) & (np.abs(self.position[1]) < 2.0**31))

    @cached_property
    def central(self) -> tuple[Ints, Ints]:
        """The absolute pixel that contains each position; far off where it has none."""
        y, x = (np.floor(np.where(self.known, p, _NOWHERE) + 0.5).astype(np.int64) for p in self.position)
        return y, x

    @property
    def shifts(self) -> tuple[Floats, Floats]:
        """From the middle of the central pixel to the position, -0.5 to 0.5; 0 where there is none."""
        y, x = (np.where(self.known, p - c, 0.0) for p, c in zip(self.position, self.central, strict=True))
        return y, x

    @property
    def starts(self) -> tuple[Ints, Ints]:
        """Array positions of the first row and column, which may be negative."""
        y, x = (c - n // 2 - o for c, n, o in zip(self.central, self.sides, self.origin, strict=True))
        return y, x

    def on_image(self, shape: tuple[int, int]) -> tuple[Bools, Bools, Bools]:
        """Whether the position, some of the window, and all of it lie on an image of this shape; (source,) each."""
        inside, some, whole = (np.ones(len(self.position[0]), dtype=bool) for _ in range(3))
        for start, side, central, first, n in zip(
            self.starts, self.sides, self.central, self.origin, shape, strict=True
        ):
            inside &= (central >= first) & (central < first + n)
            some &= (start < n) & (start + side > 0)
            whole &= (start >= 0) & (start + side <= n)
        return inside, some, whole

    def wider(self, margin: int) -> Windows:
        """The same windows, `margin` pixels more on each side."""
        return replace(self, sides=(self.sides[0] + 2 * margin, self.sides[1] + 2 * margin))

    def part(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of an image that the windows rest on; empty where they rest on none."""
        some = self.on_image(shape)[1]
        if not some.any():
            return slice(0, 0), slice(0, 0)
        rows, columns = (
            slice(max(int(start[some].min()), 0), min(int(start[some].max()) + side, n))
            for start, side, n in zip(self.starts, self.sides, shape, strict=True)
        )
        return rows, columns

    def within(self, part: tuple[slice, slice]) -> Windows:
        """The same windows, seen from a part of the image."""
        return replace(self, origin=(self.origin[0] + part[0].start, self.origin[1] + part[1].start))


def gather(
    pixels: NDArray[Scalar], *, starts: Sequence[Ints], sides: Sequence[int], fill: Scalar | float
) -> NDArray[Scalar]:
    """Windows of images, copied: (..., y, x) to (..., source, dy, dx), `fill` where an image has no pixel.

    There are as many core axes, at the end, as there are `starts`, the first array positions of the windows.
    """
    n = len(sides)
    leading, shape = pixels.shape[: pixels.ndim - n], pixels.shape[pixels.ndim - n :]
    out = np.full((*leading, len(starts[0]), *sides), fill, dtype=pixels.dtype)
    for number, inside, where in _overlaps(starts, sides, shape):
        here: tuple[EllipsisType | int | slice, ...] = (..., number, *where)
        there: tuple[EllipsisType | slice, ...] = (..., *inside)
        out[here] = pixels[there]
    return out


def _overlaps(
    starts: Sequence[Ints], sides: Sequence[int], shape: Sequence[int]
) -> Iterator[tuple[int, Slices, Slices]]:
    """What each window has of an image: its number, the slices of the image, those of the window; others left out."""
    sizes = list(zip(sides, shape, strict=True))
    for number, start in enumerate(zip(*(s.tolist() for s in starts), strict=True)):
        inside = [(max(a, 0), min(a + side, n)) for a, (side, n) in zip(start, sizes, strict=True)]
        if all(low < high for low, high in inside):
            where = tuple(slice(low - a, high - a) for (low, high), a in zip(inside, start, strict=True))
            yield number, tuple(slice(low, high) for low, high in inside), where


def gather_shifted(
    image: Numbers,
    variance: Numbers | None,
    bad: Bools,
    flags: Numbers | None,
    *,
    windows: Windows,
    interpolation: Interpolation,
    spread: int,
    outside: int,
) -> Resampled:
    """Windows of one image, each resampled so that its position is the middle of its central pixel.

    Results are (source, dy, dx). Of each window the pixels that it rests on are cut out first; for the rest see
    `ztfxr.arrays.resample.resample`.
    """
    shape = (len(windows.position[0]), *windows.sides)
    out = Resampled(
        np.full(shape, np.nan, np.float32),
        np.full(shape if variance is not None else (0, 0, 0), np.nan, np.float32),
        np.ones(shape, bool),
        np.full(shape, outside, np.uint16),
    )
    margin = kernel_table(interpolation).shape[1] // 2
    wide, shifts = windows.wider(margin), np.column_stack(windows.shifts)

    def one(window: tuple[int, Slices, Slices]) -> None:
        number, inside, where = window
        dy, dx = shifts[number]
        with task():
            found = resample(
                image[inside],
                Transform.shift(dx, dy),
                windows.sides,
                variance=None if variance is None else variance[inside],
                bad=bad[inside],
                flags=None if flags is None else flags[inside],
                spread=spread,
                outside=outside,
                origin=(where[0].start - margin, where[1].start - margin),
                interpolation=interpolation,
            )
        for whole, part in zip(cast("tuple[Numbers, ...]", out), cast("tuple[Numbers, ...]", found), strict=True):
            if whole.size:
                whole[number] = part

    in_parallel(one, _overlaps(wide.starts, wide.sides, image.shape))
    return out
